"""Bounds for what candidate code can make the probe send."""

from __future__ import annotations


def clip(text: object, limit: int) -> str:
    """Return ``text``, its middle left out where it is longer than ``limit`` characters."""
    text = str(text)
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - limit} characters left out ...]\n{text[-half:]}"
