"""How high the loss stands on the way from the best it has been to where a run counts as diverged."""

from __future__ import annotations

from typing import Any

from attrs import Factory, define

from lbw_policy.risk import plain
from lbw_policy.risk.running import BOUND, Past

_QUICK, _SLOW = 0.3, 0.1
_LOW_OF, _SHORT, _LONG = 3, 6, 21
_LEAST = 1e-12


@define
class Height:
    """The loss over its lowest slow mean, in units of the rise that counts as divergence: 1 is that rise.

    The rise is `max(0.5 (first - lowest), 0.5 |lowest|)`, as in `risk.divergence`, with the lowest slow mean in place
    of the median of calm losses: it does not creep along with a loss that creeps up. `now` is that of this tick's
    loss, `low` the lowest of the last 3, `mean` that of a quick mean; `climb` and `climb_long` are how much `mean` has
    risen in 5 and in 20 ticks. All are within +-BOUND.
    """

    first: float | None = None
    lowest: float = 0.0
    quick: float = 0.0
    slow: float = 0.0
    count: int = 0
    recent: Past = Factory(lambda: Past(_LOW_OF))
    short: Past = Factory(lambda: Past(_SHORT))
    long: Past = Factory(lambda: Past(_LONG))
    now: float = 0.0
    mean: float = 0.0

    @property
    def low(self) -> float:
        """The lowest height of the last 3 ticks."""
        return min(self.recent.values)

    @property
    def climb(self) -> float:
        """How much the quick mean has risen in 5 ticks."""
        return _within(self.mean - self.short.oldest)

    @property
    def climb_long(self) -> float:
        """How much the quick mean has risen in 20 ticks."""
        return _within(self.mean - self.long.oldest)

    def push(self, loss: float) -> None:
        """Take in a finite loss."""
        if self.first is None:
            self.first = self.lowest = self.quick = self.slow = loss
        rise = self._rise()
        # INVARIANT: one loss counts at most 8 rises, so that it cannot poison the means.
        held = self.lowest + rise * _within((loss - self.lowest) / rise)
        self.count += 1
        self.quick += _QUICK * (held - self.quick)
        self.slow += max(_SLOW, 1.0 / self.count) * (held - self.slow)
        self.lowest = min(self.lowest, self.slow)
        rise = self._rise()
        self.now, self.mean = _within((loss - self.lowest) / rise), _within((self.quick - self.lowest) / rise)
        self.recent.push(self.now)
        self.short.push(self.mean)
        self.long.push(self.mean)

    def _rise(self) -> float:
        first = self.lowest if self.first is None else self.first
        return max(0.5 * (first - self.lowest), 0.5 * abs(self.lowest), _LEAST)

    def state_dict(self) -> dict[str, Any]:
        """Return the marks and the last heights as plain data."""
        return {
            "first": self.first,
            "marks": [self.lowest, self.quick, self.slow],
            "count": self.count,
            "recent": self.recent.state_dict(),
            "short": self.short.state_dict(),
            "long": self.long.state_dict(),
            "heights": [self.now, self.mean],
        }

    def load_state_dict(self, state: object) -> None:
        """Take over saved marks; raise `StateError` where they are damaged."""
        self.first, self.count = plain.optional_number(state, "first"), plain.natural(state, "count")
        self.lowest, self.quick, self.slow = plain.exactly(state, "marks", 3)
        self.now, self.mean = plain.exactly(state, "heights", 2)
        for name in ("recent", "short", "long"):
            getattr(self, name).load_state_dict(plain.entry(state, name))


def _within(value: float) -> float:
    return value if -BOUND <= value <= BOUND else BOUND if value > 0.0 else -BOUND
