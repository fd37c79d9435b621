"""Running statistics of one reading that no value can poison."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

from attrs import Factory, define, field

from lbw_policy.errors import StateError
from lbw_policy.risk import plain

WARM = 16
"""Readings before a track judges; their median and MAD start its baseline."""
BOUND = 8.0
"""No feature leaves `[-BOUND, BOUND]`."""
_SLOW, _FAST = 0.02, 0.2
_HELD = 3.0
LARGEST = 1e100
"""Readings are clamped to this, so that their squares are finite."""
_NEAR = 2900.0
"""What lies below is not clipped by compressing: log(1 + 2_900) < 8."""


def bounded(value: float) -> float:
    """Clip to `[-BOUND, BOUND]`; NaN becomes 0."""
    if -BOUND <= value <= BOUND:
        return value
    return BOUND if value > BOUND else -BOUND if value < -BOUND else 0.0


def compressed(value: float) -> float:
    """Return `sign(v) log(1 + |v|)` clipped to `[-BOUND, BOUND]`: linear near 0, 8 from about 3_000 on."""
    if -_NEAR < value < _NEAR:
        return math.copysign(math.log1p(abs(value)), value)
    return bounded(math.copysign(math.log1p(abs(value)), value))


def usable(value: float | None) -> float | None:
    """Return the reading clamped to +-1e100, so that its square is finite, or None where it is NaN or infinite."""
    if value is None:
        return None
    if -LARGEST <= value <= LARGEST:
        return float(value)
    if not math.isfinite(value):
        return None
    return min(max(float(value), -LARGEST), LARGEST)


@define
class Past:
    """The last values of a stream, oldest first, at most `length`."""

    length: int
    values: deque[float] = field(default=Factory(lambda self: deque(maxlen=self.length), takes_self=True))

    @property
    def oldest(self) -> float:
        """The oldest value that is kept."""
        return self.values[0]

    @property
    def mean(self) -> float:
        """Their mean."""
        return sum(self.values) / len(self.values)

    def push(self, value: float) -> None:
        """Append a finite value."""
        self.values.append(value)

    def state_dict(self) -> dict[str, Any]:
        """Return the values as plain data."""
        return {"values": list(self.values)}

    def load_state_dict(self, state: object) -> None:
        """Take over saved values; raise `StateError` where they are damaged."""
        self.values = deque(plain.numbers(state, "values"), maxlen=self.length)


@define
class Faded:
    """An exponentially weighted mean of a bounded stream; the first value starts it."""

    rate: float
    value: float | None = None

    def push(self, value: float) -> float:
        """Take in a finite value and return the mean."""
        self.value = value if self.value is None else self.value + self.rate * (value - self.value)
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """Return the mean as plain data."""
        return {"value": self.value}

    def load_state_dict(self, state: object) -> None:
        """Take over a saved mean; raise `StateError` where it is damaged."""
        self.value = plain.optional_number(state, "value")


@define
class Track:
    """A winsorised exponentially weighted mean and variance, with a fast mean beside them.

    A reading counts at most 3 spreads from the mean, so one reading moves the mean by at most 0.06 spreads
    and the variance by at most a factor 1.16: nothing poisons it, and a lasting change is still learned.
    The spread never falls below `relative * |mean|` nor below `absolute`. `surprise` and `trend` tell how far the
    last judged reading lay from the baseline before it: both scale-free, both within +-BOUND.
    """

    relative: float = 0.0
    absolute: float = 0.02
    early: list[float] = Factory(list)
    warm: bool = False
    mean: float = 0.0
    variance: float = 0.0
    fast: float = 0.0
    _z: float = 0.0
    _lead: float = 0.0

    @property
    def surprise(self) -> float:
        """The compressed z-score."""
        return compressed(self._z)

    @property
    def trend(self) -> float:
        """The compressed z-score of a fast mean against the slow one."""
        return compressed(self._lead)

    def push(self, value: float) -> bool:
        """Judge a finite reading against those before it, then learn it; False while warming up."""
        if not self.warm:
            self._begin(value)
            return False
        mean, spread = self.mean, self.spread()
        z = self._z = (value - mean) / spread
        held = _HELD if z > _HELD else -_HELD if z < -_HELD else z
        near = BOUND if z > BOUND else -BOUND if z < -BOUND else z
        fast = self.fast
        fast = self.fast = fast + _FAST * (mean + near * spread - fast)
        self._lead = (fast - mean) / spread
        self.mean = mean + _SLOW * held * spread
        step = held * spread
        self.variance += _SLOW * (step * step - self.variance)
        return True

    def spread(self) -> float:
        """Return the present standard deviation, never below the floors."""
        spread = math.sqrt(self.variance)
        if self.relative:
            spread = max(spread, self.relative * abs(self.mean))
        return spread if spread > self.absolute else self.absolute

    def _begin(self, value: float) -> None:
        self.early.append(value)
        if len(self.early) >= WARM:
            self.mean = self.fast = statistics.median(self.early)
            spread = 1.4826 * statistics.median(abs(each - self.mean) for each in self.early)
            self.variance = spread * spread
            self.warm, self.early = True, []

    def state_dict(self) -> dict[str, Any]:
        """Return the baseline as plain data."""
        moments = [self.mean, self.variance, self.fast]
        return {"early": list(self.early), "warm": self.warm, "moments": moments}

    def load_state_dict(self, state: object) -> None:
        """Take over a saved baseline; raise `StateError` where it is damaged."""
        moments, early = plain.numbers(state, "moments"), plain.numbers(state, "early")
        sane = len(moments) == 3 and len(early) < WARM and moments[1] >= 0.0
        if not sane or max(abs(each) for each in (*moments, *early)) > 1e250:
            message = f"risk state: expected a baseline's three moments, found {moments}"
            raise StateError(message)
        self.early, self.warm = early, plain.truth(state, "warm")
        self.mean, self.variance, self.fast = moments
