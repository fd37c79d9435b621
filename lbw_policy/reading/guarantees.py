"""What follows from a policy's limits: the most it can ever do to a run."""

from __future__ import annotations

import math
from typing import Any

from attrs import asdict, frozen

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Statistic
from lbw_policy.semantics.walk import conditions_of, numbers_of, parts


@frozen
class Guarantees:
    """Bounds that hold for every run, whatever the telemetry says.

    `window` is the number of steps that `most_skipped`, `most_rollbacks` and `least_progress`
    speak of; the last is the least net gain of accepted updates as a share of the window, 0 where
    the budgets promise none. `most_frozen` is a share of layers, `window_samples` a count.
    """

    lowest_lr_factor: float
    window: int
    most_skipped: int
    most_rollbacks: int
    least_progress: float
    most_frozen: float
    window_samples: int

    def as_dict(self) -> dict[str, Any]:
        """Return the bounds as plain data."""
        return asdict(self)


def guarantees(policy: p.Policy) -> Guarantees:
    """Return what a policy's limits guarantee."""
    limits = policy.limits
    window = _window(limits)
    skips, rollbacks = _most_skipped(limits, window), _most_rollbacks(limits, window)
    return Guarantees(
        lowest_lr_factor=limits.scale_lr.low if limits.scale_lr else 1.0,
        window=window,
        most_skipped=skips,
        most_rollbacks=rollbacks,
        least_progress=max(0, window - _most_lost(limits, window)) / window,
        most_frozen=limits.freeze.share if limits.freeze else 0.0,
        window_samples=sum(part.samples for part in _statistics(policy)),
    )


def _statistics(policy: p.Policy) -> list[Statistic]:
    return [part for part in parts(*conditions_of(policy), *numbers_of(policy)) if isinstance(part, Statistic)]


def _window(limits: p.Limits) -> int:
    budgets = [limits.rollback and limits.rollback.budget, limits.skip and limits.skip.budget, limits.intervene]
    return next((budget.window for budget in budgets if budget), 1_000)


def most(budget: p.Budget | None, window: int) -> int:
    """Return how many events a budget allows in any `window` steps in a row."""
    return window if budget is None else min(window, budget.count * math.ceil(window / budget.window))


def _most_skipped(limits: p.Limits, window: int) -> int:
    if limits.skip is None:
        return 0
    # Every `in_a_row + 1` steps hold one that is not skipped.
    by_row = window - window // (limits.skip.in_a_row + 1)
    return min(by_row, most(limits.skip.budget, window), most(limits.intervene, window))


def _most_rollbacks(limits: p.Limits, window: int) -> int:
    return min(most(limits.rollback.budget, window), most(limits.intervene, window)) if limits.rollback else 0


def _most_lost(limits: p.Limits, window: int) -> int:
    """Return the most updates that skips and rollbacks can cost in any `window` steps.

    A skip costs its step. A rollback costs its step and, because distance counts from the highest
    progress ever, no more than the limit's distance, however many follow one another.
    """
    rollbacks = _most_rollbacks(limits, window)
    skips = min(_most_skipped(limits, window), most(limits.intervene, window) - rollbacks)
    return skips + rollbacks * (1 + (limits.rollback.distance if limits.rollback else 0))
