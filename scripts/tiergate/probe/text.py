"""Bounds for what candidate code can make the probe send."""


def clip(text, limit):
    """Return ``text``, its middle left out where it is longer than ``limit`` characters."""
    text = str(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return text[:half] + "\n[... %d characters left out ...]\n" % (len(text) - limit) + text[-half:]
