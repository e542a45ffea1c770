"""What interpreter is this, and what is installed?  Nothing of the candidate's is imported."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from importlib import metadata
from typing import Any

from .records import Channel

# As every tool that builds distributions writes it.
_NAME = re.compile(r"Metadata-Version: \S+\nName: (\S+)\nVersion: (\S+)\n")


def run(job: dict[str, Any], channel: Channel) -> int:
    """Send the environment's fingerprint."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        name, version = _identity(distribution)
        if name:
            versions.setdefault(name.lower().replace("_", "-"), version)
    own = {os.path.abspath(path) for path in job["pythonpath"]}  # noqa: PTH100 - as they stand
    channel.send("search", folders=[path for path in sys.path if os.path.abspath(path) not in own])  # noqa: PTH100
    listing = "\n".join(f"{name}=={version}" for name, version in sorted(versions.items()))
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


def _identity(distribution: metadata.Distribution) -> tuple[str, str]:
    """Return name and version, of which the first lines tell: what follows is long to parse."""
    text = distribution.read_text("METADATA") or ""
    found = _NAME.match(text)
    if found:
        return found[1], found[2]
    return distribution.metadata["Name"] or "", distribution.version or ""
