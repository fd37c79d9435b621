"""Running statistics of one reading that no value can poison."""

from __future__ import annotations

import math
import statistics
from typing import Any

from attrs import Factory, define, frozen

from lbw_policy.errors import StateError
from lbw_policy.risk import plain

WARM = 16
"""Readings before a track judges; their median and MAD start its baseline."""
BOUND = 8.0
"""No feature leaves `[-BOUND, BOUND]`."""
_SLOW, _FAST = 0.02, 0.2
_HELD = 3.0
_SLACK, _CEILING = 0.5, 50.0
_LARGEST = 1e100


def bounded(value: float) -> float:
    """Clip to `[-BOUND, BOUND]`; NaN becomes 0."""
    if -BOUND <= value <= BOUND:
        return value
    return BOUND if value > BOUND else -BOUND if value < -BOUND else 0.0


def compressed(value: float) -> float:
    """Return `sign(v) log(1 + |v|)` clipped to `[-BOUND, BOUND]`: linear near 0, 8 from about 3_000 on."""
    return bounded(math.copysign(math.log1p(abs(value)), value))


def usable(value: float | None) -> float | None:
    """Return the reading clamped to +-1e100, so that its square is finite, or None where it is NaN or infinite."""
    if value is None or not math.isfinite(value):
        return None
    return min(max(float(value), -_LARGEST), _LARGEST)


@frozen
class Deviation:
    """How far one reading lies from the baseline before it: all scale-free, all within +-BOUND.

    `surprise` is the compressed z-score, `trend` that of a fast mean against the slow one, `creep` the
    log of an upward cusum of z (Page 1954, slack 0.5), `gap` the plain difference from the baseline.
    """

    surprise: float
    trend: float
    creep: float
    gap: float


@define
class Track:
    """A winsorised exponentially weighted mean and variance, with a fast mean and a cusum beside them.

    A reading counts at most 3 spreads from the mean, so one reading moves the mean by at most 0.06 spreads
    and the variance by at most a factor 1.16: nothing poisons it, and a lasting change is still learned.
    The spread never falls below `relative * |mean|` nor below `absolute`.
    """

    relative: float = 0.0
    absolute: float = 0.02
    early: list[float] = Factory(list)
    warm: bool = False
    mean: float = 0.0
    variance: float = 0.0
    fast: float = 0.0
    climb: float = 0.0

    def push(self, value: float) -> Deviation | None:
        """Judge a finite reading against those before it, then learn it; None while warming up."""
        if not self.warm:
            self._begin(value)
            return None
        spread = self.spread()
        z = (value - self.mean) / spread
        held = _HELD if z > _HELD else -_HELD if z < -_HELD else z
        near = BOUND if z > BOUND else -BOUND if z < -BOUND else z
        gap = value - self.mean
        self.fast += _FAST * (self.mean + near * spread - self.fast)
        trend = (self.fast - self.mean) / spread
        self.climb = min(max(self.climb + held - _SLACK, 0.0), _CEILING)
        self.mean += _SLOW * held * spread
        step = held * spread
        self.variance += _SLOW * (step * step - self.variance)
        return Deviation(compressed(z), compressed(trend), math.log1p(self.climb), bounded(gap))

    def spread(self) -> float:
        """Return the present standard deviation, never below the floors."""
        return max(math.sqrt(self.variance), self.relative * abs(self.mean), self.absolute)

    def _begin(self, value: float) -> None:
        self.early.append(value)
        if len(self.early) >= WARM:
            self.mean = self.fast = statistics.median(self.early)
            spread = 1.4826 * statistics.median(abs(each - self.mean) for each in self.early)
            self.variance = spread * spread
            self.warm, self.early = True, []

    def state_dict(self) -> dict[str, Any]:
        """Return the baseline as plain data."""
        moments = [self.mean, self.variance, self.fast, self.climb]
        return {"early": list(self.early), "warm": self.warm, "moments": moments}

    def load_state_dict(self, state: object) -> None:
        """Take over a saved baseline; raise `StateError` where it is damaged."""
        moments, early = plain.numbers(state, "moments"), plain.numbers(state, "early")
        sane = len(moments) == 4 and len(early) < WARM and min(moments[1], moments[3]) >= 0.0
        if not sane or max(abs(each) for each in (*moments, *early)) > 1e250:
            message = f"risk state: expected a baseline's four moments, found {moments}"
            raise StateError(message)
        self.early, self.warm = early, plain.truth(state, "warm")
        self.mean, self.variance, self.fast, self.climb = moments
