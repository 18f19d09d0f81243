"""Arithmetic from text, by a list of what is allowed: nothing of it is run as code."""

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_CONSTANTS = {"pi": math.pi, "e": math.e}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs, "round": round, "min": min, "max": max, "sqrt": math.sqrt, "exp": math.exp, "log": math.log,
    "log2": math.log2, "log10": math.log10, "sin": math.sin, "cos": math.cos, "tan": math.tan, "floor": math.floor,
    "ceil": math.ceil, "gcd": math.gcd,
}  # fmt: skip
_LONGEST = 500  # characters
_MOST_BITS = 4096


def calculator(expression: str) -> str:
    """Computes an arithmetic expression: numbers, + - * / // % ** and brackets, pi, e, sqrt, log, round, min, max, ...

    Raises:
      ValueError: anything else, a division by zero, or a result that is no finite real number or too large.
    """
    if len(expression) > _LONGEST:
        raise ValueError(f"an expression has at most {_LONGEST} characters, given {len(expression)}")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except SyntaxError:
        raise ValueError(f"cannot read {expression!r} as arithmetic") from None
    except (ZeroDivisionError, OverflowError, TypeError) as error:
        raise ValueError(f"{expression}: {error}") from None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, complex) or not math.isfinite(value):
        raise ValueError(f"{expression} is no finite real number")
    return f"{value:.15g}"


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return node.value
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp() if type(node.op) in _UNARY:
            return _UNARY[type(node.op)](_value(node.operand))
        case ast.BinOp(op=ast.Pow()):
            return _power(_value(node.left), _value(node.right))
        case ast.BinOp() if type(node.op) in _BINARY:
            return _small(_BINARY[type(node.op)](_value(node.left), _value(node.right)))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(_value, node.args))
    known = f"numbers, + - * / // % **, brackets, {', '.join([*_CONSTANTS, *_FUNCTIONS])}"
    raise ValueError(f"{ast.unparse(node)!r} is no arithmetic; have {known}")


def _power(base: Any, exponent: Any) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and base.bit_length() * abs(exponent) > _MOST_BITS:
        raise ValueError(f"{base} ** {exponent} is too large")
    return base**exponent


def _small(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"a result of more than {_MOST_BITS} bits is too large")
    return value
