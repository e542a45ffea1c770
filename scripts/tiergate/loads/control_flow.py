"""Branches are joined, and loops are run until nothing new comes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence

from tiergate.loads.statements import Statements
from tiergate.loads.values import (
    HOLDER,
    NOTHING,
    UNKNOWN,
    Symbol,
    Values,
    bounded,
    either,
    holds_torch,
)

_LOOPS = 4
_NEVER_SWALLOWING = ("builtins.open()", "torch.")
Env = dict[str, Values]
State = tuple[Env, bool]
"""What the names are, and whether the code goes on at all."""


class ControlFlow(Statements):
    """Executes the statements that run others."""

    def _save(self) -> State:
        return dict(self._scope.env), self._live

    def _restore(self, state: State) -> None:
        self._scope.env, self._live = dict(state[0]), state[1]

    def _merge(self, states: Iterable[State]) -> None:
        """Go on from wherever the code can come from."""
        every = list(states)
        alive = [env for env, live in every if live]
        first, *others = alive or [env for env, _ in every]
        joined: Env = dict(first)
        for env in others:
            for name, values in env.items():
                known = joined.get(name, NOTHING)
                if known is not values:
                    joined[name] = bounded(either(known, values))
        self._scope.env = joined
        self._live = bool(alive)

    def _branch(self, state: State, body: Sequence[ast.stmt]) -> State:
        self._restore(state)
        self._execute(body)
        return self._save()

    def _do_if(self, node: ast.If) -> None:
        self._test(node.test)
        before = self._save()
        self._merge([self._branch(before, node.body), self._branch(before, node.orelse)])

    def _logged(self, run: Callable[[], None]) -> Env:
        """Run, and return all that was bound meanwhile."""
        log: dict[str, set[object]] = {}
        self._logs.append(log)  # type: ignore[arg-type]
        run()
        self._logs.pop()
        return {name: frozenset(values) for name, values in log.items()}  # type: ignore[arg-type]

    def _loop(self, begin: Callable[[], None], node: ast.For | ast.AsyncFor | ast.While) -> None:
        env, live = self._save()
        for _ in range(_LOOPS):

            def once() -> None:
                begin()
                self._execute(node.body)

            bound = self._logged(once)
            joined = _joined(env, bound)
            self._scope.env, self._live = dict(joined), live
            if all(env.get(name, UNKNOWN) == values for name, values in joined.items()):
                break  # to read a name before it is bound gives anything as well
            env = joined
        else:
            self._scope.env = {n: v | UNKNOWN if n in bound else v for n, v in env.items()}
        self._execute(node.orelse)
        # A `break` in front of `else` comes here as well.
        self._merge([self._save(), (env, live)])

    def _do_for(self, node: ast.For | ast.AsyncFor) -> None:
        elements = self._elements(self._evaluate(node.iter))
        self._loop(lambda: self._assign(node.target, elements, node), node)

    _do_asyncfor = _do_for

    def _do_while(self, node: ast.While) -> None:
        def begin() -> None:
            self._test(node.test)

        self._loop(begin, node)

    def _do_with(self, node: ast.With | ast.AsyncWith) -> None:
        swallowing = False
        for item in node.items:
            values = self._evaluate(item.context_expr)
            swallowing |= not all(
                isinstance(value, Symbol) and value.dotted.startswith(_NEVER_SWALLOWING)
                for value in values
            )
            if item.optional_vars is not None:
                self._assign(item.optional_vars, values, node)
        # Most context managers may swallow what is raised in them.
        before = self._save()
        bound = self._logged(lambda: self._execute(node.body))
        if swallowing or not self._live:
            self._merge([self._save(), (_joined(before[0], bound), before[1])])

    _do_asyncwith = _do_with

    def _do_try(self, node: ast.Try) -> None:
        before, live = self._save()
        bound = self._logged(lambda: self._execute(node.body))
        raised = (_joined(before, bound), live)
        self._execute(node.orelse)
        ends = [self._save()]
        for handler in node.handlers:
            self._restore(raised)
            if handler.type is not None:
                self._evaluate(handler.type)
            if handler.name:
                self._bind(handler.name, UNKNOWN)
            self._execute(handler.body)
            ends.append(self._save())
        self._merge(ends)
        if node.finalbody:
            live_after = self._live
            self._merge([*ends, raised])
            self._execute(node.finalbody)
            self._live = self._live and live_after

    _do_trystar = _do_try

    def _do_match(self, node: ast.Match) -> None:
        subject = self._evaluate(node.subject)
        captured = HOLDER if holds_torch(subject) else UNKNOWN
        before = self._save()
        ends = [before]
        for case in node.cases:
            self._restore(before)
            for part in ast.walk(case.pattern):
                if isinstance(part, (ast.MatchAs, ast.MatchStar)) and part.name:
                    self._bind(part.name, captured)
                elif isinstance(part, ast.MatchMapping) and part.rest:
                    self._bind(part.rest, captured)
            if case.guard is not None:
                self._test(case.guard)
            self._execute(case.body)
            ends.append(self._save())
        self._merge(ends)


def _joined(env: Env, bound: Env) -> Env:
    joined = dict(env)
    for name, values in bound.items():
        joined[name] = bounded(either(joined.get(name, NOTHING), values))
    return joined
