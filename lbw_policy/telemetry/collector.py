"""One reading of everything a policy asks for, with one transfer from the device a tick."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from attrs import frozen
from torch.optim import Optimizer

from lbw_policy.errors import StateError
from lbw_policy.semantics.signals import source_of
from lbw_policy.telemetry.layers import Layers
from lbw_policy.telemetry.readings import Due, Numbers, Packet, Plan, Present, Readings, Sent, Value
from lbw_policy.telemetry.sources import by_layer, is_told, sources_for
from lbw_policy.telemetry.stopwatch import Stopwatch
from lbw_policy.telemetry.told import TELLABLE

_LAYER_EVERY = 10
_SHORTENED = ("grad_norm", "grad_norm_max", "grad_norm_min")


@frozen
class _Open:
    """A tick that was measured: what was due, by source and by key, and whether the loop told its gradients' norm."""

    due: Due
    told: bool
    keys: frozenset[str]


class Collector:
    """Measures what a plan asks for.

    Call `read` once a tick with the gradients in place, just before the update, and `forget` when the
    weights were set back or an update was left out. Ticks are taken to follow each other; a gap
    only makes the readings that need two ticks unavailable. A tick that is read again (by a closure)
    has readings of gradients, and none of what is sampled.
    A `watch` is told the time of what runs inside the model's forward pass, and rests while the
    transfer waits for an accelerator. `AttachError` if the plan needs what optimizer and model do not have.
    """

    def __init__(self, optimizer: Optimizer, layers: Layers, plan: Plan, watch: Stopwatch | None = None) -> None:
        self._plan = plan
        self._watch = watch
        self._sources = sources_for(optimizer, layers, plan, watch)
        self.pace(plan.every)
        self._tick: int | None = None
        self._open: _Open | None = None
        self._expect_loss(0)

    def observe(self, values: Mapping[str, object]) -> None:
        """Take the user's numbers for the coming tick; a later value of the same name replaces an earlier one.

        Numbers and one-element tensors; nothing is read back from a device. `ValueError` for a name
        that the policy does not read, `TypeError` for anything that is not one number.
        """
        self._sources.observed.take(values)

    def pace(self, every: Mapping[str, int], ranking: int = 1) -> None:
        """Keep other distances between samples of the plan's sources from now on, before the tick is read.

        What only ranks layers is sampled `ranking` times more rarely. Distances should grow by whole factors, and
        shrink in a tick that reads the source: else the next reading may be unavailable.
        """
        rest = dict.fromkeys(self._plan.layer_statistics, _LAYER_EVERY * ranking)
        self._every = rest | {key: every[key] for key in self._plan.every}

    @property
    def every(self) -> Mapping[str, int]:
        """The ticks between two samples of each source at present, those too that only rank layers."""
        return self._every

    def due(self, tick: int) -> frozenset[str]:
        """Return what is sampled in a tick."""
        return frozenset(key for key, every in self._every.items() if tick % every == 0)

    def curvature(self, loss: torch.Tensor) -> None:
        """Take the loss, before its backward pass, for the signals that differentiate it twice; often does nothing."""
        if self._sources.hessian is not None:
            self._sources.hessian.take(loss)

    def clip_gradients(self, limit: float) -> torch.Tensor:
        """Clip all gradients to an L2 norm and return the norm before; the coming tick need not measure it again."""
        with torch.no_grad():
            return self._sources.gradients.clip(limit)

    def read(self, tick: int) -> Readings:
        """Measure what is due in this tick and return it; observed values are used up."""
        return self.settle(self.received(self.measure(tick)))

    def measure(self, tick: int) -> Packet:
        """Measure what is due in this tick, and return what is to come over; observed values are used up."""
        sources, packet, keys = self._sources, Packet(), self.due(tick)
        told = sources.observed.has("grad_norm")
        due = Due(self._measured(keys), self._measured(self.due(tick + 1)), tick, tick == self._tick)
        if self._tick is not None and tick not in (self._tick, self._tick + 1):
            self._start_anew()
        with torch.no_grad():
            if sources.sampler is not None:
                sources.sampler.begin()
            for source in sources:
                source.measure(due, packet)
        sources.observed.use_up()
        self._open = _Open(due, told, keys)
        return packet

    def settle(self, numbers: Numbers) -> Readings:
        """Return the readings of the tick that was measured last, from the numbers that came over."""
        assert self._open is not None
        sources, values, due = self._sources, dict[str, Value](), self._open.due
        with torch.no_grad():
            for source in sources:
                values.update(source.values(numbers))
        if self._open.told and sources.gradients.factor is None:
            self._unclip(values)
        self._tick = due.tick
        layers = by_layer(sources, self._plan.layer_statistics)
        reported = self._reported(values, self._open.keys)
        return Readings(reported, layers, self._failures(), sources.gradients.norm, self._notes(due))

    def present(self, wanted: Collection[str]) -> dict[str, Present]:
        """Return readings of the tick being measured, known ones and numbers on the device, before the transfer.

        They are the very numbers that `settle` will report. A source that is left out takes the host to compute.
        """
        sources = self._sources
        found: dict[str, Present] = dict.fromkeys(self._plan.observed)
        found |= {name: None for name in self._plan.every if name not in TELLABLE and is_told(name)}
        with torch.no_grad():
            for source in (sources.gradients, sources.rates, sources.step_time, sources.observed):
                found |= source.present(wanted) if source is not None else {}
        return {name: value for name, value in found.items() if name in wanted}

    def present_norm(self) -> Present:
        """Return the norm of the gradients as they are now, if this tick measured it, before the transfer."""
        with torch.no_grad():
            return self._sources.gradients.present_norm()

    def forget(self) -> None:
        """Drop the memory of weights and gradients: the next tick tells nothing of an update."""
        if self._sources.motion is not None:
            self._sources.motion.forget()

    def detach(self) -> None:
        """Remove the forward hooks."""
        for source in (self._sources.activations, self._sources.attention, self._sources.routers):
            if source is not None:
                source.detach()

    def state_dict(self) -> dict[str, object]:
        """Return the memory as plain data; this reads from the device."""
        sources = self._sources
        return {
            "tick": self._tick,
            "layers": by_layer(sources, self._plan.layer_statistics),
            "motion": sources.motion.state_dict() if sources.motion else {},
            "exponents": sources.exponents.state_dict() if sources.exponents else {},
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the memory; `StateError` if it is damaged."""
        tick = state.get("tick")
        if not (tick is None or type(tick) is int):
            raise StateError("expected `tick` to be a whole number in the saved telemetry")
        layers, motion, exponents = (_mapping(state, name) for name in ("layers", "motion", "exponents"))
        found = {name: _checked(name, layers.get(name, {})) for name in self._plan.layer_statistics}
        sources = self._sources
        if sources.motion is not None:
            sources.motion.load_state_dict(motion)
        if sources.exponents is not None:
            sources.exponents.load_state_dict(exponents)
        self._tick = tick
        self._restore_layers(found)
        self._expect_loss(0 if tick is None else tick + 1)

    def _expect_loss(self, tick: int) -> None:
        if self._sources.hessian is not None:
            self._sources.hessian.expect(self.due(tick), tick)

    def _restore_layers(self, found: Mapping[str, dict[str, float]]) -> None:
        sources = self._sources
        sources.gradients.by_layer = found.get("grad_norm", {})
        if sources.motion is not None:
            sources.motion.by_layer = found.get("update_ratio", {})
        if sources.activations is not None:
            sources.activations.by_layer |= {name: found.get(name, {}) for name in sources.activations.by_layer}

    def _measured(self, keys: frozenset[str]) -> frozenset[str]:
        """Return the sources to measure; a gradient norm that the loop has told is needed for clipping only."""
        ranked = "grad_norm" in self._plan.layer_statistics
        if not self._plan.clips and not ranked and self._sources.observed.has("grad_norm"):
            keys = keys - {"grad_norm"}
        return frozenset(source_of(key) for key in keys)

    def received(self, packet: Packet | Sent) -> dict[str, list[float]]:
        """Return the numbers that come over, waiting for them if they are not there yet."""
        if self._watch is None or packet.on_host:
            return packet.unpack()
        with self._watch.resting():  # the host waits for the run's own work on the device
            return packet.unpack()

    def _unclip(self, values: dict[str, Value]) -> None:
        """Scale the norms of layers and groups as the loop's clip scaled the whole, if it has told the norm before."""
        before, present = values.get("grad_norm"), self._sources.gradients.norm
        if before is None or not present or not math.isfinite(before) or before <= present:
            return
        for key, value in values.items():
            if key != "grad_norm" and source_of(key) in _SHORTENED and value is not None:
                values[key] = value * before / present

    def _start_anew(self) -> None:
        self.forget()
        if self._sources.step_time is not None:
            self._sources.step_time.forget()

    def _failures(self) -> tuple[str, ...]:
        found = (self._sources.plugged, self._sources.hessian)
        return tuple(text for source in found if source is not None for text in source.failures())

    def _notes(self, due: Due) -> tuple[str, ...]:
        found = (self._sources.attention, self._sources.routers)
        return tuple(text for source in found if source is not None for text in source.notes(due))

    def _reported(self, values: Mapping[str, Value], keys: frozenset[str]) -> dict[str, Value]:
        asked = {key: values.get(key) if key in keys else None for key in self._plan.every}
        return {name: values.get(name) for name in self._plan.observed} | asked


def _mapping(state: Mapping[str, object], name: str) -> dict[str, object]:
    found = state.get(name)
    if not isinstance(found, dict):
        raise StateError(f"expected `{name}` to be a mapping in the saved telemetry")
    return found


def _checked(name: str, found: object) -> dict[str, float]:
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, float) for k, v in found.items()):
        raise StateError(f"expected numbers by layer for `{name}` in the saved telemetry")
    return dict(found)
