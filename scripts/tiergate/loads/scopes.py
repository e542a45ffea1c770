"""Scopes, the names that belong to them, and how a dictionary's name is used."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from tiergate.loads.values import Values

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
_READING_METHODS = frozenset({"get", "keys", "values", "items", "copy"})
_CHANGING_METHODS = frozenset({"setdefault", "update", "pop"})


@dataclass(eq=False)
class Scope:
    """A module, a function or a class body while it is interpreted."""

    node: ast.AST
    kind: str
    parent: Scope | None
    locals: frozenset[str] | None = None
    """Its own names; None until it is run."""
    env: dict[str, Values] = field(default_factory=dict)
    """What the names are at this point of the running code."""
    all: dict[str, Values] = field(default_factory=dict)
    """All that the names are ever bound to."""
    read: set[str] = field(default_factory=set)
    """Names of which ``all`` was asked: what is bound to them later is news."""
    plain: bool | None = None
    """Whether a call of the function gives what it returns."""
    shared: set[str] = field(default_factory=set)
    """Names that inner scopes bind as well: their order is not known."""
    elsewhere: dict[str, Scope] = field(default_factory=dict)
    """Names that this scope declares global or nonlocal, and whose they are."""
    defaults: dict[str, Values] = field(default_factory=dict)
    running: bool = False
    stars: list[str] = field(default_factory=list)

    @property
    def module(self) -> Scope:
        """The outermost scope."""
        return self if self.parent is None else self.parent.module


def statements(node: ast.AST) -> list[ast.stmt]:
    """Return the body of a scope's node."""
    body = getattr(node, "body", [])
    return body if isinstance(body, list) else []


