"""Which layers to hold still."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch.optim import SGD, Optimizer


def unfreezable(optimizer: Optimizer) -> str | None:
    """Return why no layer can be left out of the coming step, or None; to be asked before each freeze.

    Fused SGD fails in a step whose parameters do not all have, or all lack, a momentum buffer.
    """
    if not isinstance(optimizer, SGD):
        return None
    for group in optimizer.param_groups:
        if group.get("fused") and group["momentum"] != 0 and not _has_momentum(optimizer, group["params"]):
            return "fused SGD cannot leave a layer out before each of its parameters has taken a step"
    return None


def select(
    ranking: Mapping[str, float],
    layers: Mapping[str, Sequence[torch.nn.Parameter]],
    tied: frozenset[str],
    share: float,
) -> tuple[str, ...]:
    """Return the layers with the highest values, at most the given share of all layers.

    Values that are not finite rank highest, ties go by name. A layer that shares a parameter with
    another one, or has no value, is never chosen. `ValueError` for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share of layers in [0, 1], found {share}")
    free = [name for name in ranking if name in layers and name not in tied]
    return tuple(sorted(free, key=lambda name: (-_rank(ranking[name]), name))[: _most(len(layers), share)])


def _most(layers: int, share: float) -> int:
    most = math.floor(share * layers)
    # INVARIANT: the chosen layers are never more than the share, even where the product was rounded up.
    return most if most == 0 or most / layers <= share else most - 1


def _rank(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _has_momentum(optimizer: Optimizer, parameters: Sequence[torch.nn.Parameter]) -> bool:
    moving = [parameter for parameter in parameters if parameter.requires_grad]
    return all(optimizer.state.get(parameter, {}).get("momentum_buffer") is not None for parameter in moving)
