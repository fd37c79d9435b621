"""What is to be measured, what was measured, and the one transfer between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch
from attrs import field, frozen

from lbw_policy.telemetry.transfer import Transfer

Value = float | None
Numbers = Mapping[str, list[float]]
Present = float | torch.Tensor | None
"""A reading as it is before the transfer: known to the host, one number on the device, or none."""


@frozen
class Plan:
    """What to measure; nothing else is computed.

    `every` maps a source (a key of `semantics.signals.SIGNALS`) to how many ticks lie between two
    samples: it is sampled in ticks that `every` divides. `SOURCE of GROUP` is a source taken over
    one of the `groups`, each a set of layers. `layer_statistics` are wanted per layer (every 10
    ticks where `every` does not say). `observed` are the user's own names. `plugins` are further
    sources, each measured by a function of the tick. `clips` tells that gradients may be clipped to
    a norm, so that their present norm must be known in every tick that reads `grad_norm`. Unless the
    host `waits` for a tick's numbers, an infinite norm cannot be looked at again.
    """

    every: Mapping[str, int]
    layer_statistics: frozenset[str] = frozenset()
    observed: frozenset[str] = frozenset()
    plugins: Mapping[str, Callable[[int], object]] = field(factory=dict)
    groups: Mapping[str, frozenset[str]] = field(factory=dict)
    clips: bool = False
    waits: bool = True


@frozen
class Readings:
    """One tick's telemetry: None means not due, not observed or not available yet; NaN and inf are readings.

    `norm` is the L2 norm of the gradients as they are now, if it was measured: that of `values` is
    the norm before the loop's own clip, where the loop tells it. `failures` has what plugins failed
    at for the first time, `notes` what a person should know of a signal that cannot be read.
    """

    values: Mapping[str, Value]
    layers: Mapping[str, Mapping[str, float]]
    failures: tuple[str, ...] = ()
    norm: Value = None
    notes: tuple[str, ...] = ()


@frozen
class Due:
    """The sources to report in this tick, and those that the next tick will report.

    `again` tells that this tick was read before: an optimizer may call its closure more than once.
    """

    now: frozenset[str]
    next: frozenset[str]
    tick: int = 0
    again: bool = False


class Source(Protocol):
    """A group of sources: puts tensors into the packet before the transfer, takes numbers out after it."""

    def measure(self, due: Due, packet: Packet, /) -> None:
        """Queue the device-side results for the transfer, reading nothing back."""

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the readings that the numbers which came over allow."""


@frozen(eq=False)
class Sent:
    """A packet that is under way: of each device's transfer the names of its parts, and how long they are."""

    _transfers: tuple[tuple[Transfer, tuple[tuple[str, int], ...]], ...]

    @property
    def on_host(self) -> bool:
        """Whether nothing of it comes from an accelerator."""
        return all(transfer.on_host for transfer, _ in self._transfers)

    def unpack(self) -> dict[str, list[float]]:
        """Return the numbers by name, waiting for those that are not there yet."""
        numbers: dict[str, list[float]] = {}
        for transfer, parts in self._transfers:
            _sort(transfer.numbers(), parts, numbers)
        return numbers


class Packet:
    """Small tensors that cross from device to host together: one transfer per device that holds any."""

    def __init__(self) -> None:
        self._parts: dict[torch.device, list[tuple[str, torch.Tensor]]] = {}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Queue a real tensor of any shape; it comes back flat."""
        self._parts.setdefault(tensor.device, []).append((name, tensor.detach().reshape(-1)))

    @property
    def on_host(self) -> bool:
        """Whether nothing in it lies on an accelerator."""
        return all(device.type == "cpu" for device in self._parts)

    def unpack(self) -> dict[str, list[float]]:
        """Transfer everything and return the numbers by name (parts of one name are joined)."""
        numbers: dict[str, list[float]] = {}
        for parts in self._parts.values():
            _sort(torch.cat([tensor for _, tensor in parts]).tolist(), _sizes(parts), numbers)
        return numbers

    def send(self) -> Sent:
        """Start the transfers, and let the host go on."""
        packed = [(torch.cat([tensor for _, tensor in parts]), _sizes(parts)) for parts in self._parts.values()]
        return Sent(tuple((Transfer.of(flat), sizes) for flat, sizes in packed))


def _sizes(parts: Iterable[tuple[str, torch.Tensor]]) -> tuple[tuple[str, int], ...]:
    return tuple((name, tensor.numel()) for name, tensor in parts)


def _sort(flat: list[float], parts: Iterable[tuple[str, int]], numbers: dict[str, list[float]]) -> None:
    start = 0
    for name, size in parts:
        numbers.setdefault(name, []).extend(flat[start : start + size])
        start += size


def widest(device: torch.device) -> torch.dtype:
    """Return the most precise type a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def largest(values: Iterable[float]) -> Value:
    """Return the largest value, NaN if any is NaN, None if there is none."""
    found = list(values)
    if any(math.isnan(value) for value in found):
        return math.nan
    return max(found, default=None)


def quotient(above: float, below: float) -> Value:
    """Return a ratio; one over zero is not available."""
    return None if below == 0 else above / below


def root(square: float) -> float:
    """Return the square root; what rounding made negative counts as zero, NaN stays."""
    return math.sqrt(square) if square > 0 or math.isnan(square) else 0.0


def added(sums: list[float], part: Iterable[int]) -> float:
    """Return the sum over some parameters; not finite where any of them is not."""
    return sum(sums[number] for number in part)


def cosine(numbers: Numbers, names: tuple[str, str, str], part: Iterable[int]) -> Value:
    """Return the cosine of two vectors from their product and both squares; rounding cannot leave [-1, 1]."""
    part = tuple(part)
    product, one, other = (added(numbers[name], part) for name in names)
    value = quotient(product, root(one) * root(other))
    return value if value is None or math.isnan(value) else max(-1.0, min(1.0, value))
