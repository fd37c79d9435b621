"""Does what was granted, around one update, and undoes what must not outlast it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from attrs import field, frozen
from torch import nn
from torch.optim import Optimizer

from lbw_policy import saved
from lbw_policy.actions import (
    Gradients,
    Snapshots,
    Switch,
    UpdateScale,
    reset_moments,
    select,
    unfreezable,
    unswitchable,
    unswitchable_now,
)
from lbw_policy.errors import StateError
from lbw_policy.limits import Grant, Request
from lbw_policy.machine.ahead import Ruling
from lbw_policy.machine.foresight import Late, LateTruth
from lbw_policy.runtime.ondevice import held
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
        self._norms: Mapping[str, float] = {}
        self._largest = math.nan
        self._scale = UpdateScale(optimizer)
        self._gradients = Gradients(optimizer)
        self._switch = Switch(optimizer)

    def impossible(self, request: Request) -> str | None:
        """Return why a request cannot be carried out at this moment, or None."""
        return unfreezable(self._optimizer) if request.action == "freeze" and not self.frozen else None

    def choose(self, grants: Iterable[Grant], ranking: Mapping[str, Mapping[str, float]], largest: float) -> None:
        """Settle which layers are frozen; a freeze that is held keeps its layers.

        `ranking` has the statistics of the layers, `largest` their largest gradient norm.
        """
        self._norms, self._largest = ranking.get("grad_norm", {}), largest
        freeze = next((grant for grant in grants if grant.request.action == "freeze"), None)
        if freeze is None:
            self.frozen = ()
        elif freeze.starts or not self.frozen:
            values = self._within(ranking.get(freeze.request.by, {}), freeze.request.group)
            self.frozen = select(values, self._layers.parameters, self._layers.tied, freeze.amount or 0.0)

    def go_on_freezing(self, names: object, share: float) -> None:
        """Hold the layers that a saved run held; raises StateError for what is no layer, or more than the share."""
        found = tuple(str(name) for name in saved.items(names))
        known = self._layers.parameters
        if len(set(found)) != len(found) or not set(found) <= set(known) or len(found) / len(known) > share:
            raise StateError(f"expected layers to be frozen, at most {share:.0%} of them, found {found!r:.80}")
        self.frozen = found

    def apply(self, grants: Iterable[Grant]) -> bool:
        """Carry out one tick's grants; return whether an update follows."""
        updates = True
        # A rollback that is a fallback may be answered last, and must not undo what is done to the state it restores.
        for grant in sorted(grants, key=lambda grant: grant.request.action != "rollback"):
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

    def can_act_ahead(self, ruling: Ruling) -> bool:
        """Tell whether a ruling can be carried out in this tick without the host knowing its numbers."""
        kernels = isinstance(ruling.skip, LateTruth) or isinstance(ruling.scale, Late)
        if kernels and unswitchable(self._optimizer):
            return False
        if isinstance(ruling.skip, LateTruth) and unswitchable_now(self._optimizer):
            return False
        return not isinstance(ruling.clip, Late) or self._gradients.reals()

    def act_ahead(self, ruling: Ruling) -> None:
        """Do to the coming update what the limiter will grant."""
        skip, clip, scale = ruling.skip, ruling.clip, ruling.scale
        if isinstance(skip, LateTruth):
            self._switch.apply(held(skip))
        elif skip:
            self._gradients.drop()
        if isinstance(clip, Late):
            self._gradients.shorten(held(clip))
        else:
            self._gradients.clip(clip)
        if isinstance(scale, Late):
            self._scale.apply_late(held(scale))
        else:
            self._scale.apply(scale)

    def checkpoint(self, grants: Iterable[Grant]) -> list[str]:
        """Call the user's function if it was granted; return why it failed, if it did: the tick goes on without."""
        if self._given.checkpoint is None or all(grant.request.action != "checkpoint" for grant in grants):
            return []
        try:
            self._given.checkpoint()
        except Exception as error:
            return [f"the function for `checkpoint` failed: {type(error).__name__}: {error}"]
        return []

    def _adjust(self, grant: Grant) -> None:
        factor = 1.0 if grant.amount is None else grant.amount
        match grant.request.action:
            case "clip" if grant.request.layers:
                self._clip_layers(factor)
            case "clip":
                self._gradients.clip(factor)
            case "scale_lr":
                self._scale.apply(factor)
            case "reset_moments":
                reset_moments(self._optimizer)

    def _clip_layers(self, factor: float) -> None:
        """Clip each layer to the norm that this factor brings the largest one to; a shared parameter to the least."""
        factors: dict[nn.Parameter, float] = {}
        for name, norm in self._norms.items():
            one = factor * self._largest / norm if norm > factor * self._largest else 1.0
            for parameter in self._layers.parameters[name]:
                factors[parameter] = min(one, factors.get(parameter, 1.0))
        self._gradients.clip_some(factors)

    def _within(self, values: Mapping[str, float], group: str) -> Mapping[str, float]:
        if not group:
            return values
        return {name: value for name, value in values.items() if name in self._given.groups[group]}

    def _restore(self, progress: int) -> None:
        assert self.snapshots is not None
        rates = [] if self._given.scheduled else self._scheduled_rates()
        self.snapshots.restore(progress)
        self._gradients.drop()  # a closure may yet bring new ones in this step
        for group, rate in rates:
            if isinstance(rate, torch.Tensor):
                group["lr"].copy_(rate)
            else:
                group["lr"] = rate

    def _scheduled_rates(self) -> list[tuple[dict[str, Any], Any]]:
        """Return the learning rates of a scheduler that was not given to `attach`: it would not notice a rewind."""
        groups = [group for group in self._optimizer.param_groups if "initial_lr" in group]
        return [(g, g["lr"].clone() if isinstance(g["lr"], torch.Tensor) else g["lr"]) for g in groups]

    def hold(self) -> None:
        """Take away the gradients that came since, where this tick took them away before."""
        self._gradients.hold()

    def _held(self) -> list[nn.Parameter]:
        return [parameter for name in self.frozen for parameter in self._layers.parameters[name]]

    def release(self) -> None:
        """Put learning rates and gradients back as the run left them; safe to call at any time."""
        self._scale.release()
        self._gradients.release()
        self._switch.release()
