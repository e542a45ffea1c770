"""What a project's pytest configuration says of where its tests and its code are."""

from __future__ import annotations

import configparser
import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tiergate.fields import check_repository_path
from tiergate.repository import Repository

_INI = {
    "pytest.ini": "pytest",
    ".pytest.ini": "pytest",
    "tox.ini": "pytest",
    "setup.cfg": "tool:pytest",
}
_ORDER = ("pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")


@dataclass
class Pytest:
    """The options that matter, with paths from the repository's root."""

    testpaths: list[str] = field(default_factory=list)
    pythonpath: list[str] = field(default_factory=list)
    python_files: list[str] = field(default_factory=list)
    addopts: list[str] = field(default_factory=list)


def read(repository: Repository, folder: str) -> Pytest:
    """Read the first file in ``folder`` that configures pytest, as pytest chooses it."""
    for name in _ORDER:
        path = posixpath.normpath(f"{folder}/{name}")
        if path in repository.files and (options := _options(repository, path, name)) is not None:
            return Pytest(
                testpaths=_paths(repository, folder, options.get("testpaths", "")),
                pythonpath=_paths(repository, folder, options.get("pythonpath", "")),
                python_files=_words(options.get("python_files", "")),
                addopts=_words(options.get("addopts", "")),
            )
    return Pytest()


def _options(repository: Repository, path: str, name: str) -> Mapping[str, Any] | None:
    try:
        text = (repository.root / path).read_text(encoding="utf-8")
        if name.endswith(".toml"):
            import tomli  # noqa: PLC0415 - only where there is such a file

            document = tomli.loads(text)
            if name == "pytest.toml":
                found = document.get("pytest")
            else:
                tool = document.get("tool", {}).get("pytest", {})
                found = tool.get("ini_options", tool or None)
            return found if isinstance(found, dict) else None
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(text)
    except (OSError, ValueError, AttributeError, configparser.Error):
        return None  # pytest itself will say what is wrong with it
    section = _INI[name]
    if section in parser:
        return dict(parser[section])
    return {} if name in {"pytest.ini", ".pytest.ini"} else None


def _paths(repository: Repository, folder: str, value: Any) -> list[str]:
    joined = [posixpath.normpath(f"{folder}/{word}") for word in _words(value)]
    return [
        path
        for path in joined
        if check_repository_path(path) is None and (repository.root / path).exists()
    ]


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError:
            return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []
