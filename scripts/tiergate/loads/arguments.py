"""The evaluated arguments of a call, as each of the functions behind it may take them."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from tiergate.loads.calls import Arguments
from tiergate.loads.containers import merged, only_table
from tiergate.loads.values import NOTHING, Table, Values

_MOST_ALTERNATIVES = 16


class Given:
    """The evaluated arguments of a call."""

    def __init__(
        self, node: ast.Call, values: list[Values], keywords: list[tuple[str | None, Values]]
    ) -> None:
        self.node = node
        self.values = values
        self._keywords = keywords
        self._starred = any(isinstance(argument, ast.Starred) for argument in node.args)

    @property
    def first(self) -> Values:
        """Return the first positional argument."""
        return self.values[0] if self.values else NOTHING

    def keyword(self, name: str) -> Values:
        """Return the argument that is given by this name."""
        return dict(self._keywords).get(name, NOTHING)

    def arguments(self, skipped: int = 0) -> list[Arguments]:
        """Return the alternatives that ``**mappings`` make."""
        alternatives: list[tuple[dict[str, Values], bool]] = [({}, True)]
        for name, values in self._keywords:
            if name is not None:
                for known, _ in alternatives:
                    known[name] = values
                continue
            tables = [v if isinstance(v, Table) else Table((), False) for v in values]
            alternatives = [
                ({**dict(table.items), **known}, complete and table.complete)
                for known, complete in alternatives
                for table in tables
            ][:_MOST_ALTERNATIVES]
        explicit = {name: v for name, v in self._keywords if name is not None}
        positional = len(self.values) - skipped - (1 if self._starred else 0)
        return [
            Arguments(max(positional, 0), {**known, **explicit}, complete)
            for known, complete in alternatives
        ]

    def behind_first(self) -> list[Arguments]:
        """Return the alternatives for a function that is the first argument."""
        return self.arguments(skipped=1)

    def table(self, positional: Sequence[Values] = ()) -> Values:
        """Return what ``dict(…)`` makes of the arguments."""
        table = Table(())
        for values in positional or self.values:
            more = only_table(values)
            table = merged(table, more) if more else Table((), False)
        for name, values in self._keywords:
            if name is not None:
                table = table.updated(name, values)
                continue
            more = only_table(values)
            table = merged(table, more) if more else Table((), False)
        return frozenset({table})
