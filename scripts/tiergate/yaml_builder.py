"""The YAML parser's events → a tree of nodes; apart, because PyYAML is slow to import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tiergate.yaml_document import (
    MAX_DEPTH,
    MAX_NODES,
    Kind,
    Mark,
    Node,
    YamlError,
    end_of,
)

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def build(text: str) -> Node:
    """Return the root node of the single document in ``text``.

    Raises:
        YamlError: as for ``yaml_document.parse``.
    """
    try:
        return _Builder(text).document()
    except yaml.reader.ReaderError as error:
        # libyaml counts bytes.
        before = text.encode()[: error.position].decode(errors="ignore")
        raise YamlError(end_of(before), f"the file is not readable text: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = Mark(at.line + 1, at.column + 1) if at else Mark(1, 1)
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(mark, f"not valid YAML: {what}") from None
    except yaml.YAMLError as error:
        raise YamlError(Mark(1, 1), f"not valid YAML: {error}") from None


class _Builder:
    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self._anchors: dict[str, Node | None] = {}
        self._total = 0

    def document(self) -> Node:
        next(self._events)  # StreamStart
        first = next(self._events)
        if isinstance(first, yaml.StreamEndEvent):
            raise YamlError(Mark(1, 1), "the file is empty")
        root = self._node(next(self._events), depth=0)
        next(self._events)  # DocumentEnd
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise YamlError(_mark(after), "a second YAML document starts here; one is allowed")
        return root

    def _node(self, event: Any, depth: int) -> Node:
        mark = _mark(event)
        if depth > MAX_DEPTH:
            raise YamlError(mark, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, mark, depth)
        if event.tag is not None:
            raise YamlError(mark, f"tags are not supported: remove {event.tag!r}")
        self._count(1, mark)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node = self._content(event, mark, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _content(self, event: Any, mark: Mark, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            if "\0" in event.value:
                raise YamlError(mark, "text with a NUL character")
            plain = event.style in {None, ""}
            return Node(Kind.SCALAR, mark, text=event.value, plain=plain)
        if isinstance(event, yaml.SequenceStartEvent):
            node = Node(Kind.SEQUENCE, mark)
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                node.items.append(self._node(event, depth + 1))
            return _measured(node, node.items)
        node = Node(Kind.MAPPING, mark)
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            node.entries.append((key, value))
        return _measured(node, [part for entry in node.entries for part in entry])

    def _alias(self, event: Any, mark: Mark, depth: int) -> Node:
        if event.anchor not in self._anchors:
            raise YamlError(mark, f"the alias *{event.anchor} has no anchor before it")
        target = self._anchors[event.anchor]
        if target is None:
            raise YamlError(mark, f"the alias *{event.anchor} stands inside its own anchor")
        if depth + target.height > MAX_DEPTH:
            raise YamlError(mark, f"nested more than {MAX_DEPTH} levels deep, aliases expanded")
        self._count(target.size, mark)
        return target

    def _count(self, nodes: int, mark: Mark) -> None:
        self._total += nodes
        if self._total > MAX_NODES:
            raise YamlError(mark, f"more than {MAX_NODES} nodes, aliases expanded")


def _measured(node: Node, children: list[Node]) -> Node:
    node.size += sum(child.size for child in children)
    node.height = max((child.height + 1 for child in children), default=0)
    return node


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)
