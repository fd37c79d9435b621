"""Numbers that are told, not measured: the user's own and the learning rate."""

from __future__ import annotations

import math
import numbers as numeric
import time
from collections.abc import Callable, Collection, Mapping

import torch
from torch.optim import Optimizer

from lbw_policy.diagnostics import nearest
from lbw_policy.telemetry.readings import Due, Numbers, Packet, Present, Value, largest, widest


class LearningRate:
    """`lr`: the largest of the groups' learning rates; tensors cross with everything else."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._plain: list[float] = []
        self._tensors: list[torch.Tensor] = []

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue the learning rates that are tensors."""
        rates = [group.get("lr") for group in self._optimizer.param_groups] if "lr" in due.now else []
        self._plain = [float(rate) for rate in rates if isinstance(rate, int | float)]
        self._tensors = [rate.detach().clone() for rate in rates if isinstance(rate, torch.Tensor)]
        for rate in self._tensors:
            packet.add("lr", rate)

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the largest learning rate."""
        return {"lr": largest(self._plain + numbers.get("lr", []))}

    def present(self, wanted: Collection[str]) -> Mapping[str, Present]:
        """Return the largest learning rate before the transfer."""
        if not self._tensors or "lr" not in wanted:
            return {"lr": largest(self._plain)}
        home = self._tensors[0].device
        rates = [rate.reshape(()).to(home, widest(home), non_blocking=True) for rate in self._tensors]
        rates += [torch.full((), rate, dtype=widest(home), device=home) for rate in self._plain]
        return {"lr": torch.stack(rates).amax()}


class StepTime:
    """`step_time`: wall seconds between the last decision and this one; whatever the loop did in between counts."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last: float | None = None
        self._passed: float | None = None

    def measure(self, due: Due, _: Packet) -> None:
        """Read the clock."""
        if not due.again:
            now = self._clock()
            self._passed = None if self._last is None else now - self._last
            self._last = now

    def values(self, _: Numbers) -> Mapping[str, Value]:
        """Return the seconds passed."""
        return {"step_time": self._passed}

    def present(self, _: Collection[str]) -> Mapping[str, Present]:
        """Return the seconds passed."""
        return {"step_time": self._passed}

    def forget(self) -> None:
        """Begin anew, after a gap."""
        self._last = None


TELLABLE = frozenset({"grad_norm", "attention_logit_max"})
"""Measured signals that the loop may tell instead: the norm before its own clip, logits of a kernel of its own."""


class Observed:
    """The user's own numbers of this tick."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._values: dict[str, float | torch.Tensor] = {}
        self._used: dict[str, float | torch.Tensor] = {}

    def take(self, values: Mapping[str, object]) -> None:
        """Keep the values; none is kept if one of them is refused."""
        self._values.update({name: number(self._known(name), value) for name, value in values.items()})

    def measure(self, _: Due, packet: Packet) -> None:
        """Queue the values that are tensors."""
        for name, value in self._values.items():
            if isinstance(value, torch.Tensor):
                packet.add(f"observed {name}", value)

    def use_up(self) -> None:
        """Take the values for this tick's: what is told from now on belongs to the coming one."""
        self._used, self._values = self._values, {}

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return this tick's values."""
        return {
            name: numbers[f"observed {name}"][0] if isinstance(value, torch.Tensor) else value
            for name, value in self._used.items()
        }

    def present(self, _: Collection[str]) -> Mapping[str, Present]:
        """Return this tick's values before the transfer."""
        return dict(self._used)

    def has(self, name: str) -> bool:
        """Tell whether a value waits for the coming tick."""
        return name in self._values

    def _known(self, name: str) -> str:
        if name in self._names:
            return name
        close = nearest(name, self._names)
        known = ", ".join(f"`{known}`" for known in sorted(self._names)) or "none"
        hint = f"; did you mean `{close}`?" if close else ""
        raise ValueError(f"the policy reads no observed value `{name}`, it reads {known}{hint}")


def number(name: str, value: object) -> float | torch.Tensor:
    """Return a value as a number, or as a tensor to be read later; `TypeError` for anything that is not one number."""
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        return value.detach().reshape(1).to(widest(value.device), copy=True)
    if not isinstance(value, numeric.Real):
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise TypeError(f"expected `{name}` to be a number or a tensor with one real element, found {found}")
    try:
        return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf
