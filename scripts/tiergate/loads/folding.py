"""Constant folding: what an expression of constants comes to, computed without the candidate."""

from __future__ import annotations

import ast
import base64
import codecs
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from tiergate.loads.values import Constant, Values, constant

_LONGEST = 4096
_TYPES = (str, bytes, bool, int, type(None))
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Mod: operator.mod,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
    ast.Sub: operator.sub,
}
_COMPARISON: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_METHODS = frozenset(
    {
        "capitalize", "casefold", "decode", "encode", "format", "hex", "join", "lower", "lstrip",
        "removeprefix", "removesuffix", "replace", "rstrip", "strip", "swapcase", "title", "upper",
    }
)  # fmt: skip
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "builtins.bool": bool,
    "builtins.str": str,
    "builtins.chr": chr,
    "builtins.int": int,
    "builtins.bytes.fromhex": bytes.fromhex,
    "base64.b64decode": base64.b64decode,
    "codecs.decode": codecs.decode,
    "sys.intern": str,
}
_FAILURES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)


def binary(kind: ast.operator, left: Values, right: Values) -> Values | None:
    """Fold a binary operator; None where an operand is not constant."""
    fold = _BINARY.get(type(kind))
    if fold is None or (isinstance(kind, ast.Mod) and _may_explode(left)):
        return None
    return _over([left, right], fold)


def comparison(kind: ast.cmpop, left: Values, right: Values) -> Values | None:
    """Fold a comparison of two operands."""
    return _over([left, right], _COMPARISON[type(kind)])


def unary(kind: ast.unaryop, operand: Values) -> Values | None:
    """Fold a unary operator."""
    return _over([operand], _UNARY[type(kind)])


def method(name: str, base: Values, arguments: Sequence[Any]) -> Values | None:
    """Fold a call of a method of str or bytes."""
    if name not in _METHODS:
        return None
    if name == "format" and (_may_explode(base) or any(isinstance(a, int) for a in arguments)):
        return None  # a number may be a width: '{:{}}'
    return _over([base], lambda text: getattr(text, name)(*arguments), (str, bytes))


def function(dotted: str, arguments: Sequence[Any]) -> Values | None:
    """Fold a call of a function that only computes."""
    fold = _FUNCTIONS.get(dotted)
    if fold is None:
        return None
    return _result(fold, *arguments)


def subscript(base: Values, key: object) -> Values | None:
    """Fold an index or a slice of a constant."""
    return _over([base], lambda text: text[key], (str, bytes))


def _may_explode(formats: Values) -> bool:
    """Tell whether a format asks for more characters than anybody writes."""
    return any(
        isinstance(value, Constant)
        and isinstance(value.value, (str, bytes))
        and re.search(r"[0-9]{4}|\*", str(value.value)) is not None
        for value in formats
    )


def _over(
    operands: list[Values], fold: Callable[..., Any], types: tuple[type, ...] = _TYPES
) -> Values | None:
    combinations: list[tuple[Any, ...]] = [()]
    for values in operands:
        found = []
        for value in values:
            if not isinstance(value, Constant) or not isinstance(value.value, types):
                return None
            found.append(value.value)
        combinations = [(*start, item) for start in combinations for item in found]
        if not combinations or len(combinations) > 16:
            return None
    result: set[Any] = set()
    for combination in combinations:
        one = _result(fold, *combination)
        if one is None:
            return None
        result |= one
    return frozenset(result)


def _result(fold: Callable[..., Any], *operands: Any) -> Values | None:
    for operand in operands:
        if isinstance(operand, int) and abs(operand) > 10**6:
            return None
    try:
        result = fold(*operands)
    except _FAILURES:
        return None
    if not isinstance(result, _TYPES):
        return None
    if isinstance(result, (str, bytes)) and len(result) > _LONGEST:
        return None
    return constant(result)