def names_of(
    node: ast.AST, *, walrus: bool = True
) -> tuple[frozenset[str], list[ast.Global | ast.Nonlocal]]:
    """Return the names that a scope's own code binds, and its global and nonlocal statements.

    What inner scopes bind and declare is left out.

    Args:
        node: the scope's.
        walrus: whether expressions may bind names: False where ``:=`` stands nowhere.
    """
    names: set[str] = set()
    declarations: list[ast.Global | ast.Nonlocal] = []
    if isinstance(node, FunctionNode):
        arguments = node.args
        names |= {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
        names |= {a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None}
    for inner in _own(node, _children if walrus else _binding_children):
        if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
            names.add(inner.id)
        elif isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(inner.name)
        elif isinstance(inner, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.split(".")[0] for alias in inner.names}
        elif isinstance(inner, (ast.Global, ast.Nonlocal)):
            declarations.append(inner)
        elif isinstance(inner, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and inner.name:
            names.add(inner.name)
        elif isinstance(inner, ast.MatchMapping) and inner.rest:
            names.add(inner.rest)
    return frozenset(names.difference(*(d.names for d in declarations))), declarations


def returns_plainly(node: ast.AST, *, generators: bool = True) -> bool:
    """Tell whether a call gives what a function returns: no decorator, coroutine or generator.

    Args:
        node: the function.
        generators: whether there may be any: False where ``yield`` stands nowhere.
    """
    if isinstance(node, ast.Lambda):
        return True
    if not isinstance(node, ast.FunctionDef) or node.decorator_list:
        return False
    return not generators or not any(
        isinstance(inner, (ast.Yield, ast.YieldFrom)) for inner in _walk(node)
    )


# What has no parts and says nothing of a name: most of a tree's nodes.
_BARE = frozenset(
    kind
    for family in (ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
    for kind in family.__subclasses__()
)
_CHILDLESS = _BARE | {ast.Name, ast.Constant}


def _children(node: ast.AST) -> list[ast.AST]:
    """Return what ``ast.iter_child_nodes`` gives but operators, in a fraction of its time."""
    found: list[ast.AST] = []
    if type(node) in _CHILDLESS:
        return found
    for value in node.__dict__.values():
        kind = type(value)
        if kind is list:
            found += [item for item in value if isinstance(item, ast.AST)]
        elif kind not in _BARE and isinstance(value, ast.AST):
            found.append(value)
    return found


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what ``ast.walk`` does but operators, in another order."""
    waiting = [node]
    while waiting:
        inner = waiting.pop()
        yield inner
        waiting += _children(inner)


def _binding_children(node: ast.AST) -> list[ast.AST]:
    """Return what binds names where no expression does: statements, patterns and targets."""
    return [
        child
        for child in _children(node)
        if not isinstance(child, ast.expr)
        or type(getattr(child, "ctx", None)) in {ast.Store, ast.Del}
    ]


def _own(node: ast.AST, children: Callable[[ast.AST], list[ast.AST]]) -> Iterator[ast.AST]:
    """Yield the nodes of a scope's own code; of inner scopes only the node itself."""
    waiting: list[ast.AST] = (
        [node.body] if isinstance(node, ast.Lambda) else [*reversed(statements(node))]
    )
    while waiting:
        inner = waiting.pop()
        yield inner
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
            outside = inner.args
            waiting += [*inner.decorator_list, *outside.defaults]
            waiting += [d for d in outside.kw_defaults if d is not None]
        elif isinstance(inner, ast.ClassDef):
            waiting += [*inner.decorator_list, *inner.bases, *(k.value for k in inner.keywords)]
        elif isinstance(inner, ast.Lambda):
            waiting += [*inner.args.defaults, *(d for d in inner.args.kw_defaults if d is not None)]
        elif isinstance(inner, _Comprehension):
            # Its targets are its own; what it assigns with := is the scope's.
            waiting += [
                part
                for child in _walk(inner)
                if isinstance(child, ast.NamedExpr)
                for part in (child.target,)
            ]
        else:
            waiting += children(inner)


class DictionaryUses(msgspec.Struct, frozen=True):
    """How names are used below a scope's node, were they dictionaries."""

    escaping: frozenset[str]
    """Handed to what may change them, or called by a name of their own."""
    changed: frozenset[str]
    nested: frozenset[str]
    """Used in functions inside."""


def dictionary_uses(scope: ast.AST) -> DictionaryUses:
    """Say of every name below a scope's node how it is used."""
    escaping: set[str] = set()
    changed: set[str] = set()
    nested: set[str] = set()

    def visit(node: ast.AST, parent: ast.AST, above: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.Name):
            if inside:
                nested.add(node.id)
            if isinstance(node.ctx, ast.Load):
                use = _use(node, parent, above)
                if use == "changes":
                    changed.add(node.id)
                elif use == "escapes":
                    escaping.add(node.id)
        enters = node is not scope and isinstance(node, (*_FUNCTIONS, ast.ClassDef))
        for child in _children(node):
            visit(child, node, parent, inside or enters)

    visit(scope, scope, scope, False)
    return DictionaryUses(frozenset(escaping), frozenset(changed), frozenset(nested))


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def _use(name: ast.Name, parent: ast.AST, above: ast.AST) -> str:
    if isinstance(parent, ast.keyword) and parent.arg is None:
        return "reads"
    if isinstance(parent, ast.Subscript) and parent.value is name:
        return "reads" if isinstance(parent.ctx, ast.Load) else "changes"
    if isinstance(parent, ast.Attribute) and isinstance(above, ast.Call) and above.func is parent:
        if parent.attr in _READING_METHODS:
            return "reads"
        if parent.attr in _CHANGING_METHODS:
            return "changes"
    if isinstance(parent, ast.Dict) and None in parent.keys and name in parent.values:
        spread = {id(v) for k, v in zip(parent.keys, parent.values, strict=True) if k is None}
        return "reads" if id(name) in spread else "escapes"
    if isinstance(parent, (ast.Compare, ast.UnaryOp)):
        return "reads"
    return "escapes"
