"""Leaving a step out by a bit that only the device knows."""

from __future__ import annotations

import torch
from torch.optim import SGD, Optimizer

_ATTRIBUTE = "found_inf"
"""What torch's fused optimizers look at inside their kernels, as `GradScaler` has them do."""


def unswitchable(optimizer: Optimizer) -> str | None:
    """Return why no step of an optimizer can be left out on the device, or None."""
    fused = all(group.get("fused") for group in optimizer.param_groups)
    if fused and getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    return f"`{type(optimizer).__name__}` is not fused (`fused=True`), so its kernels cannot leave a step out"


def unswitchable_now(optimizer: Optimizer) -> bool:
    """Tell whether the coming step cannot be left out on the device.

    Fused SGD makes its momentum buffers in its first step, and leaves them uninitialised in one that is left out.
    """
    if not isinstance(optimizer, SGD):
        return False
    return any(
        held.grad is not None and optimizer.state.get(held, {}).get("momentum_buffer") is None
        for group in optimizer.param_groups
        if group["momentum"] != 0
        for held in group["params"]
    )


class Switch:
    """Leaves the coming step of a fused optimizer out where a bit says so: weights and state stay bit for bit.

    `apply` before the step, `release` after it. What a `GradScaler` found is kept: its step is left out too.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._before: object = None
        self._flag: torch.Tensor | None = None

    def apply(self, skip: torch.Tensor) -> None:
        """Leave the coming step out if the bit is set; nothing is read back."""
        self.release()
        # INVARIANT: exactly 0.0 or 1.0; kernels take any other number for neither, and spoil weights and step counts.
        flag = skip.reshape(()).to(torch.float32)
        self._before = self._optimizer.__dict__.get(_ATTRIBUTE)
        if isinstance(self._before, torch.Tensor):
            found = (self._before.reshape(()) != 0).to(flag.device, torch.float32, non_blocking=True)
            flag = torch.maximum(flag, found)
        self._flag = flag
        setattr(self._optimizer, _ATTRIBUTE, flag)

    def release(self) -> None:
        """Put back what was there before, unless the run has put something else there since."""
        if self._flag is not None and self._optimizer.__dict__.get(_ATTRIBUTE) is self._flag:
            if self._before is None:
                delattr(self._optimizer, _ATTRIBUTE)
            else:
                setattr(self._optimizer, _ATTRIBUTE, self._before)
        self._flag = self._before = None
