"""The range each number of a policy can lie in, and the comparisons that these ranges decide."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from attrs import define, field, frozen

from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.ceilings import SCALE_CEILING
from lbw_policy.semantics.report import plain
from lbw_policy.semantics.signals import LR_FACTOR, OWN, SIGNALS

_NEVER_NEGATIVE = ("std", "spread")
_SAME_RANGE = ("median", "mean", "min", "max", "quantile", "prev")


@frozen
class Interval:
    """The finite values a number may have: `low <= x <= high`; an infinite end means no bound."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if self.low == self.high:
            return f"always {plain(self.low)}"
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"between {plain(self.low)} and {plain(self.high)}"
        if math.isfinite(self.low):
            return f"at least {plain(self.low)}"
        return f"at most {plain(self.high)}" if math.isfinite(self.high) else "any number"


ANY = Interval()
_POSITIVE = Interval(0.0)


@define
class Ranges:
    """Finds the ranges of one policy's numbers, each distinct one once."""

    sources: dict[str, p.Signal]
    _known: dict[e.Expression, Interval] = field(factory=dict)

    @classmethod
    def of(cls, policy: p.Policy) -> Ranges:
        """Return the ranges under a policy's signals and limits."""
        limit, known = policy.limits.scale_lr, dict[e.Expression, Interval]()
        if limit is not None:  # no factor below the limit is granted, and 1 where none is asked for
            own = (one.name for one in policy.signals if one.source == LR_FACTOR and not one.observed)
            known = {e.Reading(name): Interval(limit.low, SCALE_CEILING) for name in own}
        return cls({signal.name: signal for signal in policy.signals}, known)

    def find(self, node: e.Number) -> Interval:
        """Return the range of a number's finite values."""
        if node not in self._known:
            self._known[node] = self._find(node)
        return self._known[node]

    def decide(self, node: e.Comparison) -> bool | None:
        """Return what a comparison of finite numbers always is, None where it may be either."""
        left, right = self.find(node.left), self.find(node.right)
        if node.op in ("==", "!="):
            return _equal(left, right, node.op == "==")
        ordered = _ordered(node)
        if ordered is not None:
            return ordered
        low, high = (left, right) if node.op in ("<", "<=") else (right, left)
        compare = operator.lt if node.op in ("<", ">") else operator.le
        if compare(low.high, high.low) and math.isfinite(low.high):
            return True
        return False if not compare(low.low, high.high) and math.isfinite(low.low) else None

    def _find(self, node: e.Number) -> Interval:
        match node:
            case e.Constant(value):
                return Interval(value, value)
            case e.Reading(name):
                return self._signal(name)
            case e.RiskReading():
                return Interval(0.0, 1.0)
            case e.Arithmetic(op, left, right):
                return _arithmetic(op, self.find(left), self.find(right))
            case e.Function(name, argument):
                return _FUNCTIONS.get(name, _anything)(self.find(argument))
            case e.Statistic(name, argument):
                return self._statistic(name, argument)

    def _statistic(self, name: str, argument: e.Number) -> Interval:
        if name in _NEVER_NEGATIVE:
            return _POSITIVE
        if name in ("ewma", "rate"):  # a rounded step or a sum may leave the range, but keeps its sign
            return _sign(self.find(argument))
        return self.find(argument) if name in _SAME_RANGE else ANY

    def _signal(self, name: str) -> Interval:
        signal = self.sources.get(name)
        if signal is None or signal.observed:
            return ANY
        kind = SIGNALS.get(signal.source) or OWN.get(signal.source)
        return Interval(kind.low, kind.high) if kind else ANY


def _anything(_: Interval) -> Interval:
    return ANY


def _sign(x: Interval) -> Interval:
    return Interval(0.0 if x.low >= 0 else -math.inf, 0.0 if x.high <= 0 else math.inf)


def _log(x: Interval) -> Interval:
    low = math.log(x.low) if 0 < x.low < math.inf else -math.inf
    return Interval(low, math.log(x.high) if 0 < x.high < math.inf else math.inf)


def _abs(x: Interval) -> Interval:
    least = 0.0 if x.low <= 0 <= x.high else min(abs(x.low), abs(x.high))
    return Interval(least, max(abs(x.low), abs(x.high)))


_FUNCTIONS: dict[str, Callable[[Interval], Interval]] = {
    "log": _log,
    "abs": _abs,
    "neg": lambda x: Interval(-x.high, -x.low),
}


def _arithmetic(op: str, x: Interval, y: Interval) -> Interval:
    match op:
        case "+":
            return Interval(x.low + y.low, x.high + y.high)
        case "-":
            return Interval(x.low - y.high, x.high - y.low)
        case "*":
            return _corners(x, y, lambda a, b: a * b if a and b else 0.0)
        case _:
            return _quotient(x, y)


def _quotient(x: Interval, y: Interval) -> Interval:
    if y.low < 0 < y.high or y == Interval(0.0, 0.0):
        return ANY
    if 0 in (y.low, y.high):  # the quotient of two signs has a sign, and no bound
        positive = (x.low >= 0 and y.low >= 0) or (x.high <= 0 and y.high <= 0)
        negative = (x.low >= 0 and y.high <= 0) or (x.high <= 0 and y.low >= 0)
        return _POSITIVE if positive else Interval(high=0.0) if negative else ANY
    found = _corners(x, y, lambda a, b: 0.0 if math.isinf(b) else a / b)
    # A measured divisor may be infinite, whatever its finite values are: the quotient is 0 then.
    return found if y.low == y.high else Interval(min(found.low, 0.0), max(found.high, 0.0))


def _corners(x: Interval, y: Interval, combine: Callable[[float, float], float]) -> Interval:
    # INVARIANT: rounding is monotone, so the rounded corners bound every rounded result.
    values = [combine(a, b) for a in (x.low, x.high) for b in (y.low, y.high)]
    return Interval(min(values), max(values))


def _equal(left: Interval, right: Interval, wanted: bool) -> bool | None:
    if left.high < right.low or right.high < left.low:
        return not wanted
    return wanted if left == right and left.low == left.high else None


def _ordered(node: e.Comparison) -> bool | None:
    """Decide a comparison of two order statistics of one window: its least is at most its greatest."""
    left, right = node.left, node.right
    if not (isinstance(left, e.Statistic) and isinstance(right, e.Statistic)):
        return None
    if (left.argument, left.samples) != (right.argument, right.samples):
        return None
    first, second = _RANKS.get(left.name), _RANKS.get(right.name)
    if first is None or second is None or first == second:
        return None
    below, above = ("<=", ">") if first < second else (">=", "<")
    return {below: True, above: False}.get(node.op)


_RANKS = {"min": 0, "median": 1, "quantile": 1, "max": 2}
"""Between the median and a quantile the order depends on the share."""
