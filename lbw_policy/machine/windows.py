"""Baseline windows: the last accepted samples of a number, and robust statistics of them.

A window never holds a sample that is not finite; the caller sees to it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

from attrs import define, field

from lbw_policy import saved

_TO_SIGMA = 1.4826
_RELATIVE_FLOOR = 1e-3
_ABSOLUTE_FLOOR = 1e-12


def warm_up(samples: int) -> int:
    """Return how many samples a window of the given length needs before it is ready."""
    return min(samples, max(8, samples // 4))


def midpoint(low: float, high: float) -> float:
    """Return the mean of two finite floats, correctly rounded even where their sum overflows."""
    total = low + high
    return total / 2 if math.isfinite(total) else low / 2 + high / 2


@define(eq=False)
class RankedWindow:
    """The last `samples` values, kept in order of arrival and of size: O(log n) reads, one memory move a write."""

    samples: int
    _enough: int = field(init=False)
    _arrived: deque[float] = field(init=False, factory=deque)
    _ranked: list[float] = field(init=False, factory=list)

    @_enough.default
    def _warm_up(self) -> int:
        return warm_up(self.samples)

    @property
    def slots(self) -> int:
        """Return how many floats the window can hold."""
        return 2 * self.samples

    @property
    def ready(self) -> bool:
        """Tell whether the window has its warm-up samples."""
        return len(self._ranked) >= self._enough

    def push(self, value: float) -> None:
        """Admit a finite sample; the oldest leaves a full window."""
        value += 0.0  # INVARIANT: no negative zero, so that equal samples cannot be told apart
        ranked, arrived = self._ranked, self._arrived
        if len(arrived) == self.samples:
            del ranked[bisect_left(ranked, arrived.popleft())]
        arrived.append(value)
        insort(ranked, value)

    def least(self) -> float:
        """Return the smallest sample."""
        return self._ranked[0]

    def greatest(self) -> float:
        """Return the largest sample."""
        return self._ranked[-1]

    def median(self) -> float:
        """Return the median."""
        ranked = self._ranked
        middle, odd = divmod(len(ranked), 2)
        return ranked[middle] if odd else midpoint(ranked[middle - 1], ranked[middle])

    def quantile(self, share: float) -> float:
        """Return the `share` quantile, linear between order statistics."""
        rank = share * (len(self._ranked) - 1)
        below = int(rank)
        low, high = self._ranked[below], self._ranked[math.ceil(rank)]
        step, part = high - low, rank - below
        return min(high, low + step * part if math.isfinite(step) else low * (1 - part) + high * part)

    def relative_range(self) -> float:
        """Return the distance from the least to the greatest sample, over the median's size."""
        return (self.greatest() - self.least()) / max(abs(self.median()), _ABSOLUTE_FLOOR)

    def spread(self, median: float) -> float:
        """Return the median absolute deviation from `median`, which must be the window's own."""
        ranked = self._ranked
        middle, odd = divmod(len(ranked), 2)
        first = self._nearest(median, middle + 1)
        last = first + middle
        left, right = median - ranked[first], ranked[last] - median
        if odd:
            return left if left > right else right
        if left > right:
            return midpoint(max(median - ranked[first + 1], right), left)
        return midpoint(max(left, ranked[last - 1] - median), right)

    def _nearest(self, median: float, count: int) -> int:
        """Return where the run of the `count` samples nearest to `median` begins."""
        ranked = self._ranked
        low, high = 0, len(ranked) - count
        while low < high:
            middle = (low + high) >> 1
            if median - ranked[middle] > ranked[middle + count] - median:
                low = middle + 1
            else:
                high = middle
        return low

    def zscore(self, value: float) -> float:
        """Return how many robust standard deviations `value` lies from the median; NaN if it is not finite.

        Median and 1.4826 MAD as in Leys et al. 2013, "Detecting outliers: do not use standard
        deviation around the mean, use absolute deviation around the median". The floor of
        1e-3 |median| keeps the rounding noise of a constant history from being a surprise.
        """
        if not math.isfinite(value):
            return math.nan
        median = self.median()
        return (value - median) / self.sigma(median)

    def sigma(self, median: float) -> float:
        """Return the robust standard deviation around `median`, which must be the window's own; never zero."""
        return max(_TO_SIGMA * self.spread(median), _RELATIVE_FLOOR * abs(median), _ABSOLUTE_FLOOR)

    def state_dict(self) -> list[float]:
        """Return the samples, oldest first."""
        return list(self._arrived)

    def load_state_dict(self, state: object) -> None:
        """Take the samples of `state_dict()`; raise `StateError` if they do not fit."""
        self._arrived = deque(saved.samples(state, self.samples))
        self._ranked = sorted(self._arrived)


