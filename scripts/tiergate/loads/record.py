"""What is said of the places of a file at which torch.load is named."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tiergate.loads.calls import Judgement
from tiergate.loads.findings import SEVERITY, Finding, Place, Proof
from tiergate.loads.values import (
    LOAD,
    UNKNOWN,
    Loader,
    Partial,
    Symbol,
    Values,
    has_load,
    is_load,
    loaders,
)


class Record:
    """The places of one file: named, followed, blamed, proven."""

    def __init__(self) -> None:
        self._load_names: set[str] = {"load"}
        self._forget()

    def _forget(self) -> None:
        """Begin a round: what was said of places is said again."""
        self._findings: dict[Place, Finding] = {}
        self._named: set[Place] = set()
        self._bad: set[Place] = set()
        self._followed: set[Place] = set()
        self._other: set[Place] = set()
        self._proofs: set[Proof] = set()
        self._at: Place | None = None

    def _placed(self, values: Values, node: ast.expr) -> Values:
        """Give torch.load, where it is named, its place."""
        if values is UNKNOWN or not has_load(values):
            if self._reads_like_load(node) and not loaders(values):
                self._other.add((node.lineno, node.col_offset))
            return values
        place = (node.lineno, node.col_offset)
        self._named.add(place)
        return frozenset(
            Loader(*place, never_safe=isinstance(v, Symbol) and v.dotted != LOAD)
            if is_load(v)
            else v
            for v in values
        )

    def _reads_like_load(self, node: ast.expr) -> bool:
        """Tell whether who does not follow values may take an expression for torch.load."""
        if type(node) is ast.Attribute:
            return node.attr == "load"
        return type(node) is ast.Name and node.id in self._load_names

    def _looked_at(self, operands: Iterable[Values]) -> None:
        """Take note of torch.load where it is neither called nor kept."""
        for values in operands:
            for value in loaders(values):
                origin = value.function if isinstance(value, Partial) else value
                self._followed.add((origin.line, origin.column))

    def _blame(
        self, node: ast.expr, value: Loader | Partial, said: Judgement, *, fixable: bool = False
    ) -> None:
        origin = value.function if isinstance(value, Partial) else value
        self._bad.add((origin.line, origin.column))
        place = self._at or (node.lineno, node.col_offset)
        known = self._findings.get(place)
        if known is None or SEVERITY[said.verdict] > SEVERITY[known.verdict]:
            self._findings[place] = Finding(place, said.verdict, said.message, fixable)

    def _blame_unfollowed(self) -> None:
        """A name for torch.load that nothing here calls is there for somebody else."""
        for place in self._named - self._bad - self._followed:
            self._bad.add(place)
            self._findings.setdefault(
                place,
                Finding(
                    place,
                    "unproven",
                    "torch.load gets another name here, and no call of it is in sight; call it "
                    "with weights_only=True in this file, or leave the name out",
                ),
            )

    def _give_up(self) -> None:
        """What is still changing proves nothing."""
        self._bad |= self._named
        known = {finding.place for finding in self._findings.values()}
        for place in self._named - known:
            self._findings[place] = Finding(
                place, "unproven", "too involved to follow; write weights_only=True at the call"
            )
