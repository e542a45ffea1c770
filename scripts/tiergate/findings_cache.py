"""What a scan found, kept in the user's cache by everything that decides it.

Of single files only those that were read without a problem are kept. A laptop's runs use it; in CI
nothing is read from it or written to it unless ``TIERGATE_CACHE=1`` asks for that, and
``TIERGATE_CACHE=0`` turns it off anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tiergate.environment import in_ci
from tiergate.verdict import write_atomically

_SWITCH = "TIERGATE_CACHE"


def folder(environment: Mapping[str, str]) -> Path | None:
    """Return where findings are kept, or None where they are not to be."""
    switch = environment.get(_SWITCH, "")
    if switch == "0" or (in_ci(environment) and switch != "1"):
        return None
    home = environment.get("HOME", "")
    base = environment.get("XDG_CACHE_HOME", "") or (f"{home}/.cache" if home else "")
    return Path(base, "tiergate", "findings") if Path(base).is_absolute() else None


def digest(*parts: object) -> str:
    """Return one digest of several texts or bytes."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape")
        sha.update(b"%d:" % len(data) + data)
    return sha.hexdigest()


class FindingsCache:
    """Answers by key, for one repository and one configuration of the scan.

    Args:
        place: the folder, or None to keep nothing.
        name: a digest of the repository and of all that is the same for its files.
    """

    def __init__(self, place: Path | None, name: str) -> None:
        self._path = place / f"{name}.json" if place is not None else None
        self._known: dict[str, Any] = {}
        self._used: dict[str, Any] = {}
        if self._path is None:
            return
        try:
            known = msgspec.json.decode(self._path.read_bytes())
            self._known = known if isinstance(known, dict) else {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            self._known = {}  # missing or damaged: everything is read again

    @property
    def in_use(self) -> bool:
        """Whether anything is kept: a key that takes long to make is not needed otherwise."""
        return self._path is not None

    def get(self, key: str) -> Any:
        """Return what was kept under a key, or None."""
        found = self._known.get(key)
        if found is not None:
            self._used[key] = found
        return found

    def put(self, key: str, value: Any) -> None:
        """Keep an answer."""
        if self._path is not None:
            self._used[key] = value

    def save(self) -> None:
        """Write what was asked for or put in; what was not is of files that are gone."""
        if self._path is None or self._used == self._known:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, msgspec.json.encode(self._used))
        except OSError:
            return  # a cache that cannot be written costs time and changes no verdict
