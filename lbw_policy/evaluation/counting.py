"""Alarms counted as events: false ones against a budget, and divergences caught before they happen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from attrs import frozen

from lbw_policy.evaluation.examples import Example, Floats, Truths
from lbw_policy.risk.alarm import REFRACTORY

NEVER = -1e9
"""The score of a step at which nobody is asked."""
ALWAYS = 1e9
"""The score of a step at which the hard rule answers."""


@frozen(eq=False)
class Scored:
    """A run and a score for each of its steps; an alarm stands where the score is above a threshold."""

    example: Example
    scores: Floats

    def minus(self, threshold: float) -> Scored:
        """Return the scores as seen from a threshold, so that those of several folds can be pooled at 0."""
        known = (self.scores > NEVER) & (self.scores < ALWAYS)
        return Scored(self.example, np.where(known, self.scores - threshold, self.scores))


def alarms(above: Truths, where: Truths) -> int:
    """Count alarms that begin in some steps; after one has begun anywhere, the next begins 25 steps later at least."""
    count, last = 0, -REFRACTORY
    for step in np.flatnonzero(above):
        if step - last >= REFRACTORY:
            last = int(step)
            count += bool(where[step])
    return count


def false_rate(runs: Sequence[Scored], threshold: float, *, healing: bool = False) -> float:
    """Return the alarms per 1_000 calm steps; with `healing`, per 1_000 steps after faults that healed."""
    count = steps = 0
    for each in runs:
        where = each.example.healing if healing else each.example.calm
        count += alarms(each.scores > threshold, where) if where.any() else 0
        steps += int(where.sum())
    return 1000.0 * count / steps if steps else 0.0


def threshold_for(runs: Sequence[Scored], budget: float) -> float:
    """Return the lowest threshold with at most `budget` alarms per 1_000 calm steps."""
    scores = [each.scores[each.example.calm] for each in runs]
    known = np.unique(np.concatenate(scores)) if scores else np.array([])
    known = known[(known > NEVER) & (known < ALWAYS)]
    low, high = 0, len(known) - 1
    if high < 0:
        return 0.0
    while low < high:
        middle = (low + high) // 2
        if false_rate(runs, float(known[middle])) <= budget:
            high = middle
        else:
            low = middle + 1
    return float(known[low])


@frozen
class Caught:
    """One divergence: how many steps its fault left, and how many steps before it an alarm stood first, None never."""

    available: int
    lead: int | None


def caught(each: Scored, threshold: float) -> Caught | None:
    """Return how early a run's divergence was foreseen after its fault; None where the run did not diverge."""
    run = each.example.run
    if run.diverged_at is None:
        return None
    start = run.start or 0
    above = np.flatnonzero(each.scores[start : run.diverged_at] > threshold)
    available = run.diverged_at - start
    return Caught(available, int(available - above[0]) if len(above) else None)


@frozen
class Detection:
    """Of all divergences, the share caught; of those that leave at least 1 and 3 steps; and the lead's quartiles."""

    divergences: int
    leaving_1: int
    leaving_3: int
    all: float
    least_1: float
    least_3: float
    lead: tuple[float, float, float] | None
    false: float
    healing: float

    @classmethod
    def of(cls, runs: Sequence[Scored], threshold: float) -> Detection:
        """Count what a threshold catches, and what it costs."""
        found = [one for one in (caught(each, threshold) for each in runs) if one]
        leads = [one.lead for one in found if one.lead is not None]
        low, middle, high = np.percentile(leads, (25, 50, 75)) if leads else (0.0, 0.0, 0.0)
        return cls(
            divergences=len(found),
            leaving_1=sum(one.available >= 1 for one in found),
            leaving_3=sum(one.available >= 3 for one in found),
            all=_share(found, 0),
            least_1=_share(found, 1),
            least_3=_share(found, 3),
            lead=(float(middle), float(low), float(high)) if leads else None,
            false=false_rate(runs, threshold),
            healing=false_rate(runs, threshold, healing=True),
        )


def _share(found: Iterable[Caught], least: int) -> float:
    leads = [one.lead is not None for one in found if one.available >= least]
    return float(np.mean(leads)) if leads else float("nan")
