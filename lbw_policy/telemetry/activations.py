"""Outputs of layers, sampled by forward hooks in the ticks that report on them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from torch import nn

from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value, largest
from lbw_policy.telemetry.samples import stride_for, strided

ACTIVATIONS = frozenset({"activation_outliers", "activation_variance", "activation_max"})
OUTPUT_SAMPLE = 4096
"""Most elements sampled of one layer's output."""
_OUTLIER = 6.0
"""An output beyond this many root mean squares is an outlier (LLM.int8(), Dettmers et al. 2022, take 6.0)."""


class Activations:
    """`activation_outliers`, `activation_variance`, `activation_max`, and the variance of each layer.

    A hook copies a strided sample of the output into a buffer on the device; the statistics of all
    layers are computed together when they are read. The last forward pass before the tick counts,
    in training mode only. Inside a compiled graph the sample is taken in every pass.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._names = list(modules)
        self._buffer = _new_buffer(modules)
        self._armed = True
        self._failure: Exception | None = None
        self._handles = [
            module.register_forward_hook(functools.partial(self._sample, row))
            for row, module in enumerate(modules.values())
        ]
        self.by_layer: dict[str, float] = {}
        """The latest output variance of every layer that has been sampled."""

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue the statistics of what the hooks sampled; a hook's failure is raised here."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if due.now & ACTIVATIONS:
            packet.add("activations", _statistics(self._buffer))
        self._buffer[:, -1] = 0
        self._armed = bool(due.next & ACTIVATIONS)

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the largest over the layers that were sampled."""
        flat = numbers.get("activations", [])
        rows = [flat[start : start + 5] for start in range(0, len(flat), 5)]
        seen = {name: row for name, row in zip(self._names, rows, strict=bool(rows)) if row[0]}
        self.by_layer = self.by_layer | {name: row[1] for name, row in seen.items()}
        return {
            "activation_variance": largest(row[1] for row in seen.values()),
            "activation_outliers": largest(row[2] for row in seen.values()),
            "activation_max": largest(_peak(row[3], row[4]) for row in seen.values()),
        }

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _sample(self, row: int, module: nn.Module, _: object, output: object) -> None:
        if not torch.compiler.is_compiling() and not self._armed:
            return
        if module.training:
            # INVARIANT: a forward pass never fails for being watched; the failure surfaces in the next `measure`.
            try:
                self._keep(row, output)
            except Exception as failure:
                self._failure, self._armed = failure, False

    def _keep(self, row: int, output: object) -> None:
        tensor = _first_tensor(output)
        if tensor is None or not tensor.is_floating_point() or tensor.layout is not torch.strided or not tensor.numel():
            return
        sample = _sampled(tensor.detach())
        self._buffer[row, : sample.numel()] = sample
        self._buffer[row, -1] = sample.numel()


def _new_buffer(modules: Mapping[str, nn.Module]) -> torch.Tensor:
    first = next(iter(modules.values()))
    device = next(first.parameters(recurse=False)).device
    return torch.zeros(len(modules), OUTPUT_SAMPLE + 1, device=device)


def _first_tensor(output: object) -> torch.Tensor | None:
    if isinstance(output, torch.Tensor):
        return output
    parts = list(output.values()) if isinstance(output, Mapping) else output
    if isinstance(parts, list | tuple):
        return next((part for part in parts if isinstance(part, torch.Tensor)), None)
    return None


def _sampled(tensor: torch.Tensor) -> torch.Tensor:
    if not torch.compiler.is_compiling():
        return strided(tensor, stride_for(tensor.numel(), OUTPUT_SAMPLE))
    # A dynamic shape must not be specialised by a greatest common divisor: an odd step is near enough.
    odd = 2 * ((tensor.numel() + OUTPUT_SAMPLE - 1) // OUTPUT_SAMPLE // 2) + 1
    return tensor.reshape(-1)[::odd]


def _statistics(buffer: torch.Tensor) -> torch.Tensor:
    """Return for each row its count, variance, share of outliers, largest magnitude and root mean square."""
    count = buffer[:, -1:]
    inside = torch.arange(OUTPUT_SAMPLE, device=buffer.device) < count
    sample = torch.where(inside, buffer[:, :-1], 0.0)
    centred = torch.where(inside, sample - sample.sum(1, keepdim=True) / count, 0.0)
    rms = (sample.square().sum(1, keepdim=True) / count).sqrt()
    outliers = (sample.abs() > _OUTLIER * rms).sum(1, keepdim=True) / count
    variance = centred.square().sum(1, keepdim=True) / count
    return torch.cat((count, variance, outliers, sample.abs().amax(1, keepdim=True), rms), dim=1)


def _peak(magnitude: float, rms: float) -> float:
    """Return the largest output over the rms; a layer whose outputs are all zero has no peak."""
    if rms == 0:
        return 0.0
    return math.nan if math.isnan(magnitude) else magnitude / rms
