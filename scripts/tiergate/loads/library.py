"""What is known of functions of other modules that matter for torch.load."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from tiergate.loads import folding
from tiergate.loads.arguments import Given
from tiergate.loads.calls import SAFE, Arguments, Policy, judge
from tiergate.loads.containers import only, only_display, union
from tiergate.loads.members import Members, is_namespace
from tiergate.loads.scopes import Scope
from tiergate.loads.values import (
    NOTHING,
    UNKNOWN,
    Display,
    Getter,
    Loader,
    Partial,
    Symbol,
    Table,
    Unknown,
    Value,
    Values,
    constants,
    has_torch,
    is_torch,
    loaders,
    symbol,
)

_IMPORTERS = frozenset(
    {
        "importlib.import_module", "importlib.__import__", "builtins.__import__",
        "pytest.importorskip",
    }
)  # fmt: skip
_LOCATORS = frozenset({"pydoc.locate", "pkgutil.resolve_name"})
_GETTERS = frozenset(
    {
        "builtins.getattr", "inspect.getattr_static", "builtins.object.__getattribute__",
        "operator.attrgetter()",
    }
)  # fmt: skip
_NAMED_GETTERS = ("operator.attrgetter", "operator.itemgetter", "operator.methodcaller")
_TRANSPARENT = frozenset({"builtins.staticmethod", "builtins.classmethod"})
_LOOKING = frozenset(
    {
        "builtins.callable", "builtins.hasattr", "builtins.id", "builtins.isinstance",
        "builtins.print", "builtins.repr", "builtins.str", "builtins.type",
        "functools.update_wrapper", "functools.wraps", "inspect.getdoc", "inspect.getsource",
        "inspect.signature",
    }
)  # fmt: skip
# Functions that call what they are given with the arguments behind it.
_CALLERS = frozenset(
    {
        "asyncio.to_thread",
        "concurrent.futures.ProcessPoolExecutor().submit",
        "concurrent.futures.ThreadPoolExecutor().submit",
        "concurrent.futures.process.ProcessPoolExecutor().submit",
        "concurrent.futures.thread.ThreadPoolExecutor().submit",
    }
)
_PARTIALS = frozenset({"functools.partial", "functools.partialmethod"})
_MAPS = frozenset({"builtins.map", "itertools.starmap"})
_MAPPING_READS = frozenset({"__getitem__", "get", "pop", "setdefault"})
FOLLOWING_FIRST = _CALLERS | _PARTIALS | _MAPS | _TRANSPARENT | _LOOKING
"""Functions of which it is known what they do with their first argument."""


class Library(Members, ABC):
    """Calls what is known by a dotted name.

    Args:
        module: the outermost scope.
        lookup: what a dotted name of the repository's own modules is, or None.
        policy: whether an omitted ``weights_only`` can be safe.
    """

    def __init__(
        self, module: Scope, lookup: Callable[[str], Values | None], policy: Policy
    ) -> None:
        super().__init__(module, lookup, policy)
        self._walrus = True
        """Whether ``:=`` stands in the file, or in a text that it runs."""
        self._texts: dict[tuple[str, str], ast.Module | ast.Expression] = {}

    # Provided by who follows expressions and statements.

    @abstractmethod
    def _evaluate(self, node: ast.expr, *, held: bool = False) -> Values: ...

    @abstractmethod
    def _execute(self, body: list[ast.stmt]) -> None: ...

    @abstractmethod
    def _store_attribute(self, name: str, values: Values) -> None: ...

    def _call_symbol(self, dotted: str, given: Given, relied: set[str]) -> Values:
        first = given.first
        follow = self._followers.get(dotted)
        if follow is None and dotted.endswith(".__getattribute__"):
            follow = Library._getattr
        if follow is not None:
            return follow(self, dotted, given)
        owner, _, method = dotted.rpartition(".")
        if is_namespace(owner):
            return self._call_namespace(owner, method, given)
        if dotted in _MAPS | _CALLERS:
            self._call_through(dotted, given, relied)
            return UNKNOWN
        if dotted in _TRANSPARENT:
            return first or UNKNOWN
        if dotted in _LOOKING:
            self._looked_at([first])
            return UNKNOWN
        folded = folding.function(dotted, [only(v) for v in given.values])
        if folded is not None and all(constants(v, str, bytes, int, bool) for v in given.values):
            return folded
        return symbol(f"{dotted}()")

    def _call_through(self, dotted: str, given: Given, relied: set[str]) -> None:
        """Judge the calls that a function makes of what it is given."""
        alternatives = given.behind_first()
        if dotted in _MAPS:
            alternatives = [Arguments(max(1, len(given.values) - 1), {}, True)]
        for value in loaders(given.first):
            self._judge(value, given.node, alternatives, relied)

    def _call_getter(self, getter: Getter, given: Given, relied: set[str]) -> Values:
        target = given.first
        if getter.item:
            target = self._item(target, getter.name)
        for part in () if getter.item else getter.name.split("."):
            target = self._member(target, part)
        target = self._placed(target, given.node)
        if not getter.call:
            return target
        for value in loaders(target):
            self._judge(value, given.node, [Arguments(1, {}, False)], relied)
        return UNKNOWN

    def _located(self, dotted: str, given: Given) -> Values:
        del dotted
        names = constants(given.first, str)
        return union(symbol(str(n).replace(":", ".")) for n in names) if names else UNKNOWN

    def _getter(self, dotted: str, given: Given) -> Values:
        name = only(given.first)
        kind = dotted.rpartition(".")[2]
        if not isinstance(name, str):
            return UNKNOWN
        return frozenset({Getter(name, kind == "methodcaller", kind == "itemgetter")})

    def _vars(self, dotted: str, given: Given) -> Values:
        if not given.values:
            return symbol(f"{dotted}()")
        return union(
            symbol(f"{v.dotted}.__dict__") if isinstance(v, Symbol) else UNKNOWN
            for v in given.first
        )

    def _all_members(self, dotted: str, given: Given) -> Values:
        """``inspect.getmembers(torch)``: pairs of a name and any of torch's functions."""
        del dotted
        if not has_torch(given.first):
            return UNKNOWN
        pair = Display((UNKNOWN, self._any_of_torch(given.node)))
        return frozenset({Display((frozenset({pair}),), mutable=True)})

    def _next(self, dotted: str, given: Given) -> Values:
        del dotted
        return self._elements(given.first).union(*given.values[1:])

    def _call_namespace(self, owner: str, method: str, given: Given) -> Values:
        """``torch.__dict__.get(…)``, ``vars(torch).update(…)``, ``sys.modules.get(…)``."""
        if method == "copy":
            return symbol(owner)
        if method in {"items", "values"} and has_torch(symbol(owner.removesuffix(".__dict__"))):
            member = self._any_of_torch(given.node)
            pair = frozenset({Display((UNKNOWN, member))})
            return frozenset({Display((pair if method == "items" else member,), mutable=True)})
        if method in _MAPPING_READS:
            found = self._item(symbol(owner), only(given.first))
            return self._placed(found.union(*given.values[1:]), given.node)
        if method == "update" and owner.endswith(".__dict__"):
            base = symbol(owner.removesuffix(".__dict__"))
            for value in given.table():
                new = dict(value.items).get("load") if isinstance(value, Table) else UNKNOWN
                if new is not None:
                    self._replaced(given.node, base, "load", new)
        return UNKNOWN

    def _dict_call(self, dotted: str, given: Given) -> Values:
        del dotted
        for value in given.first:
            if isinstance(value, Symbol) and value.dotted.endswith(".__dict__"):
                return given.first
            if isinstance(value, Display) and _are_members(value):
                return symbol("torch.__dict__")
        return given.table()

    def _setattr(self, dotted: str, given: Given) -> Values:
        del dotted
        name = only(given.values[1]) if len(given.values) == 3 else None
        if isinstance(name, str):
            self._replaced(given.node, given.first, name, given.values[2])
            self._store_attribute(name, given.values[2])
        return UNKNOWN

    def _imported(self, dotted: str, given: Given) -> Values:
        del dotted
        found = constants(given.first or given.keyword("name"), str)
        package = only(given.values[1] if len(given.values) > 1 else given.keyword("package"))
        if found is None:
            return UNKNOWN
        names = [
            f"{package}.{str(name).lstrip('.')}"
            if str(name).startswith(".") and isinstance(package, str)
            else str(name)
            for name in found
        ]
        return union(self._dotted(name) for name in names)

    def _getattr(self, dotted: str, given: Given) -> Values:
        if dotted.endswith(".__getattribute__") and dotted not in _GETTERS:
            base, rest = symbol(dotted.removesuffix(".__getattribute__")), given.values
        else:
            base, rest = given.first, given.values[1:]
        names = constants(rest[0], str) if rest else None
        found = NOTHING
        if names is not None:
            found = union(self._member(base, str(name)) for name in names)
        elif any(is_torch(value) for value in base):
            found = self._any_of_torch(given.node)
        for default in rest[1:]:
            found |= default
        return found or UNKNOWN

    def _partial(self, dotted: str, given: Given) -> Values:
        del dotted
        found: set[Value] = set()
        for value in given.first:
            if not isinstance(value, (Loader, Partial)):
                found.add(Unknown())
                continue
            for more in given.behind_first():
                keywords, positional, complete = dict(more.keywords), more.positional, more.complete
                function = value
                if isinstance(value, Partial):
                    keywords = {**dict(value.keywords), **keywords}
                    positional += value.positional
                    complete = complete and value.complete
                    function = value.function
                assert isinstance(function, Loader)
                fixed = tuple(sorted(keywords.items(), key=lambda item: item[0]))
                partial = Partial(function, positional, fixed, complete)
                if judge(partial, Arguments(1, {}, True), self._policy) == SAFE:
                    self._followed.add((function.line, function.column))
                found.add(partial)
        return frozenset(found) or UNKNOWN

    def _reduced(self, dotted: str, given: Given) -> Values:
        """``functools.reduce(getattr, names, torch)``."""
        del dotted
        if len(given.values) != 3 or symbol("builtins.getattr") != given.first:
            return UNKNOWN
        names = only_display(given.values[1])
        target = given.values[2]
        for name in names or ():
            text = only(name)
            if not isinstance(text, str):
                return UNKNOWN
            target = self._member(target, text)
        return target if names else UNKNOWN

    def _run_text(self, dotted: str, given: Given) -> Values:
        """Interpret what eval or exec is given, where its text is known."""
        text = only(given.first)
        if not isinstance(text, str):
            return UNKNOWN
        try:
            tree = self._parsed(text.strip(" \t"), dotted)
        except (SyntaxError, ValueError):
            return UNKNOWN  # it fails when it is run
        outer, self._at = self._at, self._at or (given.node.lineno, given.node.col_offset)
        try:
            if isinstance(tree, ast.Expression):
                return self._evaluate(tree.body, held=True)
            self._execute(tree.body)
        finally:
            self._at = outer
        return UNKNOWN

    def _parsed(self, text: str, dotted: str) -> ast.Module | ast.Expression:
        """Parse a text once: rounds know its functions by their nodes."""
        if (text, dotted) not in self._texts:
            self._walrus |= ":=" in text
            self._texts[text, dotted] = (
                ast.parse(text, mode="eval") if dotted == "builtins.eval" else ast.parse(text)
            )
        return self._texts[text, dotted]

    def _compiled(self, dotted: str, given: Given) -> Values:
        del dotted
        return given.first or UNKNOWN

    _followers: ClassVar[Mapping[str, Callable[[Library, str, Given], Values]]] = {
        **dict.fromkeys(_IMPORTERS, _imported),
        **dict.fromkeys(_LOCATORS, _located),
        **dict.fromkeys(_GETTERS, _getattr),
        **dict.fromkeys(_PARTIALS, _partial),
        **dict.fromkeys(_NAMED_GETTERS, _getter),
        **dict.fromkeys(("builtins.eval", "builtins.exec"), _run_text),
        "builtins.compile": _compiled,
        "builtins.dict": _dict_call,
        "builtins.next": _next,
        "builtins.setattr": _setattr,
        "builtins.vars": _vars,
        "functools.reduce": _reduced,
        "inspect.getmembers": _all_members,
        "inspect.getmembers_static": _all_members,
    }
    """What is known of functions of other modules, by their names."""


def _are_members(display: Display) -> bool:
    """Tell whether these are pairs of a name and any of torch's functions."""
    return any(
        isinstance(pair, Display) and len(pair.items) == 2 and loaders(pair.items[1])
        for item in display.items
        for pair in item
    )
