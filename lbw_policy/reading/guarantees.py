"""What follows from a policy's limits: the most it can ever do to a run."""

from __future__ import annotations

from typing import Any

from attrs import asdict, frozen

from lbw_policy.authority.allowance import Allowance
from lbw_policy.authority.memory import memory
from lbw_policy.semantics import policy as p


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
    """Return what a policy's limits guarantee, of every action that they allow."""
    limits, allowed = policy.limits, Allowance(policy.limits, frozenset({"skip", "rollback"}))
    window = _window(limits)
    return Guarantees(
        lowest_lr_factor=limits.scale_lr.low if limits.scale_lr else 1.0,
        window=window,
        most_skipped=allowed.skips(window),
        most_rollbacks=allowed.rollbacks(window),
        least_progress=max(0, window - allowed.lost(window)) / window,
        most_frozen=limits.freeze.share if limits.freeze else 0.0,
        window_samples=memory(policy).samples,
    )


def _window(limits: p.Limits) -> int:
    budgets = [limits.rollback and limits.rollback.budget, limits.skip and limits.skip.budget, limits.intervene]
    return next((budget.window for budget in budgets if budget), 1_000)
