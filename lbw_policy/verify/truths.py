"""Conditions as terms over the numbers of one tick: that one is unknown or true, and that it is true."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lbw_policy.semantics import expressions as e
from lbw_policy.semantics.expressions import Truth
from lbw_policy.verify.measured import finite, ready, value
from lbw_policy.verify.terms import BOOL, Term, variable

_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


def holds(condition: e.Condition, least: Truth = Truth.TRUE, *, negate: bool = False) -> Term:
    """Return that a condition, or its negation, is at least as true as `least`, which is unknown or true.

    `not` moves inward to the comparisons, as it does in the machine.
    """
    match condition:
        case e.Not(operand):
            return holds(operand, least, negate=not negate)
        case e.Both(left, right) | e.Either(left, right):
            one, other = holds(left, least, negate=negate), holds(right, least, negate=negate)
            return one & other if isinstance(condition, e.Both) != negate else one | other
        case e.Finite(argument):
            return ready(argument) & (~finite(argument) if negate else finite(argument))
        case e.RiskReading():
            return said(condition) & (~says(condition) if negate else says(condition))
        case e.Comparison(op, left, right):
            return _compared(_OPPOSITE[op] if negate else op, left, right, least)


def said(reading: e.RiskReading) -> Term:
    """Return that a risk model gives an answer."""
    return variable(f"{reading.risk}.{reading.field} ready", BOOL)


def says(reading: e.RiskReading) -> Term:
    """Return the answer of a risk model."""
    return variable(f"{reading.risk}.{reading.field}", BOOL)


def _compared(op: str, left: e.Number, right: e.Number, least: Truth) -> Term:
    known = finite(left) & finite(right)
    true = known & _COMPARED[op](value(left), value(right))
    return true if least is Truth.TRUE else ready(left) & ready(right) & (~known | true)


_COMPARED: Mapping[str, Callable[[Term, Term], Term]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "==": lambda left, right: left.same(right),
    "!=": lambda left, right: ~left.same(right),
}
