"""Forgetting the optimizer's moments."""

from __future__ import annotations

import torch
from torch.optim import SGD, Optimizer


def reset_moments(optimizer: Optimizer) -> None:
    """Drop all per-parameter state, so that the next step starts as the first of a run does.

    Dropping is right for every optimizer, also for those whose state does not start at zero
    (Adagrad's accumulator, NAdam's product); bias correction starts anew with it. Only the momentum of fused SGD
    is set to zero in place: it fails in a step in which some parameters have momentum and others, which were
    frozen meanwhile, have none. Without dampening that is the same.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            held = optimizer.state.pop(parameter, {})
            momentum = held.get("momentum_buffer")
            if isinstance(optimizer, SGD) and group.get("fused") and momentum is not None:
                with torch.no_grad():
                    momentum.zero_()
                optimizer.state[parameter] = held
