"""What the numbers of one tick can be, as terms: a value, whether it is ready, and whether it is finite.

Readings, statistics, probabilities and products of measured numbers are left open; what is known of them is
stated as facts that every tick of the running `Evaluator` fulfils, rounding included. So where the facts exclude
a condition, no telemetry whatever makes it hold.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations

from attrs import frozen

from lbw_policy.semantics import expressions as e
from lbw_policy.semantics.intervals import Interval, Ranges
from lbw_policy.semantics.policy import Policy
from lbw_policy.semantics.signals import EVENTS, SIGNALS
from lbw_policy.semantics.types import COUNT
from lbw_policy.semantics.walk import parts
from lbw_policy.verify.measured import constant, finite, ready, value
from lbw_policy.verify.rounding import LEAST, ordered, rounded
from lbw_policy.verify.terms import Term, every, term, when

_LARGEST = Fraction(2**1023)
"""Nothing rounds from below this to infinity."""
_FROM_SAMPLES = ("median", "mean", "std", "min", "max", "quantile")
"""Statistics that are finite once they are ready, because windows hold finite samples only."""
_MODERATE = 1e150
"""Samples up to this size, summed over the longest window or divided by 1e-12, stay finite."""
_RANKED = {"min": 0, "median": 1, "quantile": 1, "max": 2, "spread": None}
"""Statistics of one ranked window, and their order."""


def facts(policy: Policy, *conditions: e.Condition, largest: float = math.inf) -> tuple[Term, ...]:
    """Return what holds in every tick of the numbers in some conditions of a policy.

    Built-in signals lie in their ranges, counts are whole numbers. With `largest`, finite readings are
    supposed to be no larger than that, now and in the past, so that little arithmetic overflows.
    """
    found = [one for one in parts(*conditions) if isinstance(one, e.Number) and not _told(one)]
    numbers = [one for one in found if constant(one) is None]
    points = sorted({0.0} | {known for one in found if (known := constant(one)) is not None and math.isfinite(known)})
    each = _Each(_ranges(policy, numbers, largest), _counts(policy), points)
    return (*(fact for number in numbers for fact in each.of(number)), *_windows(numbers), *ordered(numbers))


def _told(node: e.Expression) -> bool:
    return isinstance(node, e.RiskReading) and node.field != "probability"


def _ranges(policy: Policy, numbers: Sequence[e.Number], largest: float) -> Ranges:
    ranges = Ranges.of(policy)
    known: dict[e.Expression, Interval] = {}
    for reading in (one for one in numbers if isinstance(one, e.Reading)):
        range_ = ranges.find(reading)
        known[reading] = Interval(max(range_.low, -largest), min(range_.high, largest))
    return Ranges(ranges.sources, known)


def _counts(policy: Policy) -> frozenset[str]:
    counted = {*EVENTS, *(kind.name for kind in SIGNALS.values() if kind.unit == COUNT)}
    return frozenset(one.name for one in policy.signals if not one.observed and one.source in counted)


@frozen
class _Each:
    """What is known of single numbers: `points` are the constants they may be compared with."""

    ranges: Ranges
    counts: frozenset[str]
    points: Sequence[float]

    def of(self, number: e.Number) -> Iterator[Term]:
        yield finite(number).implies(ready(number))
        yield from self._range(number)
        match number:
            case e.Reading(signal) if signal in self.counts:
                yield from (_whole(value(number), point) for point in self.points)
            case e.Arithmetic(op, left, right):
                yield ready(number).same(ready(left) & ready(right))
                yield finite(number).implies(_strict(op, left, right, value(number)))
                yield (finite(left) & finite(right) & self._small(number)).implies(finite(number))
                yield from rounded(number, self.points)
            case e.Function(name, argument):
                yield ready(number).same(ready(argument))
                yield finite(number).implies(finite(argument))
                yield from _function(name, number, argument)
            case e.Statistic(name, argument):
                yield from self._statistic(name, number, argument)

    def _range(self, number: e.Number) -> Iterator[Term]:
        range_, known, of, zero = self.ranges.find(number), finite(number), value(number), Fraction(0)
        if math.isfinite(range_.low):
            yield known.implies(of >= Fraction(range_.low))
        if math.isfinite(range_.high):
            yield known.implies(of <= Fraction(range_.high))
        # No float lies between 0 and the least subnormal one.
        yield known.implies((of > zero).implies(of >= 2 * LEAST) & (of < zero).implies(of <= -2 * LEAST))

    def _small(self, number: e.Arithmetic) -> Term:
        """Return that a result is too small to overflow, as far as that can be seen."""
        if self._bounded(number):
            return every()
        if number.op != "/":
            return term(False)
        left, right, zero = value(number.left), value(number.right), Fraction(0)
        bound = when(right >= zero, right, term(zero) - right) * _LARGEST
        return ~right.same(zero) & (left <= bound) & (left >= term(zero) - bound)

    def _bounded(self, number: e.Number) -> bool:
        range_ = self.ranges.find(number)
        return math.isfinite(range_.low) and math.isfinite(range_.high)

    def _statistic(self, name: str, number: e.Number, argument: e.Number) -> Iterator[Term]:
        known = finite(argument)
        if name in _FROM_SAMPLES:
            yield ready(number).implies(finite(number))
        elif name == "zscore":
            yield ready(number).implies(ready(argument))
            yield finite(number).implies(known)
        elif name in e.TRENDS:
            known |= ~ready(argument)
            yield finite(number).implies(known)
        if name in ("ewma", "prev") or self._moderate(argument):
            yield (ready(number) & (every() if name == "spread" else known)).implies(finite(number))

    def _moderate(self, number: e.Number) -> bool:
        """Tell whether no sum or quotient that a statistic makes of a number's samples can overflow."""
        range_ = self.ranges.find(number)
        return range_.low >= -_MODERATE and range_.high <= _MODERATE


