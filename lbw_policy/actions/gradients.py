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

    def shorten(self, factor: torch.Tensor) -> None:
        """Multiply all gradients in place by a factor that only the device knows; one outside [0, 1] counts for 1."""
        # INVARIANT: clipping never makes a gradient longer, and a factor that is NaN spoils none.
        safe = unit(factor)
        kinds: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
        for parameter in self._parameters():
            if parameter.grad is not None:
                kinds.setdefault((parameter.grad.device, parameter.grad.dtype), []).append(parameter.grad)
        with torch.no_grad():
            for (device, kind), found in kinds.items():
                _multiply(found, safe.to(device, torch.promote_types(kind, torch.float32), non_blocking=True))

    def reals(self) -> bool:
        """Tell whether all gradients are dense and real, as `shorten` needs them."""
        found = (parameter.grad for parameter in self._parameters() if parameter.grad is not None)
        return all(one.layout is torch.strided and one.is_floating_point() for one in found)

    def release(self) -> None:
        """Give dropped gradients back, except where a new one has come."""
        for parameter, gradient in self._dropped.items():
            if parameter.grad is None:
                parameter.grad = gradient
        self._held, self._dropped = [], {}

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]


def unit(factor: torch.Tensor) -> torch.Tensor:
    """Return a factor on the device where it lies in [0, 1], else 1."""
    return torch.where((factor >= 0) & (factor <= 1), factor, torch.ones_like(factor))


def _multiply(gradients: list[torch.Tensor], factor: torch.Tensor) -> None:
    """Multiply gradients of one type in place, as by a Python number; half types are not to round the factor first."""
    if factor.dtype is gradients[0].dtype:
        torch._foreach_mul_(gradients, factor)
        return
    for gradient in gradients:  # a factor with dimensions takes part in the type promotion
        gradient.mul_(factor.reshape((1,) * gradient.dim()))
