"""Forgetting the optimizer's moments."""

from __future__ import annotations

from torch.optim import Optimizer


def reset_moments(optimizer: Optimizer) -> None:
    """Drop all per-parameter state, so that the next step starts as the first of a run does.

    Dropping is right for every optimizer, also for those whose state does not start at zero
    (Adagrad's accumulator, NAdam's product); bias correction starts anew with it.
    """
    optimizer.state.clear()
