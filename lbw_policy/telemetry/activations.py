"""Outputs of layers, sampled by forward hooks in the ticks that report on them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from attrs import frozen
from torch import nn

from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value, largest
from lbw_policy.telemetry.samples import WEIGHT_SAMPLE, Pattern, solid
from lbw_policy.telemetry.scopes import Scope, Scopes
from lbw_policy.telemetry.stopwatch import Timed, as_it_is

ACTIVATIONS = frozenset({"activation_outliers", "activation_variance", "activation_max"})
OUTPUT_SAMPLE = WEIGHT_SAMPLE
"""Most elements sampled of one layer's output."""
_OUTLIER = 6.0
"""An output beyond this many root mean squares is an outlier (LLM.int8(), Dettmers et al. 2022, take 6.0)."""


class Activations:
    """`activation_outliers`, `activation_variance`, `activation_max`, and the first two of each layer.

    A hook copies a sample of the output into a buffer on the device, with the largest magnitude of all
    of it; the statistics of all layers are computed together when they are read. The last forward
    pass before the tick counts, in training mode only. Inside a compiled graph the sample is taken
    in every pass.
    """

    def __init__(self, modules: Mapping[str, nn.Module], scopes: Scopes, timed: Timed = as_it_is) -> None:
        self._names = list(modules)
        self._scopes = scopes.of(ACTIVATIONS)
        self._buffer = _new_buffer(modules)
        self._armed = True
        self._failure: Exception | None = None
        self._handles = [
            module.register_forward_hook(timed(functools.partial(self._sample, row)))
            for row, module in enumerate(modules.values())
        ]
        self.by_layer: dict[str, dict[str, float]] = {"activation_outliers": {}, "activation_variance": {}}
        """The latest share of outliers, and output variance, of every layer that has been sampled."""

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue the statistics of what the hooks sampled; a hook's failure is raised here."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if due.now & ACTIVATIONS:
            packet.add("activations", _statistics(self._buffer))
        # Compiled graphs sample in every pass, so what was sampled before the due tick is dropped too.
        if (due.now | due.next) & ACTIVATIONS:
            self._buffer[:, -1] = 0
        self._armed = bool(due.next & ACTIVATIONS)

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the largest over the layers that were sampled."""
        flat = numbers.get("activations", [])
        rows = [Row(*flat[start : start + 5]) for start in range(0, len(flat), 5)]
        seen = {name: row for name, row in zip(self._names, rows, strict=bool(rows)) if row.count}
        self.by_layer["activation_outliers"] |= {name: row.outliers for name, row in seen.items()}
        self.by_layer["activation_variance"] |= {name: row.variance for name, row in seen.items()}
        return {scope.key: _largest(scope, seen) for scope in self._scopes}

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
        tensor = tensor.detach()
        self._buffer[row, -1] = _sample_into(self._buffer[row, :OUTPUT_SAMPLE], tensor, row)
        self._buffer[row, -2] = torch.maximum(tensor.amax(), -tensor.amin())


@frozen
class Row:
    """What the sampled outputs of one layer come to."""

    count: float
    variance: float
    outliers: float
    magnitude: float
    rms: float

    @property
    def peak(self) -> float:
        """The largest output over the rms; a layer whose outputs are all zero has no peak."""
        if self.rms == 0:
            return 0.0
        return math.nan if math.isnan(self.magnitude) else self.magnitude / self.rms


def _largest(scope: Scope, rows: Mapping[str, Row]) -> Value:
    found = [rows[name] for name in scope.layers if name in rows]
    match scope.source:
        case "activation_outliers":
            return largest(row.outliers for row in found)
        case "activation_variance":
            return largest(row.variance for row in found)
    return largest(row.peak for row in found)


def _new_buffer(modules: Mapping[str, nn.Module]) -> torch.Tensor:
    first = next(iter(modules.values()))
    device = next(first.parameters(recurse=False)).device
    return torch.zeros(len(modules), OUTPUT_SAMPLE + 2, device=device)


def _first_tensor(output: object) -> torch.Tensor | None:
    if isinstance(output, torch.Tensor):
        return output
    parts = list(output.values()) if isinstance(output, Mapping) else output
    if isinstance(parts, list | tuple):
        return next((part for part in parts if isinstance(part, torch.Tensor)), None)
    return None


def _sample_into(buffer: torch.Tensor, tensor: torch.Tensor, row: int) -> int:
    """Copy a sample of a tensor to the front of a row, and return its length."""
    if torch.compiler.is_compiling():
        # A dynamic shape must not be specialised by a greatest common divisor: an odd step is near enough.
        odd = 2 * ((tensor.numel() + OUTPUT_SAMPLE - 1) // OUTPUT_SAMPLE // 2) + 1
        sample = tensor.reshape(-1)[::odd]
        buffer[: sample.numel()] = sample
        return sample.numel()
    pattern = Pattern.of(tensor.numel(), row)
    buffer[: pattern.count].view(pattern.size).copy_(pattern.view(solid(tensor)))
    return pattern.count


def _statistics(buffer: torch.Tensor) -> torch.Tensor:
    """Return for each row its count, variance, share of outliers, largest magnitude and root mean square."""
    count = buffer[:, -1:]
    inside = torch.arange(OUTPUT_SAMPLE, device=buffer.device) < count
    sample = torch.where(inside, buffer[:, :OUTPUT_SAMPLE], 0.0)
    centred = torch.where(inside, sample - sample.sum(1, keepdim=True) / count, 0.0)
    rms = (sample.square().sum(1, keepdim=True) / count).sqrt()
    outliers = (sample.abs() > _OUTLIER * rms).sum(1, keepdim=True) / count
    variance = centred.square().sum(1, keepdim=True) / count
    return torch.cat((count, variance, outliers, buffer[:, -2:-1], rms), dim=1)
