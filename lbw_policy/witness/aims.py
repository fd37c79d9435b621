"""What values are worth trying for a reading: around every constant that it is compared with, and far off.

A comparison is solved for one reading at a time while all else stands still: in `grad / median(grad, 64 steps) > 6`
a gradient norm that stood at 1 matters at 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from attrs import define, field

from lbw_policy.machine.closures import ARITHMETIC, plain
from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import trial as t
from lbw_policy.witness.scripts import GAP, RAMP, Channel, titles_in, value

_FACTORS = (3.0, 12.0, 0.5, 1.2, 100.0, 0.0)
_BEYOND = 0.02
"""How far beyond a constant a value must lie to count as above or below it, as a share of the constant."""
_SHOWN = (t.ALARM, t.TRUSTED)
_OPPOSITE = {"+": "-", "-": "+", "*": "/", "/": "*"}
_SAME = ("median", "mean", "min", "max", "quantile", "ewma", "prev")


def palette(channel: Channel, tests: Iterable[e.Comparison | e.Finite], levels: Mapping[str, float]) -> list[t.Stretch]:
    """Return shapes to try for a channel, the likeliest and plainest first; `levels` has the healthy ones by title."""
    if channel.part in _SHOWN:
        return [value(1.0 - channel.level), channel.base, GAP]
    found = [*_aimed(channel, tests, levels), *(channel.level * factor for factor in _FACTORS), -channel.level]
    if channel.part == t.PROBABILITY:
        found = [one for one in [*found, 0.6, 0.0, 0.95] if 0 <= one <= 1]
    shapes = [value(one) for one in dict.fromkeys(found) if one != channel.level]
    return [channel.base, *shapes, *_ramps(channel), *_broken(channel)]


def _ramps(channel: Channel) -> Iterator[t.Stretch]:
    top = min(1.0, 50 * channel.level) if channel.part else 3 * channel.level
    if top != channel.level:
        yield t.Stretch(RAMP, (channel.level, top), 1)
        yield t.Stretch(RAMP, (channel.level, 0.0), 1)


def _broken(channel: Channel) -> list[t.Stretch]:
    """Return what is not a finite number; a probability is never infinite in a test."""
    endless = [] if channel.part else [value(math.inf)]
    return [value(math.nan), *endless, GAP]


def is_finite(shape: t.Stretch) -> bool:
    """Tell whether a shape has a finite reading at each tick."""
    return shape.kind != GAP.kind and all(math.isfinite(one) for one in shape.values)


# Values on either side of a constant


def _aimed(channel: Channel, tests: Iterable[e.Comparison | e.Finite], levels: Mapping[str, float]) -> Iterator[float]:
    solver, title = Solver(levels), channel.title
    roots = [root for test in tests if isinstance(test, e.Comparison) for root in solver.roots(test, title)]
    distinct = sorted(dict.fromkeys(root + 0.0 for root in roots if math.isfinite(root) and abs(root) < 1e12))
    outward = sorted(distinct, key=lambda root: abs(root - channel.level))
    for root in outward:
        yield from _beside(root, 1.0 if root >= channel.level else -1.0)
    for root in outward:
        yield from _beside(root, -1.0 if root >= channel.level else 1.0)
    yield from (0.5 * (low + high) for low, high in pairwise(distinct))
    yield from outward


def _beside(root: float, sign: float) -> Iterator[float]:
    """Yield a round number beyond a root, and one close to it."""
    if root == 0:
        yield sign
        yield 0.01 * sign
        return
    power = math.floor(math.log10(abs(root)))
    for digits in (0, 1):
        step = 10.0 ** (power - digits)
        count = math.floor(sign * root * (1 + math.copysign(_BEYOND, sign * root)) / step) + 1
        yield float(f"{sign * count * step:.12g}")


@define
class Solver:
    """Knows what numbers are while every channel stands at its level, and where one of them would make them else."""

    levels: Mapping[str, float]
    _known: dict[e.Number, float] = field(factory=dict)

    def roots(self, test: e.Comparison, title: str) -> Iterator[float]:
        """Yield values of a channel at which the sides of a comparison are equal."""
        yield from self._solve(test.left, self.still(test.right), title)
        yield from self._solve(test.right, self.still(test.left), title)

    def still(self, node: e.Number) -> float:
        """Return the value of a number in a run that stands still."""
        if node not in self._known:
            self._known[node] = self._still(node)
        return self._known[node]

    def _still(self, node: e.Number) -> float:
        match node:
            case e.Constant(number):
                return number
            case e.Reading() | e.RiskReading():
                return self.levels.get(titles_in(node)[0], 0.0)  # what is not given is an event: none
            case e.Arithmetic(op, left, right):
                return ARITHMETIC[op](self.still(left), self.still(right))
            case e.Function(name, argument):
                return plain(name)(self.still(argument))
            case e.Statistic(name, argument):
                return self.still(argument) if name in _SAME else 0.0

    def _solve(self, node: e.Number, target: float, title: str) -> Iterator[float]:
        if not math.isfinite(target) or title not in titles_in(node):
            return
        if isinstance(node, e.Reading | e.RiskReading):
            yield target
        for operand, needed in self._needs(node, target):
            yield from self._solve(operand, needed, title)

    def _needs(self, node: e.Number, target: float) -> Iterator[tuple[e.Number, float]]:
        """Yield each operand of a number with what it must be for the number to reach the target."""
        match node:
            case e.Arithmetic(op, left, right):
                here, there = self.still(left), self.still(right)
                yield left, ARITHMETIC[_OPPOSITE[op]](target, there)
                yield right, ARITHMETIC[_OPPOSITE[op]](target, here) if op in "+*" else ARITHMETIC[op](here, target)
            case e.Function(name, argument):
                yield from ((argument, one) for one in _inverse(name, target))
            case e.Statistic(_, argument):
                yield argument, self._moved(node, target)

    def _moved(self, node: e.Statistic, target: float) -> float:
        """Return what the argument of a statistic must be for it to reach the target, roughly."""
        level = self.still(node.argument)
        if node.name in _SAME:
            return target
        if node.name == "zscore":  # in a run that stands still the deviation is the floor: 0.1 % of the median
            return level + target * max(1e-3 * abs(level), 1e-12)
        if node.name == "slope":
            return level + target * node.samples
        return level + 2 * target if node.name == "std" else level * (1 + 2 * target)


def _inverse(name: str, target: float) -> Sequence[float]:
    if name == "neg":
        return (-target,)
    if name == "abs":
        return (target, -target) if target >= 0 else ()
    if name == "log":
        return (math.exp(target),) if target < 100 else ()
    return (target,)