@define(eq=False)
class SummedWindow:
    """The last `samples` values and their exact sums, which neither drift nor drown beside one huge sample.

    Every float is a whole multiple of a power of two, so sums are kept as integers in units of
    `2**-bits`; mean and deviation are rounded once, when they are read.
    """

    samples: int
    _enough: int = field(init=False)
    _arrived: deque[float] = field(init=False, factory=deque)
    _bits: int = field(init=False, default=0)
    _total: int = field(init=False, default=0)
    _squares: int = field(init=False, default=0)

    @_enough.default
    def _warm_up(self) -> int:
        return warm_up(self.samples)

    @property
    def slots(self) -> int:
        """Return how many floats the window can hold."""
        return self.samples

    @property
    def ready(self) -> bool:
        """Tell whether the window has its warm-up samples."""
        return len(self._arrived) >= self._enough

    def push(self, value: float) -> None:
        """Admit a finite sample; the oldest leaves a full window."""
        if len(self._arrived) == self.samples:
            leaving = self._units(self._arrived.popleft())
            self._total -= leaving
            self._squares -= leaving * leaving
        entering = self._units(value)
        self._arrived.append(value)
        self._total += entering
        self._squares += entering * entering

    def _units(self, value: float) -> int:
        numerator, denominator = value.as_integer_ratio()
        bits = denominator.bit_length() - 1
        if bits > self._bits:
            self._refine(bits)
        return numerator << (self._bits - bits)

    def _refine(self, bits: int) -> None:
        self._total <<= bits - self._bits
        self._squares <<= 2 * (bits - self._bits)
        self._bits = bits

    def mean(self) -> float:
        """Return the mean, correctly rounded."""
        return self._total / (len(self._arrived) << self._bits)

    def std(self) -> float:
        """Return the population standard deviation, correctly rounded."""
        count = len(self._arrived)
        return _root(count * self._squares - self._total * self._total, count * count, self._bits)

    def state_dict(self) -> list[float]:
        """Return the samples, oldest first."""
        return list(self._arrived)

    def load_state_dict(self, state: object) -> None:
        """Take the samples of `state_dict()`; raise `StateError` if they do not fit."""
        loaded = saved.samples(state, self.samples)
        self._arrived.clear()
        self._bits = self._total = self._squares = 0
        for sample in loaded:
            self.push(sample)


def _root(numerator: int, denominator: int, bits: int) -> float:
    """Return `sqrt(numerator / denominator) / 2**bits`, correctly rounded.

    The integer root has at least 55 bits and is made odd where it is not exact (rounding to odd,
    Boldo and Melquiond 2008), so the division that follows rounds as if the root were exact.
    """
    extra = (112 + denominator.bit_length() - numerator.bit_length()) // 2
    numerator <<= 2 * max(extra, 0)
    denominator <<= 2 * max(-extra, 0)
    root = math.isqrt(numerator // denominator)
    root |= root * root * denominator != numerator
    shift = bits + extra
    return root / (1 << shift) if shift >= 0 else float(root << -shift)
