"""Judges what a file does with torch.load: calls it, hands it on, replaces it."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from tiergate.loads.calls import SAFE, Arguments, Judgement, Policy, judge
from tiergate.loads.findings import SEVERITY, Finding, Proof
from tiergate.loads.names import Names
from tiergate.loads.scopes import Scope
from tiergate.loads.values import (
    NOTHING,
    Loader,
    Partial,
    Table,
    Values,
    constants,
    is_torch,
    loaders,
)

_PATH_WORDS = ("path", "file", "ckpt", "checkpoint", ".pt", ".bin", "pkl")


class Judging(Names):
    """Says of each use whether it is safe, and on what that relies.

    Args:
        module: the outermost scope.
        policy: whether an omitted ``weights_only`` can be safe.
    """

    def __init__(self, module: Scope, policy: Policy) -> None:
        super().__init__(module)
        self._policy: Policy = policy

    def _judge(
        self,
        function: Loader | Partial,
        node: ast.expr,
        alternatives: Sequence[Arguments],
        relied: set[str],
    ) -> None:
        loader = function.function if isinstance(function, Partial) else function
        if not loader.sure and not _looks_like_loading(node):
            return
        worst = SAFE
        for given in alternatives:
            said = judge(function, given, self._policy)
            if SEVERITY[said.verdict] > SEVERITY[worst.verdict]:
                worst = said
        if worst != SAFE:
            direct = isinstance(node, ast.Call) and isinstance(function, Loader) and loader.sure
            fixable = (
                direct
                and worst.verdict == "unsafe"
                and worst.message.startswith("weights_only is not given")
            )
            self._blame(node, function, worst, fixable=fixable)
        else:
            origin = (loader.line, loader.column)
            self._followed.add(origin)
            module = self._module
            for name in relied:
                values = module.all.get(name, NOTHING)
                if any(isinstance(v, Table) for v in values):
                    kind = "reached"
                elif constants(values, bool):
                    kind = "constant"
                else:
                    continue
                # What runs at once is changed by nobody else in between, but perhaps by this file.
                self._proofs.add(Proof(origin, name, "own" if module.running else kind))

    def _escape(self, node: ast.expr, values: Values) -> None:
        """Say that torch.load is handed on to where it cannot be followed."""
        for value in loaders(values):
            if isinstance(value, Partial):
                call = Arguments(1, {}, True)
                if judge(value, call, self._policy) == SAFE:
                    continue
            elif not value.sure:
                continue
            message = (
                "torch.load is handed on, and how it is called then cannot be seen; call it here "
                "with weights_only=True, or hand on functools.partial(torch.load, "
                "weights_only=True)"
            )
            self._blame(node, value, Judgement("unproven", message))

    def _replaced(self, node: ast.expr, base: Values, name: str, values: Values) -> None:
        """Say that torch.load itself is replaced, unless by something that is safe."""
        if name != "load" or not any(is_torch(value) for value in base):
            return
        call = Arguments(1, {}, True)
        safe = [
            v
            for v in loaders(values)
            # What torch.load was before is put back: its calls are judged where they stand.
            if (isinstance(v, Loader) and v.sure and not v.never_safe)
            or judge(v, call, self._policy) == SAFE
        ]
        if len(safe) == len(values):
            self._looked_at([values])
            return
        place = self._at or (node.lineno, node.col_offset)
        self._bad.add(place)
        self._findings[place] = Finding(
            place,
            "unproven",
            "torch.load is replaced here, so what its calls do cannot be seen; write "
            "weights_only=True at the calls and leave torch.load as it is",
        )


def _looks_like_loading(node: ast.expr) -> bool:
    """Tell whether the call of an unknown function of torch may be one that loads a file."""
    if not isinstance(node, ast.Call):
        return True
    if any(
        k.arg in {"map_location", "weights_only", "pickle_module", "mmap"} for k in node.keywords
    ):
        return True
    return any(word in ast.unparse(a).lower() for a in node.args[:1] for word in _PATH_WORDS)
