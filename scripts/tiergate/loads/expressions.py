"""What an expression may be, and what is to be said of the calls in it."""

from __future__ import annotations

import ast
import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tiergate.loads import folding
from tiergate.loads.calls import SAFE, Arguments, Judgement, Policy, judge
from tiergate.loads.scopes import DictionaryUses, FunctionNode, Scope, dictionary_uses
from tiergate.loads.values import (
    LOAD,
    NOTHING,
    UNKNOWN,
    Constant,
    Display,
    Function,
    Getter,
    Loader,
    Local,
    Partial,
    Symbol,
    Table,
    Unknown,
    Value,
    Values,
    bounded,
    constant,
    constants,
    is_load,
    is_torch,
    loaders,
    symbol,
)

Place = tuple[int, int]
"""Line from 1, column in bytes from 0, as in ``ast``."""

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
_NAMESPACES = frozenset({"builtins.globals()", "builtins.locals()", "builtins.vars()"})
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
# What a function, or a partial of one, is made of: to reach for it is not only to look.
_INSIDE = frozenset(
    {
        "__call__", "__code__", "__defaults__", "__dict__", "__get__", "__globals__",
        "__kwdefaults__", "__reduce__", "__setstate__", "__wrapped__", "args", "func", "keywords",
    }
)  # fmt: skip
_MAPPING_READS = frozenset({"__getitem__", "get", "pop", "setdefault"})
_PATH_WORDS = ("path", "file", "ckpt", "checkpoint", ".pt", ".bin", "pkl")
_SEVERITY = {"safe": 0, "unproven": 1, "unsafe": 2}
_MOST_ALTERNATIVES = 16


@dataclass(frozen=True)
class Finding:
    """A place that is not provably safe."""

    place: Place
    verdict: str
    message: str
    fixable: bool = False
    """Whether it is a call to which ``weights_only=True`` can be added."""


@dataclass(frozen=True)
class Proof:
    """Safe as long as no other file changes a name of this one."""

    origin: Place
    name: str
    kind: str
    """``constant``: nobody may bind it; ``reached``: nobody may name it at all; ``own``: this
    file does not bind it by way of its namespace."""


