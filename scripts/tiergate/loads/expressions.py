"""What an expression may be, and what is to be said of the calls in it."""

from __future__ import annotations

import ast
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from tiergate.loads import folding
from tiergate.loads.calling import Calling
from tiergate.loads.calls import Policy
from tiergate.loads.containers import loose, merged, only, only_table, unpacked
from tiergate.loads.scopes import FunctionNode, Scope
from tiergate.loads.values import (
    NOTHING,
    UNKNOWN,
    Display,
    Loader,
    Table,
    Values,
    bounded,
    constant,
    constants,
    loaders,
    symbol,
)


class Expressions(Calling):
    """Evaluates the expressions of one file.

    Args:
        module: its outermost scope.
        lookup: what a dotted name of the repository's own modules is, or None.
        policy: whether an omitted ``weights_only`` can be safe.
    """

    def __init__(
        self, module: Scope, lookup: Callable[[str], Values | None], policy: Policy
    ) -> None:
        super().__init__(module, lookup, policy)
        self._methods: dict[type[ast.AST], Callable[[Any, Any], Any] | None] = {}

    # Provided by who follows statements.

    @abstractmethod
    def _define(self, node: FunctionNode) -> Values: ...

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
        values: Values = method(self, node)
        if len(values) > 1:
            values = bounded(values)
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

    def _test(self, node: ast.expr) -> None:
        """Evaluate what is only asked for its truth: whoever does so keeps nothing of it."""
        values = self._evaluate(node, held=True)
        if not isinstance(node, ast.NamedExpr):
            self._looked_at([values])

    def _of_ifexp(self, node: ast.IfExp) -> Values:
        self._test(node.test)
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
                piece = folding.function("builtins.str", [only(values)]) if plain else None
                piece = piece if constants(values, str, int) else None
            else:
                piece = self._evaluate(part)
            text = folding.binary(ast.Add(), text, piece) if text and piece else None
        return text or UNKNOWN

    def _of_binop(self, node: ast.BinOp) -> Values:
        left, right = self._evaluate(node.left), self._evaluate(node.right)
        return folding.binary(node.op, left, right) or UNKNOWN

    def _of_unaryop(self, node: ast.UnaryOp) -> Values:
        truth = isinstance(node.op, ast.Not)
        operand = self._evaluate(node.operand, held=truth)
        if truth:
            self._looked_at([operand])
        return folding.unary(node.op, operand) or UNKNOWN

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
                if len(node.keys) == 1 and symbol("torch.__dict__") <= values:
                    return values
                spread = only_table(values)
                table = merged(table, spread or Table((), False))
                continue
            name = only(self._evaluate(key))
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
        found = [self._evaluate(result) for result in results]
        self._scope.shared |= shared
        for name in own:
            env.pop(name, None)
        env.update(kept)
        if any(loaders(values) for values in found):
            element = found[0] if len(found) == 1 else frozenset({Display(tuple(found))})
            return frozenset({Display((element,), mutable=True)})
        return UNKNOWN

    def _comprehension_target(self, target: ast.expr, values: Values) -> None:
        if isinstance(target, ast.Name):
            self._scope.env[target.id] = values
        elif isinstance(target, (ast.Tuple, ast.List)):
            for element, part in zip(target.elts, unpacked(values, target.elts), strict=True):
                self._comprehension_target(element, part)

    def _of_starred(self, node: ast.Starred) -> Values:
        self._evaluate(node.value)
        return UNKNOWN

    def _of_attribute(self, node: ast.Attribute) -> Values:
        base = self._evaluate(node.value, held=True)
        return self._placed(self._member(base, node.attr), node)

    def _of_subscript(self, node: ast.Subscript) -> Values:
        base = self._evaluate(node.value)
        if isinstance(node.slice, ast.Slice):
            key: object = self._slice(node.slice)
        else:
            key = only(self._evaluate(node.slice))
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
