"""Doubles and bits as tensors without dimensions, where the present readings are.

Each operation is one kernel that rounds once. Kernels that do more are left alone: a division by a Python number is a
multiplication by its reciprocal on CUDA, a division of one is that everywhere, and `torch.where` of two Python numbers
is of single precision. So numbers are made tensors there, by a kernel that fills one: nothing is copied to the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from attrs import frozen

from lbw_policy.machine.foresight import Bit, Foreseen, Late, LateTruth
from lbw_policy.telemetry.readings import Present

Operation = Callable[..., torch.Tensor]

_COMPARE: Mapping[str, Operation] = {
    "<": torch.lt,
    "<=": torch.le,
    ">": torch.gt,
    ">=": torch.ge,
    "==": torch.eq,
    "!=": torch.ne,
}
_COMBINE: Mapping[str, Operation] = {"+": torch.add, "-": torch.sub, "*": torch.mul, "/": torch.div}
_APPLY: Mapping[str, Operation] = {"abs": torch.abs, "neg": torch.neg}


@frozen
class TensorOperations:
    """The operations of a foresight on one device."""

    device: torch.device

    def take(self, reading: Present) -> Foreseen:
        """Return a reading: late if it is on the device, known if it is on the host."""
        if not isinstance(reading, torch.Tensor):
            return reading
        if reading.device.type == "cpu" and self.device.type != "cpu":
            return float(reading)
        return Late(reading.reshape(()).to(self.device, torch.float64, non_blocking=True))

    def tensor(self, value: Late | float) -> torch.Tensor:
        """Return a number as a tensor on the device."""
        if isinstance(value, Late):
            return held(value)
        return torch.full((), value, dtype=torch.float64, device=self.device)

    def flag(self, bit: Bit) -> torch.Tensor:
        """Return a bit as 0.0 or 1.0 on the device."""
        return held(bit).to(torch.float64) if isinstance(bit, LateTruth) else self.tensor(float(bit))

    def combine(self, op: str, left: Late | float, right: Late | float) -> Late:
        """Return `left op right`."""
        return Late(_COMBINE[op](self.tensor(left), self.tensor(right) if op == "/" else _plain(right)))

    def apply(self, name: str, value: Late) -> Late:
        """Return `abs` or `neg` of a number."""
        return Late(_APPLY[name](held(value)))

    def finite(self, value: Late) -> LateTruth:
        """Tell whether a number is neither NaN nor infinite."""
        return LateTruth(held(value).abs() < math.inf)

    def compare(self, op: str, left: Late | float, right: Late | float) -> LateTruth:
        """Compare as IEEE does."""
        return LateTruth(_COMPARE[op](self.tensor(left), _plain(right)))

    def both(self, left: LateTruth, right: LateTruth) -> LateTruth:
        """Return whether both hold."""
        return LateTruth(held(left) & held(right))

    def either(self, left: LateTruth, right: LateTruth) -> LateTruth:
        """Return whether one of them holds."""
        return LateTruth(held(left) | held(right))

    def invert(self, bit: LateTruth) -> LateTruth:
        """Return whether it does not hold."""
        return LateTruth(~held(bit))

    def choose(self, bit: LateTruth, yes: Late | float, no: Late | float) -> Late:
        """Return `yes` where the bit holds, else `no`."""
        return Late(torch.where(held(bit), self.tensor(yes), self.tensor(no)))


def _plain(value: Late | float) -> torch.Tensor | float:
    return held(value) if isinstance(value, Late) else value


def held(value: Late | LateTruth) -> torch.Tensor:
    """Return the tensor that stands for a number or a bit."""
    assert isinstance(value.held, torch.Tensor)
    return value.held
