"""What a tick's numbers and conditions come to before the host has the tick's readings.

Baselines exclude the present sample, so before the readings are known everything but they themselves is. What
the host knows is computed here and at once; what hangs on a present reading is left to `Operations`, which
work where the readings are. A reflex fires if its condition is true or unknown: that is one bit, and `and`, `or`
and the inward `not` act on it as they do on the four truth values.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Mapping
from typing import Protocol

from attrs import define, field, frozen

from lbw_policy.machine import closures
from lbw_policy.machine.compiler import Compiler, leaves
from lbw_policy.machine.trends import Ewma, Prev, Trend
from lbw_policy.semantics.expressions import (
    Arithmetic,
    Both,
    Comparison,
    Condition,
    Constant,
    Either,
    Finite,
    Function,
    Not,
    Number,
    Reading,
    RiskReading,
    Statistic,
)


class UnforeseenError(Exception):
    """A tick cannot be judged before its readings are known; says why."""


@frozen(eq=False)
class Late:
    """A double that is ready, but not known to the host: `held` is the operations' own handle."""

    held: object


@frozen(eq=False)
class LateTruth:
    """A bit that is not known to the host."""

    held: object


Foreseen = float | None | Late
"""A number known now (None: not ready), or one that the operations hold."""
Bit = bool | LateTruth


class Operations(Protocol):
    """Arithmetic on doubles where the present readings are: every operation rounds once, by IEEE 754."""

    def combine(self, op: str, left: Late | float, right: Late | float) -> Late:
        """Return `left op right` with op one of `+ - * /`."""

    def apply(self, name: str, value: Late) -> Late:
        """Return `abs` or `neg` of a number."""

    def finite(self, value: Late) -> LateTruth:
        """Tell whether a number is neither NaN nor infinite."""

    def compare(self, op: str, left: Late | float, right: Late | float) -> LateTruth:
        """Compare as IEEE does: with NaN all but `!=` is false."""

    def both(self, left: LateTruth, right: LateTruth) -> LateTruth:
        """Return whether both hold."""

    def either(self, left: LateTruth, right: LateTruth) -> LateTruth:
        """Return whether one of them holds."""

    def invert(self, bit: LateTruth) -> LateTruth:
        """Return whether it does not hold."""

    def choose(self, bit: LateTruth, yes: Late | float, no: Late | float) -> Late:
        """Return `yes` where the bit holds, else `no`; the other one does not matter, whatever it is."""


@frozen(eq=False)
class Bits:
    """Logic on bits of which some are known; `on` has the operations for the others."""

    on: Operations

    def both(self, left: Bit, right: Bit) -> Bit:
        """Return whether both hold."""
        if isinstance(left, LateTruth) and isinstance(right, LateTruth):
            return self.on.both(left, right)
        known, other = (right, left) if isinstance(left, LateTruth) else (left, right)
        return other if known else False

    def either(self, left: Bit, right: Bit) -> Bit:
        """Return whether one of them holds."""
        if isinstance(left, LateTruth) and isinstance(right, LateTruth):
            return self.on.either(left, right)
        known, other = (right, left) if isinstance(left, LateTruth) else (left, right)
        return True if known else other

    def invert(self, bit: Bit) -> Bit:
        """Return whether it does not hold."""
        return self.on.invert(bit) if isinstance(bit, LateTruth) else not bit

    def choose(self, bit: Bit, yes: Late | float, no: Late | float) -> Late | float:
        """Return `yes` where the bit holds, else `no`."""
        if isinstance(bit, LateTruth):
            return self.on.choose(bit, yes, no)
        return yes if bit else no

    def finite(self, value: Late | float) -> Bit:
        """Tell whether a number is neither NaN nor infinite."""
        return self.on.finite(value) if isinstance(value, Late) else math.isfinite(value)

    def compare(self, op: str, left: Late | float, right: Late | float) -> Bit:
        """Compare as IEEE does."""
        if isinstance(left, Late) or isinstance(right, Late):
            return self.on.compare(op, left, right)
        return closures.COMPARE[op](left, right)

    def combine(self, op: str, left: Late | float, right: Late | float) -> Late | float:
        """Return `left op right`."""
        if isinstance(left, Late) or isinstance(right, Late):
            return self.on.combine(op, left, right)
        return closures.ARITHMETIC[op](left, right)


