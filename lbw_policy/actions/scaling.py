"""Scaling the update: the learning rate around one step, put back bit-exactly after it."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

import torch
from attrs import frozen
from torch import optim
from torch.optim import Optimizer

from lbw_policy.actions.gradients import unit

_LINEAR: tuple[type[Optimizer], ...] = (
    optim.SGD,
    optim.Adam,
    optim.AdamW,
    optim.RMSprop,
    optim.NAdam,
    optim.RAdam,
    optim.Adagrad,
    optim.Adadelta,
    optim.Adamax,
    optim.Adafactor,
    optim.SparseAdam,
    *((optim.Muon,) if hasattr(optim, "Muon") else ()),  # since torch 2.9
)
"""Optimizers whose whole update, decay included, was measured to be proportional to `lr`."""

_REASONS = {
    optim.ASGD: "ASGD takes its step length from its own state, so a scaled learning rate comes one step late",
    optim.Rprop: "Rprop uses the learning rate in its first step only",
    optim.LBFGS: "LBFGS chooses its own step length inside the step",
}


def unscalable(optimizer: Optimizer) -> str | None:
    """Return why the update of this optimizer cannot be scaled by its learning rate, or None."""
    for kind, reason in _REASONS.items():
        if isinstance(optimizer, kind):
            return reason
    if not isinstance(optimizer, _LINEAR):
        return f"`{type(optimizer).__name__}` is not known to move in proportion to its learning rate"
    return None


@frozen(eq=False)
class _Setting:
    """One entry of a parameter group: the value it had and the value it was given."""

    group: MutableMapping[str, Any]
    key: str
    before: float | torch.Tensor
    given: float

    def undo(self) -> None:
        """Put the value back, unless the run has set another one since."""
        if self.group.get(self.key) == self.given:
            self.group[self.key] = self.before


@frozen(eq=False)
class _TensorSetting:
    """A learning rate held in a tensor: it keeps its storage, for captured and compiled steps."""

    tensor: torch.Tensor
    before: torch.Tensor
    given: torch.Tensor

    def undo(self) -> None:
        """Put the value back, unless the run has set another one since; nothing is read back."""
        with torch.no_grad():
            self.tensor.copy_(torch.where(self.tensor == self.given, self.before, self.tensor))


@frozen(eq=False)
class _Swap:
    """A learning rate on the host that a tensor on the device stands in for."""

    group: MutableMapping[str, Any]
    before: float | torch.Tensor
    given: torch.Tensor

    def undo(self) -> None:
        """Put the value back, unless the run has set another one since."""
        if self.group.get("lr") is self.given:
            self.group["lr"] = self.before


class UpdateScale:
    """Scales the coming update of an optimizer by a factor; its state stays as without scaling.

    The gradients are left alone: under Adam their scale cancels out, and it would stay in the
    moments for long. `apply` before the step, `release` after it.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._settings: list[_Setting | _TensorSetting | _Swap] = []

    @property
    def active(self) -> bool:
        """Whether a factor is applied now."""
        return bool(self._settings)

    def apply(self, factor: float) -> None:
        """Multiply every group's learning rate; an earlier factor is released first.

        `ValueError` for a factor outside [0, 1].
        """
        self.release()
        # INVARIANT: no update is made longer than the run's own.
        if not 0 <= factor <= 1:
            raise ValueError(f"expected an update scale in [0, 1], found {factor}")
        if factor == 1:
            return
        shared: set[int] = set()
        for group in self._optimizer.param_groups:
            if not isinstance(group["lr"], torch.Tensor) or isinstance(self._optimizer, optim.Adafactor):
                self._scale(group, factor)
            elif id(group["lr"]) not in shared:
                shared.add(id(group["lr"]))
                self._settings.append(_scaled(group["lr"], factor))

    def apply_late(self, factor: torch.Tensor) -> None:
        """Multiply every group's learning rate by a factor that only the device knows; one outside [0, 1] counts for 1.

        For fused optimizers, which take a learning rate from the device. On CUDA they take it in single precision.
        """
        self.release()
        safe, shared = unit(factor), set[int]()
        for group in self._optimizer.param_groups:
            rate = group["lr"]
            if not isinstance(rate, torch.Tensor) or rate.device != factor.device:
                self._settings.append(_swapped(group, safe))
            elif id(rate) not in shared:
                shared.add(id(rate))
                self._settings.append(_scaled(rate, safe.to(rate.dtype)))

    def release(self) -> None:
        """Put the learning rates back bit-exactly; does nothing if no factor is applied."""
        for setting in self._settings:
            setting.undo()
        self._settings = []

    def _scale(self, group: MutableMapping[str, Any], factor: float) -> None:
        rate = float(group["lr"])
        used = min(rate, _cap(self._optimizer, group))
        self._set(group, "lr", used * factor)
        if used < rate and used > 0:
            self._set(group, "weight_decay", group["weight_decay"] * (rate / used))

    def _set(self, group: MutableMapping[str, Any], key: str, value: float) -> None:
        self._settings.append(_Setting(group, key, group[key], value))
        group[key] = value


def _swapped(group: MutableMapping[str, Any], factor: torch.Tensor) -> _Swap:
    rate = torch.full((), float(group["lr"]), dtype=torch.float64, device=factor.device)
    kind = torch.float32 if factor.device.type == "cuda" else torch.float64
    setting = _Swap(group, group["lr"], (rate * factor).to(kind))
    group["lr"] = setting.given
    return setting


def _scaled(rate: torch.Tensor, factor: float | torch.Tensor) -> _TensorSetting:
    before = rate.detach().clone()
    given = before * factor
    with torch.no_grad():
        rate.copy_(given)
    return _TensorSetting(rate, before, given)


def _cap(optimizer: Optimizer, group: MutableMapping[str, Any]) -> float:
    """Return the largest learning rate the coming step will use.

    Adafactor (Shazeer and Stern, 2018) takes no more than `1 / sqrt(step)`; above that a smaller
    `lr` alone would change nothing. Its step counts lie on the host. Where they differ, the
    largest is taken, so that no parameter moves further than the factor says.
    """
    if not isinstance(optimizer, optim.Adafactor):
        return math.inf
    states = [optimizer.state[parameter] for parameter in group["params"] if parameter in optimizer.state]
    return 1 / math.sqrt(1 + max((float(state.get("step", 0)) for state in states), default=0.0))
