"""What interpreter is this, and what is installed?  Nothing of the candidate's is imported."""

import hashlib
import os
import platform
from importlib import metadata


def run(job, channel):
    """Send the environment's fingerprint."""
    versions = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            versions.setdefault(name.lower().replace("_", "-"), distribution.version or "")
    listing = "\n".join("%s==%s" % pair for pair in sorted(versions.items()))
    channel.send(
        "environment",
        values={
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cpus": str(os.cpu_count() or 0),
            "torch": versions.get("torch", ""),
            "numpy": versions.get("numpy", ""),
            "pytest": versions.get("pytest", ""),
            "distributions": str(len(versions)),
            "distributions-digest": hashlib.sha256(listing.encode()).hexdigest(),
        },
    )
    return 0
