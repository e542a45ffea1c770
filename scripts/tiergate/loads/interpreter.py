"""Follows values through the statements of one file.

An abstract interpreter. Within a scope statements are followed in their order, branches are joined
and loops are run until nothing new comes. What a function reads from the scopes around it may be
anything that is ever bound there, because nobody knows when it is called. Rounds are repeated
until nothing new is learnt.
"""

from __future__ import annotations

import ast
import bisect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tiergate.loads import relevance
from tiergate.loads.calls import Policy
from tiergate.loads.expressions import Expressions, Finding, Place, Proof, loose, unpacked
from tiergate.loads.scopes import FunctionNode, Scope, names_of, returns_plainly
from tiergate.loads.values import (
    NOTHING,
    UNKNOWN,
    Constant,
    Function,
    Loader,
    Local,
    Partial,
    Symbol,
    Table,
    Values,
    bounded,
    constant,
    exported,
    is_load,
    is_torch,
    loaders,
    symbol,
)

_ROUNDS = 8
_LOOPS = 4
_STATEMENTS = 300_000
"""What is followed of one file, loops counted as often as they are run: seconds, not hours."""
_LINE_END = re.compile(rb"\r\n|\r|\n")
_NO_PROSE = rb"(?![ \t]+(?!(?:and|as|else|for|if|in|is|not|or)\b)[A-Za-z])"
# A function is followed only for the sake of one of these; with the words that each begins with.
# What must stand before a word is asked after it: the word is then searched for as plain text.
_HOT = (
    *((name, relevance.word(name) + _NO_PROSE) for name in (b"load", b"_load", b"_legacy_load")),
    (b"weights_only", rb"weights_only"),
    (b"global", relevance.word(b"global")),
    (b"nonlocal", relevance.word(b"nonlocal")),
    (b"eval", rb"eval(?<![.\w]eval)\s*\("),
    (b"exec", rb"exec(?<![.\w]exec)\s*\("),
    (b"vars", rb"vars(?<![.\w]vars)\s*\(\s*\w"),
    (
        b"getattr",
        relevance.word(b"getattr")
        + rb"\s*\(\s*(?!self\b|cls\b)\w+[^,\n]*,\s*(?![\"']\w+[\"']\s*[,)])",
    ),
    (b"__dict__", rb"__dict__(?<=\.__dict__)(?<!\bself\.__dict__)(?<!\bcls\.__dict__)\s*\["),
    (b"methodcaller", rb"methodcaller"),
    (b"attrgetter", rb"attrgetter"),
    (b"__getattribute__", rb"__getattribute__"),
    (b"getattr_static", rb"getattr_static"),
    (b"return", rb"return(?<!\wreturn)\s*\(?\s*(?:torch|serialization)\b(?![ \t]*\.)"),
    (b"= torch", rb"=[ \t]*torch\b(?![ \t]*\.)"),
    (b"=torch", rb"=torch\b(?![ \t]*\.)"),
    (b"import_module", rb"import_module"),
    (b"__import__", rb"__import__"),
    (b"resolve_name", rb"resolve_name"),
    (b"locate", relevance.word(b"locate")),
)
_ASKED = re.compile(rb"weights_only\s*=\s*(?:not\s+)?(\w+)\s*\(")

_NEVER_SWALLOWING = ("builtins.open()", "torch.")

_Env = dict[str, Values]
_State = tuple[_Env, bool]
"""What the names are, and whether the code goes on at all."""


@dataclass
class Result:
    """What came of a file."""

    findings: list[Finding] = field(default_factory=list)
    safe: frozenset[Place] = frozenset()
    """Where ``torch.load`` is named and all that comes of it is provably safe; and where
    something else only has its name."""
    proofs: list[Proof] = field(default_factory=list)
    exports: dict[str, Values] = field(default_factory=dict)