class Expressions(ABC):
    """Evaluates the expressions of one file.

    Args:
        module: its outermost scope.
        lookup: what a dotted name of the repository's own modules is, or None.
        policy: whether an omitted ``weights_only`` can be safe.
    """

    def __init__(
        self, module: Scope, lookup: Callable[[str], Values | None], policy: Policy
    ) -> None:
        self._lookup = lookup
        self._policy: Policy = policy
        self._dictionaries_matter = True
        self._scope = module
        self._module = module
        self._live = True
        self._changed = False
        self._functions: dict[int, Function] = {}
        self._returns: dict[int, Values] = {}
        self._load_names: set[str] = {"load"}
        self._asked_returns: set[int] = set()
        self._attributes: dict[str, Values] = {}
        self._logs: list[dict[str, set[Value]]] = []
        self._uses: dict[int, DictionaryUses] = {}
        self._methods: dict[type[ast.AST], Callable[[Any, Any], Any] | None] = {}
        self._given_torch: set[str] = set()
        """Names of functions that are called with torch itself."""
        self._texts: dict[tuple[str, str], ast.Module | ast.Expression] = {}
        self._forget()

    def _forget(self) -> None:
        """Begin a round: what was said of places is said again."""
        self._findings: dict[Place, Finding] = {}
        self._named: set[Place] = set()
        self._bad: set[Place] = set()
        self._followed: set[Place] = set()
        self._other: set[Place] = set()
        self._proofs: set[Proof] = set()
        self._relied: set[str] = set()
        self._at: Place | None = None

    # Provided by the interpreter of statements.

    @abstractmethod
    def _define(self, node: FunctionNode) -> Values: ...

    @abstractmethod
    def _execute(self, body: list[ast.stmt]) -> None: ...

    @abstractmethod
    def _store_attribute(self, name: str, values: Values) -> None: ...

    # Names

    def _bind(self, name: str, values: Values) -> None:
        scope = self._scope.elsewhere.get(name, self._scope)
        if scope is not self._scope:
            scope.shared.add(name)
        if any(isinstance(value, Table) for value in values) and not self._tracked(scope, name):
            values = loose(values)
        values = bounded(frozenset(_changeable(value) for value in values))
        if any(is_load(value) for value in values):
            self._load_names.add(name)
        scope.env[name] = values
        for log in self._logs:
            log.setdefault(name, set()).update(values)
        known = scope.all.get(name, NOTHING)
        if not values <= known:
            scope.all[name] = bounded(known | values)
            self._changed |= scope.all[name] != known and name in scope.read

    def _tracked(self, scope: Scope, name: str) -> bool:
        """Tell whether every change of a dictionary of this name would be seen."""
        if not self._dictionaries_matter:
            return False
        uses = self._uses.get(id(scope.node))
        if uses is None:
            uses = self._uses[id(scope.node)] = dictionary_uses(scope.node)
        if name in uses.escaping:
            return False
        return name not in uses.changed or (scope.kind != "class" and name not in uses.nested)

    def _of_name(self, node: ast.Name) -> Values:
        values = self._read(node.id)
        if node.id == "torch" and any(_may_be_any_module(value) for value in values):
            values |= symbol("torch")
        return self._placed(values, node)

    def _read(self, name: str) -> Values:
        scope: Scope | None = self._scope
        while scope is not None:
            scope = scope.elsewhere.get(name, scope)
            if scope.kind != "class" or scope is self._scope:
                found = self._in_scope(scope, name)
                if found is not None:
                    if scope.parent is None:
                        self._relied.add(name)
                    return found
            scope = scope.parent
        return self._unbound(name)

    def _in_scope(self, scope: Scope, name: str) -> Values | None:
        own = scope.locals or ()
        if scope.running and name not in scope.shared:
            if name in scope.env:
                return scope.env[name]
            if name not in own or scope.kind != "function":
                return None
        elif name not in own and name not in scope.all:
            return None
        scope.read.add(name)
        return scope.all.get(name, UNKNOWN)

    def _unbound(self, name: str) -> Values:
        for star in self._module.stars:
            if star in {"torch", "torch.serialization"} and name in {"load", "serialization"}:
                return symbol(f"{star}.{name}")
        if name == "torch":
            return symbol("torch")
        if hasattr(builtins, name):
            if name in {"True", "False", "None", "__debug__"}:
                return UNKNOWN
            return (
                symbol(f"builtins.{name}")
                if not self._module.stars
                else (symbol(f"builtins.{name}") | UNKNOWN)
            )
        return UNKNOWN

    # Expressions

    def _evaluate(self, node: ast.expr, *, held: bool = False) -> Values:
        """Return what an expression may be.

        Args:
            node: the expression.
            held: whether the caller follows the result; torch.load that nobody follows escapes.
        """
        kind = type(node)
        if kind not in self._methods:
            self._methods[kind] = getattr(type(self), f"_of_{kind.__name__.lower()}", None)
        method = self._methods[kind]
        if method is None:
            self._children(node)
            return UNKNOWN
        values: Values = bounded(method(self, node))
        if not held and values is not UNKNOWN:
            self._escape(node, values)
        return values

    def _children(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._evaluate(child)
            elif isinstance(child, (ast.keyword, ast.comprehension)):
                self._children(child)

    def _of_constant(self, node: ast.Constant) -> Values:
        if node.value is None or isinstance(node.value, (str, bytes, bool, int)):
            return constant(node.value)
        return UNKNOWN

    def _of_ifexp(self, node: ast.IfExp) -> Values:
        self._evaluate(node.test)
        return self._evaluate(node.body, held=True) | self._evaluate(node.orelse, held=True)

    def _of_boolop(self, node: ast.BoolOp) -> Values:
        found = NOTHING
        for value in node.values:
            found |= self._evaluate(value, held=True)
        if loaders(found):
            return found
        return found if constants(found, bool) else UNKNOWN | found

    def _of_namedexpr(self, node: ast.NamedExpr) -> Values:
        values = loose(self._evaluate(node.value, held=True))
        self._bind(node.target.id, values)
        return values

    def _of_await(self, node: ast.Await) -> Values:
        self._evaluate(node.value)
        return UNKNOWN

    def _of_lambda(self, node: ast.Lambda) -> Values:
        return self._define(node)

    def _of_joinedstr(self, node: ast.JoinedStr) -> Values:
        text: Values | None = constant("")
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                values = self._evaluate(part.value)
                if part.format_spec is not None:
                    self._evaluate(part.format_spec)
                plain = part.conversion in {-1, 115} and part.format_spec is None
                piece = folding.function("builtins.str", [_only(values)]) if plain else None
                piece = piece if constants(values, str, int) else None
            else:
                piece = self._evaluate(part)
            text = folding.binary(ast.Add(), text, piece) if text and piece else None
        return text or UNKNOWN

    def _of_binop(self, node: ast.BinOp) -> Values:
        left, right = self._evaluate(node.left), self._evaluate(node.right)
        return folding.binary(node.op, left, right) or UNKNOWN

    def _of_unaryop(self, node: ast.UnaryOp) -> Values:
        return folding.unary(node.op, self._evaluate(node.operand)) or UNKNOWN

    def _of_compare(self, node: ast.Compare) -> Values:
        operands = [self._evaluate(e, held=True) for e in (node.left, *node.comparators)]
        self._looked_at(operands)
        if len(operands) == 2:
            return folding.comparison(node.ops[0], *operands) or UNKNOWN
        return UNKNOWN

    def _of_tuple(self, node: ast.Tuple) -> Values:
        return self._display(node.elts)

    def _of_list(self, node: ast.List) -> Values:
        return self._display(node.elts, mutable=True)

    def _display(self, elements: Sequence[ast.expr], *, mutable: bool = False) -> Values:
        if any(isinstance(element, ast.Starred) for element in elements):
            for element in elements:
                self._evaluate(element.value if isinstance(element, ast.Starred) else element)
            return UNKNOWN
        return frozenset({Display(tuple(self._evaluate(e) for e in elements), mutable)})

    def _of_dict(self, node: ast.Dict) -> Values:
        table = Table(())
        for key, value in zip(node.keys, node.values, strict=True):
            values = self._evaluate(value)
            if key is None:
                spread = _only_table(values)
                table = _merged(table, spread or Table((), False))
                continue
            name = _only(self._evaluate(key))
            if isinstance(name, str):
                table = table.updated(name, values)
            else:
                # Whatever the key is, it may be the one that matters.
                table = Table(tuple((k, v | values) for k, v in table.items), False)
        return frozenset({table})

    def _of_listcomp(self, node: ast.ListComp) -> Values:
        return self._comprehension(node.generators, [node.elt])

    def _of_setcomp(self, node: ast.SetComp) -> Values:
        return self._comprehension(node.generators, [node.elt])

    def _of_generatorexp(self, node: ast.GeneratorExp) -> Values:
        return self._comprehension(node.generators, [node.elt])

    def _of_dictcomp(self, node: ast.DictComp) -> Values:
        return self._comprehension(node.generators, [node.key, node.value])

    def _comprehension(
        self, generators: Sequence[ast.comprehension], results: Sequence[ast.expr]
    ) -> Values:
        """Evaluate with the targets bound for as long as it takes."""
        env = self._scope.env
        own = {n.id for g in generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        kept = {name: env[name] for name in own if name in env}
        shared = self._scope.shared & own
        self._scope.shared -= shared
        for generator in generators:
            elements = self._elements(self._evaluate(generator.iter))
            self._comprehension_target(generator.target, elements)
            for condition in generator.ifs:
                self._evaluate(condition)
        for result in results:
            self._evaluate(result)
        self._scope.shared |= shared
        for name in own:
            env.pop(name, None)
        env.update(kept)
        return UNKNOWN

    def _comprehension_target(self, target: ast.expr, values: Values) -> None:
        if isinstance(target, ast.Name):
            self._scope.env[target.id] = values
        elif isinstance(target, (ast.Tuple, ast.List)):
            for element, part in zip(target.elts, unpacked(values, target.elts), strict=True):
                self._comprehension_target(element, part)

    def _elements(self, values: Values) -> Values:
        """Return what iterating gives."""
        found = NOTHING
        for value in values:
            if isinstance(value, Display):
                for item in value.items:
                    found |= item
            else:
                found |= UNKNOWN
        return bounded(found or UNKNOWN)

    def _of_starred(self, node: ast.Starred) -> Values:
        self._evaluate(node.value)
        return UNKNOWN

    def _of_attribute(self, node: ast.Attribute) -> Values:
        base = self._evaluate(node.value, held=True)
        return self._placed(self._member(base, node.attr), node)

    def _member(self, base: Values, name: str) -> Values:
        found = NOTHING
        for value in base:
            if isinstance(value, Symbol):
                found |= self._dotted(f"{value.dotted}.{name}")
                if value.dotted.endswith("()"):
                    found |= self._attributes.get(name, NOTHING)
            elif isinstance(value, (Loader, Partial)):
                found |= self._inside(value, name)
            elif isinstance(value, Constant):
                found |= UNKNOWN
            else:
                found |= self._attributes.get(name, NOTHING) | UNKNOWN
                if name == "torch" and isinstance(value, Unknown):
                    found |= symbol("torch")
        return found or UNKNOWN

    def _inside(self, value: Loader | Partial, name: str) -> Values:
        """Return an attribute of torch.load, or of a partial of it."""
        if name == "__call__":
            return frozenset({value})
        if name == "func" and isinstance(value, Partial):
            return frozenset({value.function})
        if name not in _INSIDE:
            self._looked_at([frozenset({value})])
        elif isinstance(value, Partial):
            place = (value.function.line, value.function.column)
            self._bad.add(place)
            self._findings.setdefault(
                place,
                Finding(
                    place,
                    "unproven",
                    f"what this partial has fixed may be changed through its {name!r}; write "
                    "weights_only=True at the call",
                ),
            )
        return UNKNOWN

    def _dotted(self, dotted: str) -> Values:
        if dotted.startswith("torch.") or dotted.endswith(".torch"):
            return symbol(dotted)
        own = self._lookup(dotted)
        return own if own is not None else symbol(dotted)

    def _of_subscript(self, node: ast.Subscript) -> Values:
        base = self._evaluate(node.value)
        if isinstance(node.slice, ast.Slice):
            key: object = self._slice(node.slice)
        else:
            key = _only(self._evaluate(node.slice))
        if key is None and symbol("torch.__dict__") <= base:
            return frozenset({Loader(node.lineno, node.col_offset, sure=False)})
        return self._placed(self._item(base, key), node)

    def _slice(self, node: ast.Slice) -> object:
        parts = []
        for part in (node.lower, node.upper, node.step):
            values = self._evaluate(part) if part is not None else constant(None)
            found = constants(values, int, type(None))
            if found is None or len(found) != 1:
                return None
            parts.append(found[0])
        return slice(*parts)

    def _item(self, base: Values, key: object) -> Values:
        found = NOTHING
        for value in base:
            if isinstance(value, Display) and isinstance(key, int):
                within = -len(value.items) <= key < len(value.items)
                found |= value.items[key] if within else UNKNOWN
            elif isinstance(value, Display):
                found |= self._elements(frozenset({value})) | UNKNOWN
            elif isinstance(value, Table) and isinstance(key, str):
                found |= dict(value.items).get(key, UNKNOWN)
            elif isinstance(value, Symbol) and isinstance(key, str):
                if value.dotted in _NAMESPACES:
                    found |= self._read(key)
                elif value.dotted == "sys.modules":
                    found |= symbol(key)
                elif value.dotted.endswith(".__dict__"):
                    found |= self._dotted(f"{value.dotted.removesuffix('.__dict__')}.{key}")
                else:
                    found |= UNKNOWN
            elif isinstance(value, Constant) and key is not None:
                found |= folding.subscript(frozenset({value}), key) or UNKNOWN
            else:
                found |= UNKNOWN
        return found or UNKNOWN

    # torch.load: where it is named, and where it goes

    def _placed(self, values: Values, node: ast.expr) -> Values:
        """Give torch.load, where it is named, its place."""
        place = (node.lineno, node.col_offset)
        if not any(is_load(value) for value in values):
            if not loaders(values) and self._reads_like_load(node):
                self._other.add(place)
            return values
        self._named.add(place)
        return frozenset(
            Loader(*place, never_safe=isinstance(v, Symbol) and v.dotted != LOAD)
            if is_load(v)
            else v
            for v in values
        )

    def _reads_like_load(self, node: ast.expr) -> bool:
        """Tell whether who does not follow values may take an expression for torch.load."""
        if isinstance(node, ast.Attribute):
            return node.attr == "load"
        return isinstance(node, ast.Name) and node.id in self._load_names

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
        if known is None or _SEVERITY[said.verdict] > _SEVERITY[known.verdict]:
            self._findings[place] = Finding(place, said.verdict, said.message, fixable)

    # Calls

    def _of_call(self, node: ast.Call) -> Values:
        functions = self._evaluate(node.func, held=True)
        dotted = {value.dotted for value in functions if isinstance(value, Symbol)}
        first_held = bool(dotted & (_CALLERS | _PARTIALS | _MAPS | _TRANSPARENT | _LOOKING)) or any(
            isinstance(value, Getter) for value in functions
        )
        outer, self._relied = self._relied, set()
        arguments = [
            self._evaluate(a, held=first_held and index == 0) for index, a in enumerate(node.args)
        ]
        keywords = [(k.arg, self._evaluate(k.value)) for k in node.keywords]
        for name, values in keywords:
            if name is not None and any(is_torch(value) for value in values):
                self._store_attribute(name, values)
        relied, self._relied = self._relied, outer | self._relied
        given = _Given(node, arguments, keywords)
        self._pass_modules(node.func, (*arguments, *(values for _, values in keywords)))
        found = NOTHING
        for value in functions:
            if isinstance(value, (Loader, Partial)):
                self._judge(value, node, given.arguments(), relied)
                found |= UNKNOWN
            elif isinstance(value, Symbol):
                found |= self._call_symbol(value.dotted, given, relied)
            elif isinstance(value, Function):
                self._asked_returns.add(value.number)
                found |= self._returns.get(value.number, UNKNOWN)
            elif isinstance(value, Getter) and arguments:
                found |= self._call_getter(value, given, relied)
            elif isinstance(value, Local):
                found |= frozenset({Local()})
            else:
                found |= UNKNOWN
        if isinstance(node.func, ast.Attribute) and functions == UNKNOWN:
            found = self._call_method(node.func, given) or found
        return self._placed(found or UNKNOWN, node)

    def _pass_modules(self, function: ast.expr, given: Sequence[Values]) -> None:
        """Remember that functions of this name are given torch itself."""
        if any(is_torch(value) for values in given for value in values):
            name = getattr(function, "attr", getattr(function, "id", ""))
            self._changed |= name not in self._given_torch
            self._given_torch.add(name)

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
            if _SEVERITY[said.verdict] > _SEVERITY[worst.verdict]:
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

    def _call_symbol(self, dotted: str, given: _Given, relied: set[str]) -> Values:
        first = given.first
        follow = self._followers.get(dotted)
        if follow is None and dotted.endswith(".__getattribute__"):
            follow = Expressions._getattr
        if follow is not None:
            return follow(self, dotted, given)
        owner, _, method = dotted.rpartition(".")
        if _is_namespace(owner):
            return self._call_namespace(owner, method, given)
        if dotted in _MAPS | _CALLERS:
            self._call_through(dotted, given, relied)
            return UNKNOWN
        if dotted in _TRANSPARENT:
            return first or UNKNOWN
        if dotted in _LOOKING:
            self._looked_at([first])
            return UNKNOWN
        folded = folding.function(dotted, [_only(v) for v in given.values])
        if folded is not None and all(constants(v, str, bytes, int, bool) for v in given.values):
            return folded
        return symbol(f"{dotted}()")

    def _call_through(self, dotted: str, given: _Given, relied: set[str]) -> None:
        """Judge the calls that a function makes of what it is given."""
        alternatives = given.behind_first()
        if dotted in _MAPS:
            alternatives = [Arguments(max(1, len(given.values) - 1), {}, True)]
        for value in loaders(given.first):
            self._judge(value, given.node, alternatives, relied)

    def _located(self, dotted: str, given: _Given) -> Values:
        del dotted
        names = constants(given.first, str)
        return _union(symbol(str(n).replace(":", ".")) for n in names) if names else UNKNOWN

    def _getter(self, dotted: str, given: _Given) -> Values:
        name = _only(given.first)
        called = dotted == "operator.methodcaller"
        return frozenset({Getter(name, called)}) if isinstance(name, str) else UNKNOWN

    def _vars(self, dotted: str, given: _Given) -> Values:
        if not given.values:
            return symbol(f"{dotted}()")
        return _union(
            symbol(f"{v.dotted}.__dict__") if isinstance(v, Symbol) else UNKNOWN
            for v in given.first
        )

    def _call_namespace(self, owner: str, method: str, given: _Given) -> Values:
        """``torch.__dict__.get(…)``, ``vars(torch).update(…)``, ``sys.modules.get(…)``."""
        if method in _MAPPING_READS:
            found = self._item(symbol(owner), _only(given.first))
            return self._placed(found.union(*given.values[1:]), given.node)
        if method == "update" and owner.endswith(".__dict__"):
            base = symbol(owner.removesuffix(".__dict__"))
            for value in given.table():
                new = dict(value.items).get("load") if isinstance(value, Table) else UNKNOWN
                if new is not None:
                    self._replaced(given.node, base, "load", new)
        return UNKNOWN

    def _dict_call(self, dotted: str, given: _Given) -> Values:
        del dotted
        return given.table()

    def _setattr(self, dotted: str, given: _Given) -> Values:
        del dotted
        name = _only(given.values[1]) if len(given.values) == 3 else None
        if isinstance(name, str):
            self._replaced(given.node, given.first, name, given.values[2])
        return UNKNOWN

    def _call_method(self, function: ast.Attribute, given: _Given) -> Values | None:
        base = self._evaluate(function.value, held=True)
        if function.attr in {"setdefault", "update", "pop"} and isinstance(
            function.value, ast.Name
        ):
            self._change_table(function.value.id, function.attr, base, given)
            return None
        arguments: list[object] = []
        for values in given.values:
            (value,) = values if len(values) == 1 else (None,)
            if isinstance(value, Display):
                items = [_only(item) for item in value.items]
                arguments.append(items)
            elif isinstance(value, Constant):
                arguments.append(value.value)
            else:
                return None
        if function.attr == "get" and arguments and isinstance(arguments[0], str):
            table = _only_table(base)
            if table is not None and arguments[0] in dict(table.items):
                return dict(table.items)[arguments[0]]
            return None
        if function.attr == "split" and constants(base, str):
            text, separator = str(_only(base)), arguments[0] if arguments else None
            if separator is None or (isinstance(separator, str) and separator):
                parts = text.split(separator)
                return frozenset({Display(tuple(constant(part) for part in parts))})
        return folding.method(function.attr, base, arguments)

    def _change_table(self, name: str, method: str, base: Values, given: _Given) -> None:
        tables = [value for value in base if isinstance(value, Table)]
        if not tables:
            return
        changed: set[Value] = {value for value in base if not isinstance(value, Table)}
        for table in tables:
            key = _only(given.first)
            new: Value = Unknown()
            if method == "update":
                more = given.table(given.values)
                new = next((_merged(table, m) for m in more if isinstance(m, Table)), Unknown())
            elif isinstance(key, str) and method == "pop":
                new = table.without(key)
            elif isinstance(key, str) and len(given.values) == 2:
                held = dict(table.items).get(key)
                value = given.values[1]
                if held is None:
                    held = value if table.complete else value | UNKNOWN
                new = table.updated(key, held)
            changed.add(new)
        self._bind(name, frozenset(changed))

    def _imported(self, dotted: str, given: _Given) -> Values:
        del dotted
        found = constants(given.first, str)
        package = _only(given.values[1]) if len(given.values) > 1 else None
        if found is None:
            return UNKNOWN
        names = [
            f"{package}.{str(name).lstrip('.')}"
            if str(name).startswith(".") and isinstance(package, str)
            else str(name)
            for name in found
        ]
        return _union(self._dotted(name) for name in names)

    def _getattr(self, dotted: str, given: _Given) -> Values:
        if dotted.endswith(".__getattribute__") and dotted not in _GETTERS:
            base, rest = symbol(dotted.removesuffix(".__getattribute__")), given.values
        else:
            base, rest = given.first, given.values[1:]
        names = constants(rest[0], str) if rest else None
        found = NOTHING
        if names is not None:
            found = _union(self._member(base, str(name)) for name in names)
        elif any(is_torch(value) for value in base):
            found = frozenset({Loader(given.node.lineno, given.node.col_offset, sure=False)})
        for default in rest[1:]:
            found |= default
        return found or UNKNOWN

    def _call_getter(self, getter: Getter, given: _Given, relied: set[str]) -> Values:
        target = given.first
        for part in getter.name.split("."):
            target = self._member(target, part)
        target = self._placed(target, given.node)
        if not getter.call:
            return target
        for value in loaders(target):
            self._judge(value, given.node, [Arguments(1, {}, False)], relied)
        return UNKNOWN

    def _partial(self, dotted: str, given: _Given) -> Values:
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

    def _reduced(self, dotted: str, given: _Given) -> Values:
        """``functools.reduce(getattr, names, torch)``."""
        del dotted
        if len(given.values) != 3 or symbol("builtins.getattr") != given.first:
            return UNKNOWN
        names = _only_display(given.values[1])
        target = given.values[2]
        for name in names or ():
            text = _only(name)
            if not isinstance(text, str):
                return UNKNOWN
            target = self._member(target, text)
        return target if names else UNKNOWN

    def _run_text(self, dotted: str, given: _Given) -> Values:
        """Interpret what eval or exec is given, where its text is known."""
        text = _only(given.first)
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
            self._texts[text, dotted] = (
                ast.parse(text, mode="eval") if dotted == "builtins.eval" else ast.parse(text)
            )
        return self._texts[text, dotted]

    def _compiled(self, dotted: str, given: _Given) -> Values:
        del dotted
        return given.first or UNKNOWN

    def _replaced(self, node: ast.expr, base: Values, name: str, values: Values) -> None:
        """Say that torch.load itself is replaced, unless by something that is safe."""
        if name != "load" or not any(is_torch(value) for value in base):
            return
        call = Arguments(1, {}, True)
        safe = [v for v in loaders(values) if judge(v, call, self._policy) == SAFE]
        if len(safe) == len(values):
            return
        place = self._at or (node.lineno, node.col_offset)
        self._bad.add(place)
        self._findings[place] = Finding(
            place,
            "unproven",
            "torch.load is replaced here, so what its calls do cannot be seen; write "
            "weights_only=True at the calls and leave torch.load as it is",
        )

    _followers: ClassVar[Mapping[str, Callable[[Expressions, str, _Given], Values]]] = {
        **dict.fromkeys(_IMPORTERS, _imported),
        **dict.fromkeys(_LOCATORS, _located),
        **dict.fromkeys(_GETTERS, _getattr),
        **dict.fromkeys(_PARTIALS, _partial),
        **dict.fromkeys(("operator.attrgetter", "operator.methodcaller"), _getter),
        **dict.fromkeys(("builtins.eval", "builtins.exec"), _run_text),
        "builtins.compile": _compiled,
        "builtins.dict": _dict_call,
        "builtins.setattr": _setattr,
        "builtins.vars": _vars,
        "functools.reduce": _reduced,
    }
    """What is known of functions of other modules, by their names."""


class _Given:
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
        return self.values[0] if self.values else NOTHING

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
        return self.arguments(skipped=1)

    def table(self, positional: Sequence[Values] = ()) -> Values:
        """Return what ``dict(…)`` makes of the arguments."""
        table = Table(())
        for values in positional or self.values:
            more = _only_table(values)
            table = _merged(table, more) if more else Table((), False)
        for name, values in self._keywords:
            if name is not None:
                table = table.updated(name, values)
                continue
            more = _only_table(values)
            table = _merged(table, more) if more else Table((), False)
        return frozenset({table})


def unpacked(values: Values, targets: Sequence[ast.expr]) -> list[Values]:
    """Return what each target of an unpacking gets."""
    parts = [NOTHING for _ in targets]
    starred = any(isinstance(target, ast.Starred) for target in targets)
    for value in values:
        fits = isinstance(value, Display) and len(value.items) == len(targets) and not starred
        for index in range(len(targets)):
            if fits:
                assert isinstance(value, Display)
                parts[index] |= value.items[index]
            elif isinstance(value, Display):
                parts[index] |= _union(value.items) | UNKNOWN
            else:
                parts[index] |= UNKNOWN
    return parts


def _merged(table: Table, more: Table) -> Table:
    """Return ``{**table, **more}``."""
    if not more.complete:
        table = Table(tuple((k, v | UNKNOWN) for k, v in table.items), False)
    for key, values in more.items:
        table = table.updated(key, values)
    return Table(table.items, table.complete and more.complete)


def _union(parts: Iterable[Values]) -> Values:
    found: Values = NOTHING
    for part in parts:
        found |= part
    return found


def loose(values: Values) -> Values:
    """Return the same without dictionaries: under another name each could be changed unseen."""
    found = values
    for value in values:
        if isinstance(value, Table):
            modules = frozenset(v for _, item in value.items for v in item if is_torch(v))
            found = (found - {value}) | UNKNOWN
            found |= frozenset({Display((modules,))}) if modules else NOTHING
    return found


def _changeable(value: Value) -> Value:
    """Return a list that has a name with flags that may become anything."""
    if isinstance(value, Display) and value.mutable:
        return Display(
            tuple(items if constants(items, str) else items | UNKNOWN for items in value.items)
        )
    return value


def _may_be_any_module(value: Value) -> bool:
    """Tell whether what is called torch may be it: unknown, or what an unknown function gave."""
    if isinstance(value, Symbol):
        return value.dotted.endswith("()") and value.dotted != "types.SimpleNamespace()"
    return isinstance(value, Unknown)


def _is_namespace(dotted: str) -> bool:
    return dotted in _NAMESPACES or dotted == "sys.modules" or dotted.endswith(".__dict__")


def _only(values: Values) -> object:
    """Return the constant that it must be; None (as for None itself) where there is none."""
    if len(values) == 1:
        (value,) = values
        if isinstance(value, Constant):
            return value.value
    return None


def _only_table(values: Values) -> Table | None:
    if len(values) == 1:
        (value,) = values
        if isinstance(value, Table):
            return value
    return None


def _only_display(values: Values) -> tuple[Values, ...] | None:
    if len(values) == 1:
        (value,) = values
        if isinstance(value, Display):
            return value.items
    return None


def _looks_like_loading(node: ast.expr) -> bool:
    """Tell whether the call of an unknown function of torch may be one that loads a file."""
    if not isinstance(node, ast.Call):
        return True
    if any(
        k.arg in {"map_location", "weights_only", "pickle_module", "mmap"} for k in node.keywords
    ):
        return True
    return any(word in ast.unparse(a).lower() for a in node.args[:1] for word in _PATH_WORDS)
