"""Trends: statistics that follow every fresh finite sample, the present one too."""

from __future__ import annotations

import math
import sys
from collections import deque

from attrs import define, field

from lbw_policy import saved
from lbw_policy.machine.windows import warm_up


@define(eq=False)
class Ewma:
    """An exponentially weighted mean with weight `2 / (samples + 1)`, started at the first sample."""

    samples: int
    _enough: int = field(init=False)
    value: float | None = field(init=False, default=None)
    _mean: float = field(init=False, default=0.0)
    _seen: int = field(init=False, default=0)

    @_enough.default
    def _warm_up(self) -> int:
        return warm_up(self.samples)

    @property
    def slots(self) -> int:
        """Return how many floats the trend can hold."""
        return 1

    def follow(self, _tick: int, sample: float) -> None:
        """Take in a finite sample; `value` is the new mean, or None before the warm-up."""
        self._mean = self._moved(sample) if self._seen else sample
        self._seen = min(self._seen + 1, self._enough)
        self._read()

    @property
    def weight(self) -> float:
        """The share of a new sample in the mean."""
        return 2 / (self.samples + 1)

    @property
    def mean(self) -> float | None:
        """The mean of the samples so far, ready or not; None before the first one."""
        return self._mean if self._seen else None

    @property
    def soon(self) -> bool:
        """Whether `value` is ready after one more sample."""
        return self._seen + 1 >= self._enough

    def _moved(self, sample: float) -> float:
        weight = self.weight
        moved = self._mean + (sample - self._mean) * weight
        if math.isfinite(moved):
            return moved
        apart = self._mean * (1 - weight) + sample * weight
        return min(max(apart, -sys.float_info.max), sys.float_info.max)

    def _read(self) -> None:
        self.value = self._mean if self._seen >= self._enough else None

    def state_dict(self) -> list[float]:
        """Return the mean and the number of samples seen, counted no further than the warm-up."""
        return [self._mean, self._seen]

    def load_state_dict(self, state: object) -> None:
        """Take the numbers of `state_dict()`; raise `StateError` if they do not fit."""
        mean, seen = saved.exactly(state, 2)
        self._mean, self._seen = saved.finite(mean), saved.within(seen, self._enough)
        self._read()


@define(eq=False)
class Slope:
    """The least-squares slope per tick over the last `samples` samples, from exact sums.

    Values are counted in units of `2**-bits`, ticks as they are; the slope is rounded once.
    """

    samples: int
    _enough: int = field(init=False)
    value: float | None = field(init=False, default=None)
    _points: deque[tuple[int, float]] = field(init=False, factory=deque)
    _bits: int = field(init=False, default=0)
    _ticks: int = field(init=False, default=0)
    _tick_squares: int = field(init=False, default=0)
    _total: int = field(init=False, default=0)
    _products: int = field(init=False, default=0)

    @_enough.default
    def _warm_up(self) -> int:
        return warm_up(self.samples)

    @property
    def slots(self) -> int:
        """Return how many floats the trend can hold."""
        return 2 * self.samples

    def follow(self, tick: int, sample: float) -> None:
        """Take in a finite sample; `value` is the new slope, or None before the warm-up."""
        self._push(tick, sample)
        self._read()

    def _push(self, tick: int, sample: float) -> None:
        if len(self._points) == self.samples:
            self._count(*self._points.popleft(), -1)
        self._points.append((tick, sample))
        self._count(tick, sample, 1)

    def _count(self, tick: int, sample: float, sign: int) -> None:
        numerator, denominator = sample.as_integer_ratio()
        bits = denominator.bit_length() - 1
        if bits > self._bits:
            self._refine(bits)
        units = sign * numerator << (self._bits - bits)
        self._ticks += sign * tick
        self._tick_squares += sign * tick * tick
        self._total += units
        self._products += units * tick

    def _refine(self, bits: int) -> None:
        self._total <<= bits - self._bits
        self._products <<= bits - self._bits
        self._bits = bits

    def _read(self) -> None:
        count = len(self._points)
        spread = count * self._tick_squares - self._ticks * self._ticks
        if count < self._enough or not spread:
            self.value = None
            return
        rise = count * self._products - self._ticks * self._total
        try:
            self.value = rise / (spread << self._bits)
        except OverflowError:
            self.value = math.inf if rise > 0 else -math.inf

    def state_dict(self) -> list[list[float]]:
        """Return the samples, oldest first, each as its tick and its value."""
        return [[tick, sample] for tick, sample in self._points]

    def load_state_dict(self, state: object) -> None:
        """Take the samples of `state_dict()`; raise `StateError` if they do not fit."""
        pairs = [saved.exactly(point, 2) for point in saved.items(state, self.samples)]
        points = [(saved.whole(tick), saved.finite(sample)) for tick, sample in pairs]
        self._points.clear()
        self._bits = self._ticks = self._tick_squares = self._total = self._products = 0
        for tick, sample in points:
            self._push(tick, sample)
        self._read()


