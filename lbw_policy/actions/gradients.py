"""Leaving gradients out, and shortening them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch.optim import LBFGS, Optimizer


def unskippable(optimizer: Optimizer) -> str | None:
    """Return why a missing gradient would not hold this optimizer's weights still, or None."""
    if isinstance(optimizer, LBFGS):
        return "LBFGS evaluates its own closure again and again inside one step, so a step cannot be left out"
    return None


class Gradients:
    """The gradients an optimizer is about to use.

    Every torch optimizer but LBFGS leaves weights, moments, step count and decay of a parameter
    without gradient as they are; setting gradients to zero or the learning rate to zero does not.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._held: list[torch.nn.Parameter] = []
        self._dropped: dict[torch.nn.Parameter, torch.Tensor] = {}

    def drop(self, parameters: Iterable[torch.nn.Parameter] | None = None) -> None:
        """Take the gradients of the given parameters (default: all) away until `release`."""
        self._held += self._parameters() if parameters is None else parameters
        self.hold()

    def hold(self) -> None:
        """Take away also the gradients that came since, of the parameters that `drop` was called for."""
        for parameter in self._held:
            if parameter.grad is not None:
                self._dropped[parameter] = parameter.grad
                parameter.grad = None

    def clip(self, factor: float) -> None:
        """Multiply all gradients in place by a factor; `ValueError` outside [0, 1]."""
        # INVARIANT: clipping never makes a gradient longer.
        if not 0 <= factor <= 1:
            raise ValueError(f"expected a clip factor in [0, 1], found {factor}")
        found = [parameter.grad for parameter in self._parameters() if parameter.grad is not None]
        if found and factor != 1:
            with torch.no_grad():
                torch._foreach_mul_(found, factor)

    def clip_some(self, factors: Mapping[torch.nn.Parameter, float]) -> None:
        """Multiply the gradients of some parameters in place, each by its factor; `ValueError` outside [0, 1]."""
        if not all(0 <= factor <= 1 for factor in factors.values()):
            raise ValueError(f"expected clip factors in [0, 1], found {sorted(factors.values())}")
        found = [(held.grad, factor) for held, factor in factors.items() if held.grad is not None and factor != 1]
        if found:
            with torch.no_grad():
                torch._foreach_mul_([gradient for gradient, _ in found], [factor for _, factor in found])

    def release(self) -> None:
        """Give dropped gradients back, except where a new one has come."""
        for parameter, gradient in self._dropped.items():
            if parameter.grad is None:
                parameter.grad = gradient
        self._held, self._dropped = [], {}

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
