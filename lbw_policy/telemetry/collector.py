"""One reading of everything a policy asks for, with one transfer from the device a tick."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.optim import Optimizer

from lbw_policy.errors import AttachError, StateError
from lbw_policy.semantics.signals import LAYER_STATISTICS, SIGNALS, Need
from lbw_policy.telemetry.activations import ACTIVATIONS, Activations
from lbw_policy.telemetry.gradients import GradientNorms, WeightCheck
from lbw_policy.telemetry.layers import Layers
from lbw_policy.telemetry.plugged import Plugged
from lbw_policy.telemetry.readings import Due, Packet, Plan, Readings, Source, Value
from lbw_policy.telemetry.told import LearningRate, Observed
from lbw_policy.telemetry.updates import Motion

_LAYER_EVERY = 10


class Collector:
    """Measures what a plan asks for.

    Call `read` once a tick with the gradients in place, `before_update` and `after_update` around
    the update, and `forget` when the weights were set back or an update was left out. Ticks are
    taken to follow each other; a gap only makes the readings that need two ticks unavailable.
    `AttachError` if the plan needs the outputs of a model and `layers` were made without one.
    """

    def __init__(self, optimizer: Optimizer, layers: Layers, plan: Plan) -> None:
        _check(plan, layers)
        self._plan = plan
        self._every = dict.fromkeys(plan.layer_statistics, _LAYER_EVERY) | dict(plan.every)
        self._observed = Observed(plan.observed | _asked(plan))
        self._tick: int | None = None
        self._gradients = GradientNorms(optimizer, layers)
        self._motion = Motion(optimizer, layers)
        self._activations = Activations(layers.modules) if ACTIVATIONS & set(self._every) else None
        self._sources: list[Source] = [self._gradients, self._motion, WeightCheck(layers), LearningRate(optimizer)]
        if self._activations is not None:
            self._sources.append(self._activations)
        self._sources.append(self._observed)
        self._plugged = Plugged(plan.plugins)
        if plan.plugins:
            self._sources.append(self._plugged)

    def observe(self, values: Mapping[str, object]) -> None:
        """Take the user's numbers for the coming tick; a later value of the same name replaces an earlier one.

        Numbers and one-element tensors; nothing is read back from a device. `ValueError` for a name
        that the policy does not read, `TypeError` for anything that is not one number.
        """
        self._observed.take(values)

    def read(self, tick: int) -> Readings:
        """Measure what is due in this tick and return it; observed values are used up."""
        due = Due(self._due(tick), self._due(tick + 1), tick)
        if self._tick is not None and tick != self._tick + 1:
            self._motion.forget()
        packet, values = Packet(), dict[str, Value]()
        with torch.no_grad():
            for source in self._sources:
                source.measure(due, packet)
            numbers = packet.unpack()
            for source in self._sources:
                values.update(source.values(numbers))
        self._tick = tick
        return Readings(self._reported(values, due), self._layer_values(), self._plugged.failures())

    def before_update(self) -> None:
        """Sample the weights if the next tick reports on this update."""
        with torch.no_grad():
            self._motion.before_update()

    def after_update(self) -> None:
        """Sum up the update on the device; nothing is read back."""
        with torch.no_grad():
            self._motion.after_update()

    def forget(self) -> None:
        """Drop the motion memory: the next tick has no `update_norm`, `update_ratio` and `curvature`."""
        self._motion.forget()

    def detach(self) -> None:
        """Remove the forward hooks."""
        if self._activations is not None:
            self._activations.detach()

    def state_dict(self) -> dict[str, object]:
        """Return the memory as plain data; this reads from the device."""
        layers = {name: dict(found) for name, found in self._layer_values().items()}
        return {"tick": self._tick, "layers": layers, "motion": self._motion.state_dict()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the memory; `StateError` if it is damaged."""
        tick, layers, motion = (state.get(name) for name in ("tick", "layers", "motion"))
        if not (tick is None or type(tick) is int) or not isinstance(layers, dict) or not isinstance(motion, dict):
            raise StateError("expected `tick`, `layers` and `motion` in the saved telemetry")
        found = {name: _checked(name, layers.get(name, {})) for name in self._plan.layer_statistics}
        self._motion.load_state_dict(motion)
        self._tick = tick
        self._gradients.by_layer = found.get("grad_norm", {})
        if self._activations is not None:
            self._activations.by_layer = found.get("activation_variance", {})

    def _due(self, tick: int) -> frozenset[str]:
        return frozenset(name for name, every in self._every.items() if tick % every == 0)

    def _reported(self, values: Mapping[str, Value], due: Due) -> dict[str, Value]:
        asked = {name: values.get(name) if name in due.now else None for name in self._plan.every}
        return {name: values.get(name) for name in self._plan.observed} | asked

    def _layer_values(self) -> dict[str, Mapping[str, float]]:
        found: dict[str, Mapping[str, float]] = {"grad_norm": self._gradients.by_layer}
        if self._activations is not None:
            found["activation_variance"] = self._activations.by_layer
        return {name: found[name] for name in sorted(self._plan.layer_statistics)}


def _asked(plan: Plan) -> frozenset[str]:
    return frozenset(name for name in plan.every if name in SIGNALS and SIGNALS[name].need is Need.OBSERVED)


def _check(plan: Plan, layers: Layers) -> None:
    for name, every in plan.every.items():
        if name not in SIGNALS and name not in plan.plugins:
            raise ValueError(f"there is no signal `{name}` to measure")
        if every < 1:
            raise ValueError(f"expected `{name}` every 1 tick or more, found {every}")
        if name in SIGNALS and SIGNALS[name].need is Need.MODEL and not layers.modules:
            raise AttachError(f"the signal `{name}` needs the model: attach with `model=`")
    if plan.layer_statistics - set(LAYER_STATISTICS):
        raise ValueError(f"layers have no statistic `{min(plan.layer_statistics - set(LAYER_STATISTICS))}`")
    if "activation_variance" in plan.layer_statistics and not layers.modules:
        raise AttachError("`activation_variance` of layers needs the model: attach with `model=`")
    clash = (plan.observed & set(plan.every)) - _asked(plan)
    if clash:
        raise AttachError(f"`{min(clash)}` is measured by telemetry: observe it under another name")


def _checked(name: str, found: object) -> dict[str, float]:
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, float) for k, v in found.items()):
        raise StateError(f"expected numbers by layer for `{name}` in the saved telemetry")
    return dict(found)
