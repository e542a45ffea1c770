"""Follows values through the statements of one file.

An abstract interpreter. Within a scope statements are followed in their order, branches are joined
and loops are run until nothing new comes. What a function reads from the scopes around it may be
anything that is ever bound there, because nobody knows when it is called. Rounds are repeated
until nothing new is learnt.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field

from tiergate.loads.calls import Policy
from tiergate.loads.control_flow import ControlFlow
from tiergate.loads.findings import Finding, Place, Proof
from tiergate.loads.hot_lines import HotLines
from tiergate.loads.lines import Lines
from tiergate.loads.scopes import Scope
from tiergate.loads.values import (
    NOTHING,
    Function,
    Loader,
    Partial,
    Values,
    exported,
    is_load,
    loaders,
    symbol,
)

_ROUNDS = 8


@dataclass
class Result:
    """What came of a file."""

    findings: list[Finding] = field(default_factory=list)
    safe: frozenset[Place] = frozenset()
    """Where ``torch.load`` is named and all that comes of it is provably safe; and where
    something else only has its name."""
    proofs: list[Proof] = field(default_factory=list)
    exports: dict[str, Values] = field(default_factory=dict)


class Interpreter(ControlFlow):
    """Interprets one file.

    Args:
        tree: the file.
        source: its text.
        lookup: what a dotted name of the repository's own modules is, or None.
        exports: what ``from module import *`` gives, of the repository's own modules.
        absolute: the dotted name of a relative import's module, from its level and name.
        policy: whether an omitted ``weights_only`` can be safe.
    """

    def __init__(
        self,
        tree: ast.Module,
        source: bytes,
        lookup: Callable[[str], Values | None],
        exports: Callable[[str], dict[str, Values]],
        absolute: Callable[[int, str], str],
        policy: Policy,
    ) -> None:
        super().__init__(Scope(tree, "module", None), lookup, exports, absolute, policy)
        self._tree = tree
        self._dictionaries_matter = b"weights_only" in source
        self._walrus = b":=" in source
        lines = Lines(source)
        self._yields = sorted(lines.matching(b"yield"))
        self._hot = HotLines(lines)

    def run(self) -> Result:
        """Interpret, and say what the last round found."""
        for _ in range(_ROUNDS):
            self._round()
            if not self._changed:
                break
        else:
            self._give_up()
        self._blame_unfollowed()
        stored = {
            Proof(place, name, "reached")
            for place, name in self._stored.items()
            if not name.startswith("_")  # by convention, nobody else's
        }
        proofs = self._proofs | stored
        safe = (self._named - self._bad) | (self._other - self._named)
        return Result(
            findings=sorted(self._findings.values(), key=lambda finding: finding.place),
            safe=frozenset(safe),
            proofs=sorted(
                (proof for proof in proofs if proof.origin in safe),
                key=lambda proof: (proof.origin, proof.name),
            ),
            exports=self._passed_on(),
        )

    def _passed_on(self) -> dict[str, Values]:
        """Return what other modules may have from this one that matters to them."""
        found = {n: useful for n, v in self._module.all.items() if (useful := exported(v))}
        if any(star in {"torch", "torch.serialization"} for star in self._module.stars):
            found.setdefault("load", symbol("torch.load"))
        for value in self._module.all.get("__getattr__", NOTHING):
            if isinstance(value, Function) and loaders(self._returns.get(value.number, NOTHING)):
                found.setdefault("load", symbol("torch.load"))
        return found

    def _round(self) -> None:
        self._forget()
        self._changed = False
        self._stored = {}
        self._queue = []
        names = self._names_that_load()
        self._hot.find(names)
        module = self._module
        module.env, module.running = {}, True
        self._scope, self._live = module, True
        self._execute(self._tree.body)
        module.running = False
        done: set[int] = set()
        while self._queue:
            node, scope = self._queue.pop(0)
            if id(node) not in done and (id(node) in self._within_text or self._hot.within(node)):
                done.add(id(node))
                self._run_function(node, scope)
        # Functions that use a name which turned out to load are still to be followed.
        self._changed |= not self._names_that_load() <= names

    def _names_that_load(self) -> set[str]:
        names = {name for name, values in self._attributes.items() if values}
        for scope in (self._module, *self._scopes.values()):
            names |= {name for name, values in scope.all.items() if self._leads_to_load(values)}
        return names

    def _leads_to_load(self, values: Values) -> bool:
        return any(
            isinstance(value, (Loader, Partial))
            or is_load(value)
            or (isinstance(value, Function) and loaders(self._returns.get(value.number, NOTHING)))
            for value in values
        )
