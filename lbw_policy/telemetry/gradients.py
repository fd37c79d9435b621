"""Exact norms of gradients and weights, and how many tensors are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch.optim import Optimizer

from lbw_policy.telemetry.layers import Layers
from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value, largest
from lbw_policy.telemetry.samples import gradient_scale, plain

GRADIENTS = frozenset({"grad_norm", "grad_norm_max", "nonfinite_grads"})


class GradientNorms:
    """`grad_norm`, `grad_norm_max`, `nonfinite_grads`, and the L2 norm of each layer's gradients.

    One pass over the gradients with fp32 accumulation, whatever their type (relative error measured
    on a CPU: below 1e-3 for tensors of up to 10 million elements, 3e-3 at 40 million). An infinite norm is
    looked at again in fp64, as finite squares may have overflowed; that is a second transfer, in
    such ticks and no others.
    """

    def __init__(self, optimizer: Optimizer, layers: Layers) -> None:
        self._optimizer = optimizer
        self._parameters = layers.distinct()
        number = {id(parameter): place for place, parameter in enumerate(self._parameters)}
        self._layers = {name: [number[id(p)] for p in held] for name, held in layers.parameters.items()}
        self._tensors: dict[int, torch.Tensor] = {}
        self.by_layer: dict[str, float] = {}
        """The latest gradient norm of every layer that has had one."""

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue one norm for each parameter that has a gradient."""
        self._tensors = dict(self._present()) if due.now & GRADIENTS else {}
        if self._tensors:
            packet.add("grad_norms", norms_of(list(self._tensors.values())))
            scale = gradient_scale(self._optimizer)
            if scale is not None:
                packet.add("grad_unscale", 1 / scale)

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the readings, none where no parameter has a gradient."""
        if not self._tensors:
            return {}
        norms, nonfinite = settle(numbers["grad_norms"], list(self._tensors.values()))
        (unscale,) = numbers.get("grad_unscale", [1.0])
        present = {number: norm * unscale for number, norm in zip(self._tensors, norms, strict=True)}
        self._tensors = {}
        layers = dict(self._by_layer(present))
        self.by_layer = self.by_layer | layers
        return {
            "grad_norm": total(present.values()),
            "grad_norm_max": largest(layers.values()),
            "nonfinite_grads": float(nonfinite),
        }

    def _present(self) -> Iterator[tuple[int, torch.Tensor]]:
        for number, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                yield number, plain(parameter.grad)

    def _by_layer(self, present: Mapping[int, float]) -> Iterator[tuple[str, float]]:
        for name, numbers in self._layers.items():
            held = [present[number] for number in numbers if number in present]
            if held:
                yield name, total(held)


class WeightCheck:
    """`nonfinite_params`, exact: one pass over all weights in ticks where it is due."""

    def __init__(self, layers: Layers) -> None:
        self._parameters = layers.distinct()

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue one norm for each parameter."""
        if "nonfinite_params" in due.now:
            packet.add("param_norms", norms_of([plain(parameter) for parameter in self._parameters]))

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the count of tensors with NaN or inf."""
        if "param_norms" not in numbers:
            return {}
        _, nonfinite = settle(numbers["param_norms"], [plain(parameter) for parameter in self._parameters])
        return {"nonfinite_params": float(nonfinite)}


def norms_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the L2 norm of each tensor on the first one's device, accumulated in fp32 (fp64 if any is fp64)."""
    wide = any(tensor.dtype is torch.float64 for tensor in tensors)
    norms = torch._foreach_norm(list(tensors), 2, dtype=torch.float64 if wide else torch.float32)
    home = tensors[0].device
    return torch.stack([norm if norm.device == home else norm.to(home, non_blocking=True) for norm in norms])


def settle(norms: list[float], tensors: Sequence[torch.Tensor]) -> tuple[list[float], int]:
    """Return the norms with fp32 overflows put right, and how many tensors are truly not finite."""
    settled = list(norms)
    doubtful = [number for number, norm in enumerate(norms) if norm == math.inf]
    overflowed = 0
    for number, (norm, finite) in zip(doubtful, _look_closer([tensors[n] for n in doubtful]), strict=True):
        settled[number] = norm
        overflowed += finite
    return settled, sum(not math.isfinite(norm) for norm in norms) - overflowed


def _look_closer(tensors: Sequence[torch.Tensor]) -> list[tuple[float, bool]]:
    """Return the exact norm of each tensor, taken relative to its peak, and whether every element is finite."""
    packet = Packet()
    for tensor in tensors:
        peak = torch.linalg.vector_norm(tensor, math.inf)
        packet.add("peaks", peak)
        packet.add(
            "shapes", torch.linalg.vector_norm(tensor / peak, dtype=torch.promote_types(tensor.dtype, torch.float))
        )
    numbers = packet.unpack()
    pairs = zip(numbers.get("peaks", []), numbers.get("shapes", []), strict=True)
    return [(peak * shape if math.isfinite(peak) else math.inf, math.isfinite(peak)) for peak, shape in pairs]


def total(norms: Iterable[float]) -> float:
    """Return the norm of norms, NaN if any is NaN; it does not overflow before the result does."""
    found = list(norms)
    return math.nan if any(math.isnan(norm) for norm in found) else math.hypot(*found)
