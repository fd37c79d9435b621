"""Terms as people read them: `top - progress <= 50`."""

from __future__ import annotations

from collections.abc import Mapping

from lbw_policy.verify.terms import BOOL, Term, Value

_STRENGTH: Mapping[str, int] = {"=>": 1, "or": 2, "and": 3, "not": 4, **dict.fromkeys(("<", "<=", ">", ">=", "="), 5)}
_SUM, _PRODUCT, _ATOM = 6, 7, 8


def worded(node: Term) -> str:
    """Return a term in infix notation, with as few parentheses as it takes."""
    match node.op:
        case "variable":
            return node.name
        case "constant":
            return _constant(node.value)
        case "not":
            return f"not {_inner(node.arguments[0], _STRENGTH['not'])}"
        case "ite":
            condition, then, otherwise = node.arguments
            return f"({worded(then)} if {worded(condition)} else {worded(otherwise)})"
        case _:
            return _joined(node)


def _joined(node: Term) -> str:
    op, strength = node.op, _strength(node)
    if op == "=" and node.arguments[0].sort == BOOL:
        op = "is"
    loose = op in ("and", "or", "+", "*")
    first, *rest = node.arguments
    words = [_inner(first, strength), *(_inner(one, strength if loose else strength + 1) for one in rest)]
    return f" {op} ".join(words)


def _inner(node: Term, least: int) -> str:
    text = worded(node)
    return text if _strength(node) >= least else f"({text})"


def _strength(node: Term) -> int:
    if node.op in ("+", "-"):
        return _SUM
    return _PRODUCT if node.op == "*" else _STRENGTH.get(node.op, _ATOM)


def _constant(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:_}" if isinstance(value, int) else str(value)