@define(eq=False)
class Prev:
    """The value `samples` samples ago."""

    samples: int
    value: float | None = field(init=False, default=None)
    _arrived: deque[float] = field(init=False, factory=deque)

    @property
    def slots(self) -> int:
        """Return how many floats the trend can hold."""
        return self.samples + 1

    def follow(self, _tick: int, sample: float) -> None:
        """Take in a finite sample; `value` is the one `samples` before it, or None if there is none."""
        if len(self._arrived) > self.samples:
            self._arrived.popleft()
        self._arrived.append(sample)
        self._read()

    @property
    def coming(self) -> float | None:
        """What `value` is after one more sample, whatever that is."""
        missing = self.samples - len(self._arrived)
        return None if missing > 0 else self._arrived[-missing]

    def _read(self) -> None:
        self.value = self._arrived[0] if len(self._arrived) > self.samples else None

    def state_dict(self) -> list[float]:
        """Return the samples, oldest first."""
        return list(self._arrived)

    def load_state_dict(self, state: object) -> None:
        """Take the samples of `state_dict()`; raise `StateError` if they do not fit."""
        self._arrived = deque(saved.samples(state, self.samples + 1))
        self._read()


@define(eq=False)
class Total:
    """The sum of the last `samples` samples; those that are zero take no memory."""

    samples: int
    value: float | None = field(init=False, default=None)
    _seen: int = field(init=False, default=0)
    _parts: deque[tuple[int, float]] = field(init=False, factory=deque)

    @property
    def slots(self) -> int:
        """Return how many floats the trend can hold."""
        return self.samples

    def follow(self, _tick: int, sample: float) -> None:
        """Take in a finite sample; `value` is the sum over the window, ready from the first sample on."""
        self._seen += 1
        if sample:
            self._parts.append((self._seen, sample))
        while self._parts and self._parts[0][0] <= self._seen - self.samples:
            self._parts.popleft()
        self._read()

    def _read(self) -> None:
        try:
            self.value = math.fsum(sample for _, sample in self._parts) if self._seen else None
        except OverflowError:
            self.value = math.inf

    def state_dict(self) -> list[object]:
        """Return how many samples were seen, up to the window, and age and value of those that are not zero."""
        return [min(self._seen, self.samples), [[self._seen - place, sample] for place, sample in self._parts]]

    def load_state_dict(self, state: object) -> None:
        """Take the numbers of `state_dict()`; raise `StateError` if they do not fit."""
        seen, parts = saved.exactly(state, 2)
        pairs = [saved.exactly(part, 2) for part in saved.items(parts, self.samples)]
        self._seen = now = saved.within(seen, self.samples)
        self._parts = deque((now - saved.within(age, max(now - 1, 0)), saved.finite(sample)) for age, sample in pairs)
        self._read()


Trend = Ewma | Slope | Prev | Total
TRENDS: dict[str, type[Ewma] | type[Slope] | type[Prev] | type[Total]] = {
    "ewma": Ewma,
    "slope": Slope,
    "prev": Prev,
    "rate": Total,
}
