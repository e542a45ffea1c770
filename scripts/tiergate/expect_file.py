"""Rewrites numbers of an ``expect:`` in the text of a spec: everything else stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from tiergate import spec, yaml_document
from tiergate.errors import UserError
from tiergate.expectation import Bound
from tiergate.yaml_document import Kind, Node

_VALUE = re.compile(r"""(?P<quote>["']).*?(?P=quote)|[^\s,}\]#]+""")


def rewrite(data: bytes, path: Path, criterion_id: str, bounds: Mapping[str, Bound]) -> bytes:
    """Return the spec with other bounds for outcomes that ``expect:`` names.

    Args:
        data: the spec.
        path: for messages.
        criterion_id: the criterion.
        bounds: by outcome.

    Raises:
        UserError: the layout does not let the numbers be replaced one by one, such as an alias.
    """
    bom = data.startswith(b"\xef\xbb\xbf")
    lines = data.decode("utf-8-sig").split("\n")
    # From the end of the file, so that what is replaced moves nothing that is still to come.
    nodes = [(node, bounds[name]) for name, node in _expected(data, criterion_id) if name in bounds]
    for node, bound in sorted(nodes, key=lambda pair: pair[0].mark, reverse=True):
        line, column = node.mark.line - 1, node.mark.column - 1
        found = _VALUE.match(lines[line], column)
        # A number is no text: only ">=N" is quoted, as it was or as most people do.
        quote = ((found and found["quote"]) or '"') if bound.at_least else ""
        end = found.end() if found else column
        lines[line] = f"{lines[line][:column]}{quote}{bound}{quote}{lines[line][end:]}"
    after = "\n".join(lines).encode("utf-8-sig" if bom else "utf-8")
    if not _differs_only(data, after, path, criterion_id, bounds):
        raise UserError(
            f"{path}: cannot rewrite the numbers of {criterion_id} in this layout; write them by "
            "hand: " + ", ".join(f"{name}: {bound}" for name, bound in bounds.items())
        )
    return after


def _expected(data: bytes, criterion_id: str) -> Iterator[tuple[str, Node]]:
    """Yield outcome and value of the criterion's ``expect:``."""
    for node in _mappings(yaml_document.parse(data)):
        entries = {key.text: value for key, value in node.entries}
        if "uses" in entries and "id" in entries and entries["id"].text == criterion_id:
            for key, value in entries.get("expect", node).entries:
                yield key.text, value


def _mappings(node: Node) -> Iterator[Node]:
    if node.kind is Kind.MAPPING:
        yield node
    for child in (*node.items, *(value for _, value in node.entries)):
        yield from _mappings(child)


def _differs_only(
    before: bytes, after: bytes, path: Path, criterion_id: str, bounds: Mapping[str, Bound]
) -> bool:
    """Tell whether the new spec is the old one with these bounds, and nothing else changed."""
    try:
        new = spec.parse(after, path)
    except spec.SpecError:
        return False
    old = spec.parse(before, path)
    tiers = tuple(
        msgspec.structs.replace(
            tier,
            criteria=tuple(
                msgspec.structs.replace(c, expect={**c.expect, **bounds})
                if c.id == criterion_id
                else c
                for c in tier.criteria
            ),
        )
        for tier in old.tiers
    )
    return msgspec.structs.replace(old, tiers=tiers, digest=new.digest) == new
