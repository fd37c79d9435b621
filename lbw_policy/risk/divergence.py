"""Did the run diverge: the outcome that labels are made of, found from losses alone, as the run goes."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, insort
from collections import deque
from typing import Any

from attrs import Factory, define

from lbw_policy.risk import plain

CALM = 100
"""Calm losses whose median is the reference."""
ENOUGH = 10
"""Calm losses before a crossing can be told; until then only non-finite values are divergence."""
TROUBLE = 100
"""Ticks above the bar after which the new height is taken for the new normal."""
_LARGEST = 1e100


def sustain(horizon: int) -> int:
    """Return how many ticks in a row a loss stays above the bar before it counts as diverged (1 to 5)."""
    return max(1, min(5, horizon // 2))


@define
class Divergence:
    """Follows one run's loss against a bar of its own past.

    Diverged means: a non-finite value, at once; or a loss above
    `ref + max(0.5 (first - ref), 0.5 |ref|)` for `patience` observed ticks in a row, `ref` being the median
    of the last 100 calm losses and `first` that of the first 10. A crossing that heals sooner is no divergence.
    After 100 ticks above the bar the new height becomes the reference, so that no run is in trouble for ever.
    Definition: the corpus in `docs/risk.md`, there with a look ahead of 100 steps, here without any.
    """

    patience: int = 5
    calm: deque[float] = Factory(lambda: deque(maxlen=CALM))
    ordered: list[float] = Factory(list)
    first: float | None = None
    above: int = 0
    diverged: bool = False

    @property
    def troubled(self) -> bool:
        """True while the loss is above the bar or not finite."""
        return self.above > 0 or self.diverged

    @property
    def pending(self) -> bool:
        """True while the bar is crossed, but not long enough to say whether it lasts."""
        return self.above > 0 and not self.diverged

    def observe(self, loss: float | None, finite: bool) -> bool:
        """Take one tick's outcome; True on the tick a divergence is established, once per divergence."""
        before = self.diverged
        if not finite or (loss is not None and not math.isfinite(loss)):
            self.diverged, self.above = True, self.above + 1
        elif loss is not None:
            self._weigh(min(max(loss, -_LARGEST), _LARGEST))
        elif self.first is None:
            self.above, self.diverged = 0, False
        return self.diverged and not before

    def bar(self) -> float | None:
        """Return the loss above which a tick is in trouble, or None before there is a reference."""
        if self.first is None:
            return None
        middle = len(self.ordered) // 2
        reference = self.ordered[middle]
        return reference + max(0.5 * (self.first - reference), 0.5 * abs(reference))

    def _weigh(self, loss: float) -> None:
        bar = self.bar()
        if bar is None or loss <= bar:
            self.above, self.diverged = 0, False
            self._learn(loss)
            return
        self.above += 1
        self.diverged = self.diverged or self.above >= self.patience
        if self.above >= TROUBLE:
            self._forget()

    def _learn(self, loss: float) -> None:
        if len(self.calm) == CALM:
            del self.ordered[bisect_left(self.ordered, self.calm[0])]
        self.calm.append(loss)
        insort(self.ordered, loss)
        if self.first is None and len(self.calm) >= ENOUGH:
            self.first = statistics.median(self.calm)

    def _forget(self) -> None:
        self.calm.clear()
        self.ordered.clear()
        self.first, self.above, self.diverged = None, 0, False

    def state_dict(self) -> dict[str, Any]:
        """Return the calm losses and the present trouble as plain data."""
        return {"calm": list(self.calm), "first": self.first, "above": self.above, "diverged": self.diverged}

    def load_state_dict(self, state: object) -> None:
        """Take over a saved outcome stream; raise `StateError` where it is damaged."""
        calm = plain.numbers(state, "calm")[-CALM:]
        self.first = plain.optional_number(state, "first") if calm else None
        self.calm, self.ordered = deque(calm, maxlen=CALM), sorted(calm)
        self.above, self.diverged = plain.whole(state, "above"), plain.truth(state, "diverged")