class Interpreter(Expressions):
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
        module = Scope(tree, "module", None)
        super().__init__(module, lookup, policy)
        self._tree = tree
        self._source = source
        self._dictionaries_matter = b"weights_only" in source
        self._ends: list[int] = []
        self._hot: list[int] = []
        """Numbers of the lines for whose sake a function is interpreted."""
        self._statements = _STATEMENTS
        self._lines: dict[bytes, frozenset[int]] = {}
        """Where a pattern matches."""
        self._exports = exports
        self._absolute = absolute
        self._scopes: dict[int, Scope] = {}
        self._queue: list[tuple[FunctionNode, Scope]] = []
        self._stored: dict[Place, str] = {}
        self._within_text: dict[int, Place] = {}
        """Functions defined in what eval or exec is given, and where that is."""

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
            exports={n: found for n, v in self._module.all.items() if (found := exported(v))},
        )

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

    def _round(self) -> None:
        self._forget()
        self._changed = False
        self._stored = {}
        self._queue = []
        self._hot = self._hot_lines()
        module = self._module
        module.env, module.running = {}, True
        self._scope, self._live = module, True
        self._execute(self._tree.body)
        module.running = False
        done: set[int] = set()
        while self._queue:
            node, scope = self._queue.pop(0)
            if id(node) not in done and self._is_hot(node):
                done.add(id(node))
                self._run_function(node, scope)

    def _hot_lines(self) -> list[int]:
        """Return the lines that name what loads, or may: other functions need not be followed."""
        names = {name for name, values in self._attributes.items() if values}
        for scope in (self._module, *self._scopes.values()):
            names |= {name for name, values in scope.all.items() if self._leads_to_load(values)}
        source = self._source
        words = [name.encode() for name in sorted(names)]
        words += {match[1] for match in _ASKED.finditer(source)}
        patterns = [pattern for word, pattern in _HOT if word in source]
        patterns += [relevance.word(word) for word in words]
        if not self._ends:
            self._ends = [match.start() for match in _LINE_END.finditer(self._source)]
        hot: set[int] = set()
        for pattern in patterns:
            if pattern not in self._lines:
                starts = (match.start() for match in re.finditer(pattern, source))
                found = {bisect.bisect_left(self._ends, start) + 1 for start in starts}
                self._lines[pattern] = frozenset(found)
            hot |= self._lines[pattern]
        return sorted(hot)

    def _leads_to_load(self, values: Values) -> bool:
        return any(
            isinstance(value, (Loader, Partial))
            or is_load(value)
            or (isinstance(value, Function) and loaders(self._returns.get(value.number, NOTHING)))
            for value in values
        )

    def _is_hot(self, node: FunctionNode) -> bool:
        if id(node) in self._within_text:
            return True
        end = node.end_lineno or node.lineno
        at = bisect.bisect_left(self._hot, node.lineno)
        return at < len(self._hot) and self._hot[at] <= end

    # Functions and classes

    def _define(self, node: FunctionNode) -> Values:
        """Evaluate the defaults now; the body later."""
        function = self._functions.setdefault(id(node), Function(len(self._functions)))
        scope = self._new_scope(node, "function")
        scope.defaults = {}
        arguments = node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        pairs = [*zip(reversed(positional), reversed(arguments.defaults), strict=False)]
        pairs += [
            (parameter, default)
            for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
            if default is not None
        ]
        for parameter, default in pairs:
            scope.defaults[parameter.arg] = self._evaluate(default)
        self._queue.append((node, scope))
        if self._at is not None:
            self._within_text[id(node)] = self._at
        return frozenset({function})

    def _new_scope(self, node: FunctionNode | ast.ClassDef, kind: str) -> Scope:
        if id(node) in self._scopes:
            return self._scopes[id(node)]
        scope = self._scopes[id(node)] = Scope(node, kind, self._scope)
        return scope

    def _enter(self, scope: Scope) -> None:
        """Find out, before a scope is run for the first time, which names are its own."""
        if scope.locals is not None:
            return
        # A class sees, like a module, only what it has bound already.
        names, declarations = names_of(scope.node)
        scope.locals = names if scope.kind == "function" else frozenset()
        for declaration in declarations:
            for name in declaration.names:
                owner = self._owner(scope, name, declaration)
                scope.elsewhere[name] = owner
                self._changed |= name not in owner.shared
                owner.shared.add(name)

    def _owner(self, scope: Scope, name: str, declaration: ast.Global | ast.Nonlocal) -> Scope:
        if isinstance(declaration, ast.Nonlocal):
            outer = scope.parent
            while outer is not None and outer.parent is not None:
                if outer.kind == "function" and name in (outer.locals or ()):
                    return outer
                outer = outer.parent
        return self._module

    def _run_function(self, node: FunctionNode, scope: Scope) -> None:
        self._enter(scope)
        self._at = self._within_text.get(id(node))
        self._scope, self._live = scope, True
        scope.env, scope.running = {}, True
        arguments = node.args
        for parameter in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            values = UNKNOWN | scope.defaults.get(parameter.arg, NOTHING)
            given = getattr(node, "name", "") in self._given_torch
            if given and parameter.arg not in {"self", "cls"}:
                values |= symbol("torch")
            self._bind(parameter.arg, values)
        if arguments.vararg is not None:
            self._bind(arguments.vararg.arg, UNKNOWN)
        if arguments.kwarg is not None:
            self._bind(arguments.kwarg.arg, frozenset({Table((), complete=False)}))
        if isinstance(node, ast.Lambda):
            self._return(scope, self._evaluate(node.body))
        else:
            self._execute(node.body)
            if self._live:
                self._return(scope, constant(None))
        scope.running, self._at = False, None

    def _return(self, scope: Scope, values: Values) -> None:
        node = scope.node
        if scope.plain is None:
            scope.plain = returns_plainly(node)
        if not scope.plain:
            values = frozenset(loaders(values)) | UNKNOWN
        number = self._functions[id(node)].number
        known = self._returns.get(number, NOTHING)
        if not values <= known:
            self._returns[number] = bounded(known | values)
            self._changed |= self._returns[number] != known and number in self._asked_returns

    def _class(self, node: ast.ClassDef) -> None:
        for expression in (*node.bases, *(k.value for k in node.keywords), *node.decorator_list):
            self._evaluate(expression)
        outer = self._scope
        scope = self._new_scope(node, "class")
        self._enter(scope)
        scope.env, scope.running = {}, True
        self._scope = scope
        self._execute(node.body)
        scope.running = False
        self._scope = outer
        for name, values in scope.all.items():
            self._store_attribute(name, values)
        self._bind(node.name, frozenset({Local()}))

    def _store_attribute(self, name: str, values: Values) -> None:
        """Remember torch.load under an attribute's name, whosever attribute it is."""
        found = frozenset(v for v in values if isinstance(v, (Loader, Partial)) or is_torch(v))
        if not found or (name == "torch" and not loaders(values)):
            return  # an attribute of that name is torch already
        for value in loaders(values):
            function = value.function if isinstance(value, Partial) else value
            self._stored[function.line, function.column] = name
        known = self._attributes.get(name, NOTHING)
        if not found <= known:
            self._attributes[name] = bounded(known | found)
            self._changed = True

    # Statements

    def _execute(self, body: Sequence[ast.stmt]) -> None:
        self._statements -= len(body)
        if self._statements < 0:
            raise ValueError("too involved to follow")
        for statement in body:
            kind = type(statement)
            if kind not in self._methods:
                self._methods[kind] = getattr(type(self), f"_do_{kind.__name__.lower()}", None)
            method = self._methods[kind]
            if method is not None:
                method(self, statement)
            else:
                self._children(statement)

    def _do_expr(self, node: ast.Expr) -> None:
        bare = isinstance(node.value, (ast.Name, ast.Attribute))
        values = self._evaluate(node.value, held=bare)
        if bare:
            self._looked_at([values])

    def _do_assign(self, node: ast.Assign) -> None:
        if len(node.targets) == 1 and self._pairwise(node.targets[0], node.value):
            return
        held = all(isinstance(target, (ast.Name, ast.Attribute)) for target in node.targets)
        values = self._evaluate(node.value, held=held)
        if len(node.targets) > 1:
            values = loose(values)
        for target in node.targets:
            self._assign(target, values, node)

    def _pairwise(self, target: ast.expr, value: ast.expr) -> bool:
        """``a, b = x, y``: each by itself, evaluated before any is bound."""
        shapes = (ast.Tuple, ast.List)
        if not isinstance(target, shapes) or not isinstance(value, shapes):
            return False
        if len(target.elts) != len(value.elts) or any(
            isinstance(element, ast.Starred) for element in (*target.elts, *value.elts)
        ):
            return False
        simple = [isinstance(element, (ast.Name, ast.Attribute)) for element in target.elts]
        found = [
            self._evaluate(element, held=held)
            for element, held in zip(value.elts, simple, strict=True)
        ]
        for element, values in zip(target.elts, found, strict=True):
            self._assign(element, values, target)
        return True

    def _do_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            simple = isinstance(node.target, (ast.Name, ast.Attribute))
            self._assign(node.target, self._evaluate(node.value, held=simple), node)

    def _do_augassign(self, node: ast.AugAssign) -> None:
        values = self._evaluate(node.value)
        if isinstance(node.target, ast.Name):
            self._bind(node.target.id, values | UNKNOWN)
        else:
            self._assign(node.target, values | UNKNOWN, node)

    def _assign(self, target: ast.expr, values: Values, node: ast.stmt | ast.expr) -> None:
        if isinstance(target, (ast.Name, ast.Attribute)) and self._reads_like_load(target):
            self._other.add((target.lineno, target.col_offset))
        if isinstance(target, ast.Name):
            self._bind(target.id, values)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for element, part in zip(target.elts, unpacked(values, target.elts), strict=True):
                inner = element.value if isinstance(element, ast.Starred) else element
                self._assign(inner, UNKNOWN if inner is not element else part, node)
        elif isinstance(target, ast.Attribute):
            base = self._evaluate(target.value, held=True)
            if any(is_torch(value) for value in base):
                self._replaced(target, base, target.attr, values)
            else:
                self._store_attribute(target.attr, values)
        elif isinstance(target, ast.Subscript):
            self._assign_item(target, values)

    def _assign_item(self, target: ast.Subscript, values: Values) -> None:
        base = self._evaluate(target.value, held=True)
        keys = self._evaluate(target.slice)
        key = None
        if len(keys) == 1:
            (only,) = keys
            key = only.value if isinstance(only, Constant) else None
        if isinstance(target.value, ast.Name) and any(isinstance(v, Table) for v in base):
            changed = frozenset(
                value
                if not isinstance(value, Table)
                else value.updated(key, values)
                if isinstance(key, str)
                else Table(tuple((k, v | values) for k, v in value.items), complete=False)
                for value in base
            )
            self._bind(target.value.id, changed)
        if key == "load" and any(
            v == next(iter(symbol(name))) for v in base for name in ("torch.__dict__",)
        ):
            self._replaced(target, symbol("torch"), "load", values)

    def _do_delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if not isinstance(target, ast.Name):
                self._children(target)
            elif self._reads_like_load(target):
                self._other.add((target.lineno, target.col_offset))
            if isinstance(target, ast.Name):
                self._scope.env.pop(target.id, None)
            elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                base = self._evaluate(target.value)
                if any(isinstance(value, Table) for value in base):
                    self._bind(target.value.id, UNKNOWN)

    def _do_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self._evaluate(decorator)
        self._bind(node.name, self._define(node))

    _do_asyncfunctiondef = _do_functiondef

    def _do_classdef(self, node: ast.ClassDef) -> None:
        self._class(node)

    def _do_return(self, node: ast.Return) -> None:
        values = self._evaluate(node.value) if node.value is not None else constant(None)
        if self._scope.kind == "function":
            self._return(self._scope, values)
        self._live = False

    def _do_raise(self, node: ast.Raise) -> None:
        self._children(node)
        self._live = False

    def _do_break(self, node: ast.Break | ast.Continue) -> None:
        del node
        self._live = False

    _do_continue = _do_break

    def _do_import(self, node: ast.Import) -> None:
        for alias in node.names:
            dotted = alias.name if alias.asname else alias.name.split(".")[0]
            self._bind(alias.asname or dotted, self._dotted(dotted))

    def _do_importfrom(self, node: ast.ImportFrom) -> None:
        module = self._absolute(node.level, node.module or "") if node.level else node.module or ""
        for alias in node.names:
            if alias.name == "*":
                self._module.stars.append(module)
                if module not in {"torch", "torch.serialization"}:
                    self._overwritten()
                for name, values in self._exports(module).items():
                    self._bind(name, values)
            else:
                self._bind(alias.asname or alias.name, self._dotted(f"{module}.{alias.name}"))

    def _overwritten(self) -> None:
        """What a name was bound to before ``from module import *`` may be lost."""
        for name, values in list(self._scope.env.items()):
            if any(isinstance(value, (Constant, Table)) for value in values):
                self._bind(name, loose(values) | UNKNOWN)

    # Control flow

    def _save(self) -> _State:
        return dict(self._scope.env), self._live

    def _restore(self, state: _State) -> None:
        self._scope.env, self._live = dict(state[0]), state[1]

    def _merge(self, states: Iterable[_State]) -> None:
        """Go on from wherever the code can come from."""
        every = list(states)
        alive = [env for env, live in every if live]
        joined: _Env = {}
        for env in alive or [env for env, _ in every]:
            for name, values in env.items():
                joined[name] = joined.get(name, NOTHING) | values
        self._scope.env = {name: bounded(values) for name, values in joined.items()}
        self._live = bool(alive)

    def _branch(self, state: _State, body: Sequence[ast.stmt]) -> _State:
        self._restore(state)
        self._execute(body)
        return self._save()

    def _do_if(self, node: ast.If) -> None:
        self._evaluate(node.test)
        before = self._save()
        self._merge([self._branch(before, node.body), self._branch(before, node.orelse)])

    def _logged(self, run: Callable[[], None]) -> _Env:
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
            self._evaluate(node.test)

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
        self._evaluate(node.subject)
        before = self._save()
        ends = [before]
        for case in node.cases:
            self._restore(before)
            for part in ast.walk(case.pattern):
                if isinstance(part, (ast.MatchAs, ast.MatchStar)) and part.name:
                    self._bind(part.name, UNKNOWN)
                elif isinstance(part, ast.MatchMapping) and part.rest:
                    self._bind(part.rest, UNKNOWN)
            if case.guard is not None:
                self._evaluate(case.guard)
            self._execute(case.body)
            ends.append(self._save())
        self._merge(ends)


def _joined(env: _Env, bound: _Env) -> _Env:
    joined = dict(env)
    for name, values in bound.items():
        joined[name] = bounded(joined.get(name, NOTHING) | values)
    return joined