# Readiness and finiteness


def _whole(count: Term, point: float) -> Term:
    """Return that a count is a whole number, beside one point."""
    above = (count > Fraction(point)).implies(count >= Fraction(math.floor(point) + 1))
    return above & (count < Fraction(point)).implies(count <= Fraction(math.ceil(point) - 1))


def _strict(op: str, left: e.Number, right: e.Number, result: Term) -> Term:
    """Return what a finite result says of its operands: all are finite, except that x / inf is 0."""
    if op != "/":
        return finite(left) & finite(right)
    divided = when(finite(right), ~value(right).same(Fraction(0)), result.same(Fraction(0)))
    return finite(left) & divided


def _function(name: str, number: e.Number, argument: e.Number) -> Iterator[Term]:
    inner, zero = value(argument), Fraction(0)
    if name == "log":
        yield finite(number).same(finite(argument) & (inner > zero))
    elif name in ("neg", "abs"):
        yield finite(number).same(finite(argument))
        negative = term(zero) - inner
        result = negative if name == "neg" else when(inner >= zero, inner, negative)
        yield finite(number).implies(value(number).same(result))


# Windows


def _windows(numbers: Sequence[e.Number]) -> Iterator[Term]:
    shared: dict[tuple[e.Number, int], list[e.Statistic]] = defaultdict(list)
    for number in numbers:
        if isinstance(number, e.Statistic) and (number.name in _RANKED or number.name == "zscore"):
            shared[(number.argument, number.samples)].append(number)
    for together in shared.values():
        for one, other in combinations(together, 2):
            yield from _pair(one, other)


def _pair(one: e.Statistic, other: e.Statistic) -> Iterator[Term]:
    """Yield what two statistics of one window say of each other."""
    if "zscore" in (one.name, other.name):
        score, base = (one, other) if one.name == "zscore" else (other, one)
        yield ready(score).same(ready(base) & ready(score.argument))
        if base.name == "median":
            yield finite(score).implies(_sign(value(score), value(score.argument), value(base)))
        return
    yield ready(one).same(ready(other))
    first, second = _RANKED[one.name], _RANKED[other.name]
    if first is not None and second is not None and first != second:
        low, high = (one, other) if first < second else (other, one)
        yield ready(low).implies(value(low) <= value(high))


def _sign(score: Term, sample: Term, median: Term) -> Term:
    zero = Fraction(0)
    return (score > zero).implies(sample > median) & (score < zero).implies(sample < median)
