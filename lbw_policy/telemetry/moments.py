"""The gradient beside what the optimizer remembers of earlier ones, from a fixed sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import optim
from torch.optim import Optimizer

from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value, added, cosine, largest, quotient, root
from lbw_policy.telemetry.samples import Sample, Sampler, gradient_scale
from lbw_policy.telemetry.scopes import Scope, Scopes

_SECOND = frozenset({"moment_rms", "moment_lag"})
MOMENTS = _SECOND | {"momentum_agreement"}
_MOMENTUM = ("exp_avg", "momentum_buffer")
_SQUARES = ("exp_avg_sq", "square_avg")
_EPSILON = 1e-8  # where a group names none: Adam's own
_LEAST = 1e-38

_WITH_MOMENTUM = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "SparseAdam", "Muon")
_WITH_SQUARES = ("Adam", "AdamW", "NAdam", "RAdam", "SparseAdam", "RMSprop", "Adadelta")


def lacks(optimizer: Optimizer, source: str) -> str | None:
    """Return what a torch optimizer lacks for a source of this module, or None; foreign optimizers may have it."""
    if type(optimizer) is not getattr(optim, type(optimizer).__name__, None):
        return None
    name = type(optimizer).__name__
    if source in _SECOND:
        return None if name in _WITH_SQUARES else f"an optimizer with second moments, such as AdamW; `{name}` has none"
    remembers = name in _WITH_MOMENTUM or any(group.get("momentum") for group in optimizer.param_groups)
    return None if remembers else f"an optimizer with momentum; this `{name}` has none"


@frozen
class Setting:
    """How an optimizer keeps the second moments of one parameter."""

    decay: float
    corrected: bool
    least: float
    """The square of its epsilon: smaller second moments count as this."""

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> Setting:
        """Return the setting of a parameter group: `betas` of Adam, `alpha` of RMSprop, `rho` of Adadelta."""
        betas = group.get("betas")
        decay = betas[1] if betas else group.get("alpha", group.get("rho", 0.0))
        epsilon = float(group.get("eps") or _EPSILON)
        return cls(float(decay), bool(betas), max(epsilon * epsilon, _LEAST))

    def start(self, step: float) -> float:
        """Return the share of a second moment that is there after so many steps from zero."""
        return 1 - self.decay**step if self.corrected else 1.0


class Moments:
    """`momentum_agreement`, `moment_rms`, `moment_lag`.

    With g the gradient, v the second moment that the optimizer holds, before this update:
    `moment_rms` is the root of the mean of g^2 / v', with v' the second moment that this update
    will use, corrected for its start (RMS_t of StableAdamW, Wortsman et al., 2023: it leaves 1 ahead of
    a spike when v lags behind); the largest over layers. `moment_lag` is the root of
    sum(v) / sum(g^2), v corrected likewise: above 1 while v remembers larger gradients (Molybog et
    al., 2023; arXiv 2506.04805). Parameters without gradient or moments are left out.
    """

    def __init__(self, optimizer: Optimizer, sampler: Sampler, scopes: Scopes) -> None:
        self._optimizer = optimizer
        self._sampler = sampler
        self._scopes = scopes.of(MOMENTS)
        self._members = scopes.members
        self._settings: dict[int, Setting] = {}

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue the sums of what is due."""
        if due.again or not due.now & MOMENTS:
            return
        scale = gradient_scale(self._optimizer)
        gradient = self._sampler.gradients()
        if scale is not None:
            gradient = Sample(gradient.values / scale, gradient.absent)
        if "momentum_agreement" in due.now:
            self._measure_momentum(gradient, packet)
        if due.now & _SECOND:
            self._measure_squares(due, gradient, packet)

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the readings."""
        return {scope.key: self._read(scope, numbers) for scope in self._scopes}

    def _measure_momentum(self, gradient: Sample, packet: Packet) -> None:
        momentum = self._sampler.like(self._state(_MOMENTUM), "momentum")
        absent = gradient.absent | momentum.absent
        if len(absent) == len(self._sampler.parameters):
            return
        now, past = (self._sampler.without(one, absent) for one in (gradient, momentum))
        weighted = self._sampler.weighted(now)
        packet.add("with momentum", self._sampler.dot(weighted, past))
        packet.add("gradient", self._sampler.dot(weighted, now))
        packet.add("momentum", self._sampler.dot(self._sampler.weighted(past), past))

    def _measure_squares(self, due: Due, gradient: Sample, packet: Packet) -> None:
        squares = self._sampler.like(self._state(_SQUARES), "second moments")
        absent = gradient.absent | squares.absent
        groups = {id(p): group for group in self._optimizer.param_groups for p in group["params"]}
        owners = {number: groups.get(id(p), {}) for number, p in enumerate(self._sampler.parameters)}
        self._settings = {number: Setting.of(group) for number, group in owners.items() if number not in absent}
        if not self._settings:
            return
        steps = [self._steps(self._sampler.parameters[number]) for number in self._settings]
        packet.add("steps", torch.stack(steps))
        now, past = (self._sampler.without(one, absent) for one in (gradient, squares))
        weighted = self._sampler.weighted(now)
        if "moment_lag" in due.now:
            packet.add("squared gradients", self._sampler.dot(weighted, now))
            packet.add("second moments", self._sampler.dot(self._sampler.weighted(past), torch.ones_like(past)))
        if "moment_rms" in due.now:
            packet.add("relative", self._sampler.dot(weighted, now / self._coming(now, past)))

    def _coming(self, gradient: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        """Return the second moments that the coming update will use."""
        kept = list(self._settings.values())
        if len(set(kept)) == 1:
            return torch.lerp(gradient.square(), past, kept[0].decay).clamp(min=kept[0].least)
        every = [self._settings.get(number, kept[0]) for number in range(len(self._sampler.parameters))]
        decays = self._sampler.spread([setting.decay for setting in every])
        return torch.lerp(gradient.square(), past, decays).clamp(min=min(setting.least for setting in kept))

    def _state(self, names: Sequence[str]) -> list[torch.Tensor | None]:
        states = [self._optimizer.state.get(parameter, {}) for parameter in self._sampler.parameters]
        return [next((state[name] for name in names if name in state), None) for state in states]

    def _steps(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        step = self._optimizer.state[parameter].get("step", 0)
        return torch.as_tensor(step, dtype=torch.float32).reshape(())

    def _read(self, scope: Scope, numbers: Numbers) -> Value:
        part = scope.parameters if self._sampler.divided else (0,)
        match scope.source:
            case "momentum_agreement" if "momentum" in numbers:
                return cosine(numbers, ("with momentum", "gradient", "momentum"), part)
            case "moment_lag" if "second moments" in numbers:
                return self._lag(scope.parameters, numbers)
            case "moment_rms" if "relative" in numbers:
                found = (self._rms(self._members[name], numbers) for name in scope.layers)
                return largest(rms for rms in found if rms is not None)
        return None

    def _lag(self, part: Sequence[int], numbers: Numbers) -> Value:
        steps = dict(zip(self._settings, numbers["steps"], strict=True))
        held = [number for number in part if number in steps]
        past = sum(
            numbers["second moments"][number] / (self._settings[number].start(steps[number]) or 1.0) for number in held
        )
        return quotient(root(past), root(added(numbers["squared gradients"], held)))

    def _rms(self, part: Sequence[int], numbers: Numbers) -> Value:
        steps = dict(zip(self._settings, numbers["steps"], strict=True))
        held = [number for number in part if number in steps]
        squares = sum(numbers["relative"][number] * self._settings[number].start(steps[number] + 1) for number in held)
        size = sum(self._sampler.parameters[number].numel() for number in held)
        return root(squares / size) if size else None
