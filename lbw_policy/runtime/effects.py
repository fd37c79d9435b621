"""Does what was granted, around one update, and undoes what must not outlast it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from attrs import field, frozen
from torch import nn
from torch.optim import Optimizer

from lbw_policy.actions import Gradients, Snapshots, UpdateScale, reset_moments, select, unfreezable
from lbw_policy.limits import Grant, Request
from lbw_policy.telemetry import Layers


@frozen
class Given:
    """What `attach` gave for acting.

    `scheduled` tells that the snapshots hold the scheduler too, so that learning rates go back with
    it. `groups` are the layers of each group of the policy. `checkpoint` is the user's function.
    """

    snapshots: Snapshots | None = None
    scheduled: bool = False
    groups: Mapping[str, frozenset[str]] = field(factory=dict)
    checkpoint: Callable[[], object] | None = None


class Effects:
    """The guard's hands: each grant changes exactly what its action says, and nothing else."""

    def __init__(self, optimizer: Optimizer, layers: Layers, given: Given) -> None:
        self._given = given
        self.snapshots = given.snapshots
        self.frozen: tuple[str, ...] = ()
        self._optimizer = optimizer
        self._layers = layers
        self._scale = UpdateScale(optimizer)
        self._gradients = Gradients(optimizer)

    def impossible(self, request: Request) -> str | None:
        """Return why a request cannot be carried out at this moment, or None."""
        return unfreezable(self._optimizer) if request.action == "freeze" and not self.frozen else None

    def choose(self, grants: Iterable[Grant], ranking: Mapping[str, Mapping[str, float]]) -> None:
        """Settle which layers are frozen; a freeze that is held keeps its layers."""
        freeze = next((grant for grant in grants if grant.request.action == "freeze"), None)
        if freeze is None:
            self.frozen = ()
        elif freeze.starts or not self.frozen:
            values = self._within(ranking.get(freeze.request.by, {}), freeze.request.group)
            self.frozen = select(values, self._layers.parameters, self._layers.tied, freeze.amount or 0.0)

    def apply(self, grants: Iterable[Grant]) -> bool:
        """Carry out one tick's grants; return whether an update follows."""
        updates = True
        for grant in grants:
            if grant.request.action == "rollback":
                self._restore(int(grant.amount or 0))
                updates = False
            elif grant.request.action == "skip":
                self._gradients.drop()
                updates = False
            else:
                self._adjust(grant)
        if updates and self.frozen:
            self._gradients.drop(self._held())
        return updates

    def _adjust(self, grant: Grant) -> None:
        factor = 1.0 if grant.amount is None else grant.amount
        match grant.request.action:
            case "clip":
                self._gradients.clip(factor)
            case "scale_lr":
                self._scale.apply(factor)
            case "reset_moments":
                reset_moments(self._optimizer)
            case "checkpoint" if self._given.checkpoint is not None:
                self._given.checkpoint()

    def _within(self, values: Mapping[str, float], group: str) -> Mapping[str, float]:
        if not group:
            return values
        return {name: value for name, value in values.items() if name in self._given.groups[group]}

    def _restore(self, progress: int) -> None:
        assert self.snapshots is not None
        rates = [] if self._given.scheduled else self._scheduled_rates()
        self.snapshots.restore(progress)
        for group, rate in rates:
            if isinstance(rate, torch.Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = rate

    def _scheduled_rates(self) -> list[tuple[dict[str, Any], Any]]:
        """Return the learning rates of a scheduler that was not given to `attach`: it would not notice a rewind."""
        groups = [group for group in self._optimizer.param_groups if "initial_lr" in group]
        return [(g, g["lr"].clone() if isinstance(g["lr"], torch.Tensor) else g["lr"]) for g in groups]

    def _held(self) -> list[nn.Parameter]:
        return [parameter for name in self.frozen for parameter in self._layers.parameters[name]]

    def release(self) -> None:
        """Put learning rates and gradients back as the run left them; safe to call at any time."""
        self._scale.release()
        self._gradients.release()
