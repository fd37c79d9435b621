"""Counts events in a sliding window of ticks, and clamps numbers without letting NaN through."""

from __future__ import annotations

from collections import deque

from attrs import define, field

from lbw_policy import saved
from lbw_policy.errors import StateError
from lbw_policy.semantics.policy import Budget


@define
class SlidingBudget:
    """Allows at most `budget.count` events in any `budget.window` ticks in a row.

    It remembers the last `count` events only, so its memory does not grow with the run.
    """

    budget: Budget
    _ticks: deque[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ticks = deque(maxlen=self.budget.count)

    def left(self, tick: int) -> int:
        """Return how many more events this tick may have."""
        since = tick - self.budget.window
        return self.budget.count - sum(1 for event in self._ticks if event > since)

    def allows(self, tick: int) -> bool:
        """Tell whether one more event may happen at this tick."""
        # INVARIANT: ticks never decrease, so the oldest kept event leaves the window first.
        return len(self._ticks) < self.budget.count or self._ticks[0] <= tick - self.budget.window

    def spend(self, tick: int) -> None:
        """Record one event at this tick."""
        self._ticks.append(tick)

    def state(self) -> list[int]:
        """Return the remembered ticks, oldest first."""
        return list(self._ticks)

    def restore(self, ticks: object) -> None:
        """Take over saved ticks; raises StateError unless they are ordered whole numbers."""
        found = [saved.natural(tick) for tick in saved.items(ticks, self.budget.count)]
        if sorted(found) != found:
            raise StateError("expected the ticks of a saved budget in order")
        self._ticks = deque(found, maxlen=self.budget.count)


def clamp(value: float, low: float, high: float) -> float:
    """Return the value held to [low, high]; NaN gives `low`, the conservative end."""
    # The usual min/max forms let NaN through or fail open.
    return value if low <= value <= high else (high if value > high else low)
