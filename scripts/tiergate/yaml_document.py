"""YAML bytes → a tree of nodes that know their line and column.

Built from the parser's events, not by ``yaml.load``: nothing is constructed, the size of the tree
is bounded before it exists (an alias counts as much as what it stands for), and a mapping keeps
its duplicate keys so that they can be refused.
"""

from __future__ import annotations

import re
from enum import Enum

import msgspec

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 24
MAX_DIRECTIVES = 8

_DIRECTIVE = re.compile(r"^%", re.MULTILINE)


class Mark(msgspec.Struct, frozen=True, order=True):
    """A place in the file, counted from 1."""

    line: int
    column: int


class Problem(msgspec.Struct, frozen=True, order=True):
    """Something wrong in the file, and where."""

    mark: Mark
    message: str


class Kind(Enum):
    """The three kinds of YAML node, named as messages name them."""

    SCALAR = "a scalar"
    SEQUENCE = "a list"
    MAPPING = "a mapping"


class Node(msgspec.Struct):
    """A YAML node; exactly one of ``text``, ``items`` and ``entries`` is meaningful by ``kind``."""

    kind: Kind
    mark: Mark
    text: str = ""
    plain: bool = False
    items: list[Node] = []
    entries: list[tuple[Node, Node]] = []
    size: int = 1
    height: int = 0
    """Levels of nesting below it."""


class YamlError(Exception):
    """The file is not a YAML document that can be read; carries one problem."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(mark, message)


def parse(data: bytes) -> Node:
    """Return the root node of the single document in ``data``.

    Raises:
        YamlError: ``data`` is too large, not UTF-8, not YAML, more than one document, uses tags,
            is nested too deeply, or its aliases expand to too many nodes.
    """
    if len(data) > MAX_BYTES:
        raise YamlError(Mark(1, 1), f"the file has {len(data)} bytes; the limit is {MAX_BYTES}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        raise YamlError(end_of(before), f"the file is not UTF-8: {error.reason}") from None
    # The scanner compares every directive with all before it.
    if len(directives := list(_DIRECTIVE.finditer(text))) > MAX_DIRECTIVES:
        where = end_of(text[: directives[MAX_DIRECTIVES].start()])
        raise YamlError(where, f"more than {MAX_DIRECTIVES} directives")
    from tiergate.yaml_builder import build  # noqa: PLC0415 - not where the tree is known

    return build(text)


def end_of(text: str) -> Mark:
    """Return the place right behind ``text``."""
    return Mark(text.count("\n") + 1, len(text) - text.rfind("\n"))
