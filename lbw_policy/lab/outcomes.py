"""Did an unguarded run diverge, and when: the label of a recorded run, with hindsight."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

from attrs import define, field, frozen

CALM = 100
"""Losses whose median is the reference."""
ENOUGH = 10
"""Losses before there is a reference."""
AHEAD = 100
"""Steps after a crossing at whose end it is seen whether it lasts."""
LEAST_AHEAD = 30
"""A crossing with fewer steps after it is not judged."""
_LASTING = 10


@frozen
class Outcome:
    """What became of a run: `diverged_at` is the step of its divergence, if there was one.

    `healed` tells of a run that did not diverge that its loss crossed the bar and came back. `undecided` is a
    crossing that began too late to be judged.
    """

    diverged_at: int | None = None
    healed: bool = False
    undecided: int | None = None


def outcome(losses: Sequence[float], start: int | None = None, planned: int | None = None) -> Outcome:
    """Return what became of a run with these losses and a fault at step `start` (None: there was none).

    A run diverges at the first step whose loss is not finite, or is above `ref + max(0.5 (L0 - ref), 0.5 |ref|)` and
    stays there: so are the median of the ten losses from it on and that of the last ten of the next 100 steps, of
    which at least 30 must be there. L0 is the first loss, ref the median of the last 100 losses before the fault;
    where there are fewer than ten of those, of the last 100 below the bar. What is behind the `planned` length is
    looked at only to judge what began before. Definition: that of the corpus in
    `docs/risk.md`; `risk.divergence` is its online form, without hindsight.
    """
    bars = _bars(losses, start)
    crossings = [step for step, bar in enumerate(bars) if losses[step] > bar or not math.isfinite(losses[step])]
    known = set(crossings)
    begun = [step for step in crossings if step - 1 not in known and step < (planned or len(losses))]
    for step in begun:
        if not math.isfinite(losses[step]):
            return Outcome(diverged_at=step)
        stays = _high(losses[step : step + _LASTING], bars[step])
        later = losses[step + 1 : step + 1 + AHEAD]
        if stays and _high(later[-_LASTING:], bars[step]):
            enough = len(later) >= LEAST_AHEAD
            return Outcome(diverged_at=step) if enough else Outcome(undecided=step)
    return Outcome(healed=bool(begun))


def _high(losses: Sequence[float], bar: float) -> bool:
    """Tell whether the median is above the bar; what is not finite is, and so is nothing at all."""
    ranked = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return not ranked or statistics.median(ranked) > bar


def _bars(losses: Sequence[float], start: int | None) -> list[float]:
    """Return, for each step, the loss above which it is in trouble; infinite where there is no reference yet."""
    fixed = start if start is not None and start >= ENOUGH else len(losses)
    bars, reference = list[float](), _Reference()
    for step, loss in enumerate(losses):
        bars.append(_bar(losses[0], reference.median) if step <= fixed else bars[-1])
        if step < fixed and loss <= bars[-1]:
            reference.add(loss)
    return bars


def _bar(first: float, reference: float | None) -> float:
    return math.inf if reference is None else reference + max(0.5 * (first - reference), 0.5 * abs(reference))


@define
class _Reference:
    """The median of the last losses that were below the bar."""

    calm: deque[float] = field(factory=lambda: deque(maxlen=CALM))
    ordered: list[float] = field(factory=list)

    @property
    def median(self) -> float | None:
        return statistics.median(self.ordered) if len(self.ordered) >= ENOUGH else None

    def add(self, loss: float) -> None:
        if len(self.calm) == CALM:
            del self.ordered[bisect_left(self.ordered, self.calm[0])]
        self.calm.append(loss)
        insort(self.ordered, loss)
