"""What interpreter is this, and what is installed?  Nothing of the candidate's is imported."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .records import Channel

if TYPE_CHECKING:
    from collections.abc import Iterator

# Two of the headers, whatever stands between them; a line that goes on begins with a space.
_NAME = re.compile(rb"^Name: ([!-~]+)\r?\n", re.MULTILINE)
_VERSION = re.compile(rb"^Version: ([!-~]+)\r?\n", re.MULTILINE)
_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_HEADERS_READ = 4096
_FINDERS = (BuiltinImporter, FrozenImporter, PathFinder)


def run(job: dict[str, Any], channel: Channel) -> int:
    """Send the environment's fingerprint."""
    versions: dict[str, str] = {}
    installed = _plainly_installed()
    for name, version in _installed() if installed is None else installed:
        versions.setdefault(name.lower().replace("_", "-"), version)
    own = {os.path.abspath(path) for path in job["pythonpath"]}  # noqa: PTH100 - as they stand
    channel.send("search", folders=[path for path in sys.path if os.path.abspath(path) not in own])  # noqa: PTH100
    listing = "\n".join(f"{name}=={version}" for name, version in sorted(versions.items()))
    channel.send(
        "environment",
        values={
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "platform": _platform(),
            "machine": os.uname().machine if sys.platform == "linux" else platform.machine(),
            "cpus": str(os.cpu_count() or 0),
            "torch": versions.get("torch", ""),
            "numpy": versions.get("numpy", ""),
            "pytest": versions.get("pytest", ""),
            "distributions": str(len(versions)),
            "distributions-digest": hashlib.sha256(listing.encode()).hexdigest(),
        },
    )
    return 0


def _platform() -> str:
    """Return what ``platform.platform()`` does, which starts a program to name the processor."""
    if sys.platform != "linux":
        return platform.platform()
    system = os.uname()
    library = "".join(platform.libc_ver())
    return "-".join(filter(None, (system.sysname, system.release, system.machine, "with", library)))


def _plainly_installed() -> list[tuple[str, str]] | None:
    """Return names and versions where all lie in folders of their own, in the usual form.

    Where something is installed in another way, None: ``importlib.metadata`` knows them all, but
    to import it takes longer than everything else here.
    """
    others = (finder for finder in sys.meta_path if finder not in _FINDERS)
    if any(hasattr(finder, "find_distributions") for finder in others):
        return None
    found = []
    for path in sys.path:
        folder = Path(path)
        if not folder.is_dir():
            if folder.exists():
                return None
            continue
        for entry in folder.iterdir():
            kind = entry.name.lower().rpartition(".")[2]
            if kind in {"egg", "egg-info"}:
                return None
            if kind == "dist-info":
                known = _identity(entry / "METADATA")
                if known is None:
                    return None
                found.append(known)
    return found


def _identity(path: Path) -> tuple[str, str] | None:
    """Return name and version, where the first headers tell."""
    try:
        with path.open("rb") as stream:
            headers = _HEADERS_END.split(stream.read(_HEADERS_READ), 1)[0] + b"\n"
    except OSError:
        return None
    name, version = _NAME.search(headers), _VERSION.search(headers)
    return (name[1].decode(), version[1].decode()) if name and version else None


def _installed() -> Iterator[tuple[str, str]]:
    """Yield names and versions, however they are installed."""
    from importlib import metadata  # noqa: PLC0415 - slow, and seldom needed

    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            yield name, distribution.version or ""