@define(eq=False)
class Foresight:
    """One tick's numbers and bits, each computed once; made anew for every tick, after the last one was committed.

    `present` has what the tick brings by signal: None or absent where there is no reading, a `Late` number where
    it is not known to the host yet. `unseen` are the signals whose reading only the host will be able to compute.
    Everything raises `UnforeseenError` where it hangs on what cannot be foreseen.
    """

    compiled: Compiler
    operations: Operations
    tick: int
    present: Mapping[str, Foreseen]
    unseen: frozenset[str] = frozenset()
    bits: Bits = field(init=False)
    _numbers: dict[Number, Foreseen] = field(init=False, factory=dict)
    _finite: dict[Number, Bit] = field(init=False, factory=dict)

    @bits.default
    def _logic(self) -> Bits:
        return Bits(self.operations)

    def fires(self, condition: Condition, negate: bool = False) -> Bit:
        """Tell whether a condition, or its negation, is true or unknown."""
        match condition:
            case Not(operand):
                return self.fires(operand, not negate)
            case Both(left, right):
                return self._joined(left, right, negate, every=not negate)
            case Either(left, right):
                return self._joined(left, right, negate, every=negate)
            case Finite(argument):
                if self.number(argument) is None:
                    return False
                found = self._is_finite(argument)
                return self.bits.invert(found) if negate else found
            case Comparison():
                return self._compared(condition, negate)
        raise UnforeseenError(f"`{condition.risk}` is known once all readings are")

    def number(self, node: Number) -> Foreseen:
        """Return the value of a number: known, not ready, or late."""
        if isinstance(node, Constant):
            return node.value
        if node not in self._numbers:
            self._numbers[node] = self._computed(node)
        return self._numbers[node]

    def known(self, node: Number) -> float | None:
        """Return the value of a number that must be known to the host."""
        found = self.number(node)
        if isinstance(found, Late):
            raise UnforeseenError("a number that the host needs hangs on a present reading")
        return found

    def _joined(self, left: Condition, right: Condition, negate: bool, *, every: bool) -> Bit:
        one = self.fires(left, negate)
        if not isinstance(one, LateTruth) and one != every:
            return one
        other = self.fires(right, negate)
        return self.bits.both(one, other) if every else self.bits.either(one, other)

    def _compared(self, node: Comparison, negate: bool) -> Bit:
        left, right, bits = self.number(node.left), self.number(node.right), self.bits
        if left is None or right is None:
            return False
        unknown = bits.invert(bits.both(self._is_finite(node.left), self._is_finite(node.right)))
        if unknown is True:
            return True
        return bits.either(unknown, bits.compare(closures.OPPOSITE[node.op] if negate else node.op, left, right))

    def _is_finite(self, node: Number) -> Bit:
        if node not in self._finite:
            value = self.number(node)
            assert value is not None
            self._finite[node] = self.bits.finite(value)
        return self._finite[node]

    def _computed(self, node: Number) -> Foreseen:
        match node:
            case Reading(signal):
                return self._reading(signal)
            case Arithmetic(op, left, right):
                one, other = self.number(left), self.number(right)
                return None if one is None or other is None else self.bits.combine(op, one, other)
            case Function(name, argument):
                return self._applied(name, self.number(argument))
            case Statistic(name, argument):
                if name == "zscore":
                    return self._zscore(node)
                return self._trend(node) if node in self.compiled.trends else self.compiled.baselines[node]()
            case RiskReading(risk):
                raise UnforeseenError(f"`{risk}` is known once all readings are")
        return node.value

    def _reading(self, signal: str) -> Foreseen:
        if signal in self.unseen:
            raise UnforeseenError(f"the signal `{signal}` is computed on the host")
        found = self.present.get(signal)
        readings = self.compiled.readings
        return readings.standing(readings.place(signal), self.tick) if found is None else found

    def _applied(self, name: str, value: Foreseen) -> Foreseen:
        if value is None or not isinstance(value, Late):
            return None if value is None else closures.plain(name)(value)
        if name not in ("abs", "neg"):
            raise UnforeseenError(f"`{name}` of a present reading is not the same number on every device")
        return self.operations.apply(name, value)

    # Statistics

    def _zscore(self, node: Statistic) -> Foreseen:
        value, window = self.number(node.argument), self.compiled.ranked[node.argument, node.samples]
        if value is None or not window.ready:
            return None
        if not isinstance(value, Late):
            return window.zscore(value)
        median = window.median()
        score = self.bits.combine("/", self.bits.combine("-", value, median), window.sigma(median))
        return self.bits.choose(self._is_finite(node.argument), score, math.nan)

    def _trend(self, node: Statistic) -> Foreseen:
        trend, sample = self.compiled.trends[node], self.number(node.argument)
        before = trend.value
        if sample is None:
            return before
        after = self._followed(trend, sample) if self._fresh(node.argument) else before
        finite = self._is_finite(node.argument)
        if not isinstance(finite, LateTruth):
            return after if finite else (None if before is None else math.nan)
        if after is None:
            return None
        if before is None:
            raise UnforeseenError(f"`{node.name}` becomes ready in this tick if its sample is finite")
        return self.bits.choose(finite, after, math.nan)

    def _fresh(self, node: Number) -> bool:
        signals = {leaf.signal for leaf in leaves(node) if isinstance(leaf, Reading)}
        if signals & self.unseen:
            raise UnforeseenError("whether a trend has a sample hangs on a signal that is computed on the host")
        return all(self.present.get(signal) is not None for signal in signals)

    def _followed(self, trend: Trend, sample: Late | float) -> Foreseen:
        """Return what a trend reads once it has followed a sample, which counts for finite."""
        if not isinstance(sample, Late):
            return _after(trend, self.tick, sample) if math.isfinite(sample) else None
        if isinstance(trend, Prev):
            return trend.coming
        if isinstance(trend, Ewma):
            return self._moved(trend, sample) if trend.soon else None
        raise UnforeseenError("a slope through a present reading is not the same number on every device")

    def _moved(self, trend: Ewma, sample: Late) -> Late | float:
        """Return the mean that follows a sample, by the very operations of `Ewma`."""
        mean, weight, most = trend.mean, trend.weight, sys.float_info.max
        if mean is None:
            return sample
        bits = self.bits
        moved = bits.combine("+", mean, bits.combine("*", bits.combine("-", sample, mean), weight))
        apart = bits.combine("+", mean * (1 - weight), bits.combine("*", sample, weight))
        raised = bits.choose(bits.compare("<", apart, -most), -most, apart)
        held = bits.choose(bits.compare(">", raised, most), most, raised)
        return bits.choose(bits.finite(moved), moved, held)


def _after(trend: Trend, tick: int, sample: float) -> float | None:
    following = copy.deepcopy(trend)
    following.follow(tick, sample)
    return following.value
