"""The closures that expressions become: three-valued tests and numbers that may be not ready."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping

from lbw_policy.machine.readings import Readings
from lbw_policy.semantics.expressions import Comparison, Constant, RiskReading, Truth
from lbw_policy.semantics.plugins import FunctionPlugin, usable

NumberClosure = Callable[[], float | None]
TruthClosure = Callable[[], int]

_FALSE, _NOT_READY, _UNKNOWN, _TRUE = (int(truth) for truth in Truth)
OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def divide(left: float, right: float) -> float:
    """Return `left / right` by IEEE rules, where a zero divisor gives an infinity or NaN."""
    try:
        return left / right
    except ZeroDivisionError:
        return math.copysign(math.inf, right) * left


def log(value: float) -> float:
    """Return the natural logarithm: -inf at zero, NaN below it."""
    if value > 0:
        return math.log(value)
    return -math.inf if value == 0 else math.nan


ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": divide,
}
FUNCTIONS: Mapping[str, Callable[[float], float]] = {"log": log, "abs": abs, "neg": operator.neg}


def plain(name: str) -> Callable[[float], float]:
    """Return the function of one number that a name stands for; a plugin that is gone gives NaN."""
    return FUNCTIONS.get(name) or usable(FunctionPlugin, name) or (lambda _: math.nan)


def constant(value: float) -> NumberClosure:
    """Give the same value every tick."""
    return lambda: value


def cell(values: list[float | None], place: int) -> NumberClosure:
    """Give what stands in `values` at `place`."""
    return lambda: values[place]


def probability(readings: Readings, risk: str) -> NumberClosure:
    """Give the risk model's probability."""

    def evaluate() -> float | None:
        values = readings.risks.get(risk)
        return None if values is None else values.probability

    return evaluate


def function(apply: Callable[[float], float], argument: NumberClosure) -> NumberClosure:
    """Give `apply` of a number."""

    def evaluate() -> float | None:
        value = argument()
        return None if value is None else apply(value)

    return evaluate


def arithmetic(apply: Callable[[float, float], float], left: NumberClosure, right: NumberClosure) -> NumberClosure:
    """Give `apply` of two numbers."""
    if apply is divide:
        return _quotient(left, right)

    def evaluate() -> float | None:
        one, other = left(), right()
        return None if one is None or other is None else apply(one, other)

    return evaluate


def _quotient(left: NumberClosure, right: NumberClosure) -> NumberClosure:
    """Give what `divide` does of two numbers: most arithmetic is a ratio to a baseline."""

    def evaluate() -> float | None:
        one, other = left(), right()
        if one is None or other is None:
            return None
        return one / other if other else divide(one, other)

    return evaluate


def comparison(node: Comparison, negate: bool, left: NumberClosure, right: NumberClosure) -> TruthClosure:
    """Compare two numbers: unknown if one is not finite, not ready if one is None."""
    compare, isfinite = COMPARE[OPPOSITE[node.op] if negate else node.op], math.isfinite
    if isinstance(node.right, Constant) and isfinite(node.right.value):
        return _threshold(compare, left, node.right.value)

    def test() -> int:
        one, other = left(), right()
        if one is None or other is None:
            return _NOT_READY
        if isfinite(one) and isfinite(other):
            return _TRUE if compare(one, other) else _FALSE
        return _UNKNOWN

    return test


def _threshold(compare: Callable[[float, float], bool], argument: NumberClosure, bound: float) -> TruthClosure:
    """Compare a number with a finite constant: most comparisons do."""
    isfinite = math.isfinite

    def test() -> int:
        value = argument()
        if value is None:
            return _NOT_READY
        if isfinite(value):
            return _TRUE if compare(value, bound) else _FALSE
        return _UNKNOWN

    return test


def finite(argument: NumberClosure, negate: bool) -> TruthClosure:
    """Tell whether a number is finite; not ready only where it is None."""

    def test() -> int:
        value = argument()
        if value is None:
            return _NOT_READY
        return _TRUE if math.isfinite(value) != negate else _FALSE

    return test


def risk(readings: Readings, node: RiskReading, negate: bool) -> TruthClosure:
    """Give what the risk model says in the node's field."""
    choose: Callable[[object], bool | None] = operator.attrgetter(node.field)

    def test() -> int:
        values = readings.risks.get(node.risk)
        said = None if values is None else choose(values)
        if said is None:
            return _NOT_READY
        return _TRUE if said != negate else _FALSE

    return test


def both(left: TruthClosure, right: TruthClosure) -> TruthClosure:
    """Give the least of two truths."""

    def test() -> int:
        one = left()
        if one == _FALSE:
            return one
        other = right()
        return other if other < one else one

    return test


def either(left: TruthClosure, right: TruthClosure) -> TruthClosure:
    """Give the greatest of two truths."""

    def test() -> int:
        one = left()
        if one == _TRUE:
            return one
        other = right()
        return other if other > one else one

    return test
