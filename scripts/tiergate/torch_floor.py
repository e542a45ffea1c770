"""The lowest torch that a project says it runs with, read from where projects declare it."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

FIXED = (2, 6)
"""The first torch in which ``weights_only=True`` protects: CVE-2025-32434."""

_REQUIREMENTS = re.compile(r"^(?:requirements/)?[\w.-]*requirements[\w.-]*\.(?:txt|in)$")
_LOWER = frozenset({">=", "==", "~=", "===", ">"})
_NAME = re.compile(r"\s*([\w.-]+)")
# What nearly every project writes, and what need not be taken apart by a library that is slow to
# import.
_PLAIN = re.compile(r"\s*torch\s*(?:>=|==|~=|>)\s*([0-9]+(?:\.[0-9]+)*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Floor:
    """One declaration of torch."""

    path: str
    line: int
    text: str
    protects: bool
    """Whether every torch that it allows checks ``weights_only=True`` well."""


def declared(files: Iterable[str], read: Callable[[str], bytes]) -> list[Floor]:
    """Return every declaration of torch in the files at a repository's root.

    Args:
        files: the repository's files.
        read: returns the content of one.
    """
    found: list[Floor] = []
    for name in files:
        if name == "pyproject.toml":
            lines = _pyproject
        elif name == "setup.cfg":
            lines = _setup_cfg
        elif name == "setup.py":
            lines = _setup_py
        elif _REQUIREMENTS.match(name):
            lines = _requirements
        else:
            continue
        text = read(name).decode("utf-8", "replace")
        for requirement in lines(text):
            floor = _floor(name, text, requirement)
            if floor is not None:
                found.append(floor)
    return found


def _floor(path: str, text: str, requirement: str) -> Floor | None:
    named = _NAME.match(requirement)
    if named is None or named[1].lower() != "torch":
        return None
    plain = _PLAIN.fullmatch(requirement)
    protects = (
        tuple(int(part) for part in plain[1].split(".")) >= FIXED
        if plain
        else _protects(requirement)
    )
    if protects is None:
        return None
    line = next((n for n, part in enumerate(text.split("\n"), 1) if requirement in part), 0)
    line = line or next((n for n, part in enumerate(text.split("\n"), 1) if "torch" in part), 1)
    return Floor(path, line, requirement, protects)


def _protects(requirement: str) -> bool | None:
    """Tell whether all versions that a requirement allows protect; None where it is none."""
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    try:
        parsed = Requirement(requirement)
    except InvalidRequirement:
        return None
    versions = []
    for specifier in parsed.specifier:
        if specifier.operator in _LOWER:
            try:
                versions.append(Version(specifier.version.removesuffix(".*")))
            except InvalidVersion:
                continue
    return bool(versions) and max(versions) >= Version(".".join(map(str, FIXED)))


def _pyproject(text: str) -> Iterator[str]:
    import tomli  # noqa: PLC0415 - only where a floor is read

    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return
    project = _table(document.get("project"))
    yield from _texts(project.get("dependencies"))
    for group in (project.get("optional-dependencies"), document.get("dependency-groups")):
        for needed in _table(group).values():
            yield from _texts(needed)
    poetry = _table(_table(document.get("tool")).get("poetry"))
    for table in (poetry, *_table(poetry.get("group")).values()):
        for name, value in _table(_table(table).get("dependencies")).items():
            version = value.get("version", "*") if isinstance(value, dict) else value
            if isinstance(version, str) and name.lower() == "torch":
                yield f"{name}{_poetry(version)}"


def _poetry(version: str) -> str:
    """Return a version constraint of Poetry's as a specifier, as far as its floor goes."""
    first = version.split(",", maxsplit=1)[0].strip()
    if first in {"", "*"}:
        return ""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415

    bare = first.lstrip("^~= ")
    try:
        SpecifierSet(first)
    except InvalidSpecifier:
        return f">={bare}"
    return first


def _setup_cfg(text: str) -> Iterator[str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error:
        return
    for section, key in (("options", "install_requires"),):
        yield from _requirements(parser.get(section, key, fallback=""))
    if parser.has_section("options.extras_require"):
        for _, value in parser.items("options.extras_require"):
            yield from _requirements(value)


def _setup_py(text: str) -> Iterator[str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str) and re.match(r"torch\s*(?:$|[<>=!~])", value):
            yield value


def _requirements(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        requirement = re.split(r"\s#|\s--|^#|^-", line.strip())[0].strip()
        if requirement:
            yield requirement


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
