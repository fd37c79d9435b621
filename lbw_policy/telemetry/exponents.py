"""The histogram of the gradients' exponents, and what is read from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from attrs import frozen
from torch.optim import Optimizer

from lbw_policy.errors import StateError
from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value, widest
from lbw_policy.telemetry.samples import Sampler, gradient_scale

EXPONENTS = frozenset({"grad_underflow", "grad_overflow", "exponent_spread", "exponent_kurtosis", "exponent_shift"})
_BIAS = 127
_BROKEN = 255  # the exponent field of infinity and NaN
_ZERO = 256
_BINS = 257
_NEAR_TOP = 2  # powers of two below the largest


@frozen
class Histogram:
    """How many gradient elements have each fp32 exponent; what stands for them is `counts`, zeros come last.

    `lowest` and `highest` are the exponents of the smallest normal and of the largest number of the
    gradients' type, `scale` what the gradients have yet to be divided by.
    """

    counts: Sequence[float]
    lowest: int
    highest: int
    scale: float = 1.0

    @property
    def total(self) -> float:
        """How many elements there are."""
        return sum(self.counts)

    @property
    def underflow(self) -> Value:
        """The share of elements that are zero, or smaller than a normal number of their type."""
        least = max(0, self.lowest + _BIAS)
        return self._share(sum(self.counts[:least]) + self.counts[_ZERO])

    @property
    def overflow(self) -> Value:
        """The share of elements above a quarter of the largest number of their type, infinity and NaN included."""
        return self._share(sum(self.counts[self.highest + 1 - _NEAR_TOP + _BIAS : _ZERO]))

    @property
    def spread(self) -> Value:
        """The standard deviation of the exponents of finite elements that are not zero."""
        moment = self._moment(2)
        return None if moment is None else math.sqrt(moment)

    @property
    def kurtosis(self) -> Value:
        """The excess kurtosis of the exponents; None where all are the same."""
        square, fourth = self._moment(2), self._moment(4)
        return fourth / (square * square) - 3 if square and fourth is not None else None

    def distance(self, other: Histogram) -> Value:
        """Return the earth mover's distance of two histograms' exponents, in powers of two."""
        if not self._finite or not other._finite:
            return None
        moved = round(math.log2(other.scale / self.scale)) if self.scale > 0 and other.scale > 0 else 0
        here, there = self._shares(0), other._shares(-moved)
        ahead, walked = 0.0, 0.0
        for exponent in range(min((*here, *there)), max((*here, *there)) + 1):
            ahead += here.get(exponent, 0.0) - there.get(exponent, 0.0)
            walked += abs(ahead)
        return walked

    @property
    def _finite(self) -> float:
        return sum(self.counts[:_BROKEN])

    def _share(self, count: float) -> Value:
        return count / self.total if self.total else None

    def _shares(self, moved: int) -> dict[int, float]:
        finite = self._finite
        return {field + moved: count / finite for field, count in enumerate(self.counts[:_BROKEN]) if count}

    def _moment(self, power: int) -> Value:
        finite = self._finite
        if not finite:
            return None
        mean = sum(field * count for field, count in enumerate(self.counts[:_BROKEN])) / finite
        return sum((field - mean) ** power * count for field, count in enumerate(self.counts[:_BROKEN])) / finite


class Exponents:
    """`grad_underflow`, `grad_overflow`, `exponent_spread`, `exponent_kurtosis`, `exponent_shift`.

    Exponents are those of the gradients as they lie in `.grad`, from a fixed sample; each sampled
    run counts as often as it stands for others. Gradients are near log-normal (Chmiel et al., 2020), so
    the kurtosis of a healthy run's exponents is near 0. Which part of them is lost in fp16 is what
    loss scaling is about (Micikevicius et al., 2018).
    """

    def __init__(self, optimizer: Optimizer, sampler: Sampler) -> None:
        self._optimizer = optimizer
        self._sampler = sampler
        self._limits = (-126, 127)
        self._last: Histogram | None = None

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue the histogram."""
        if due.again or not due.now & EXPONENTS:
            return
        sample = self._sampler.gradients()
        if len(sample.absent) == len(self._sampler.parameters):
            return
        counts = self._counted(sample.values.float(), sample.absent)
        packet.add("exponents", counts.to(widest(counts.device)))
        self._limits = _limits({p.grad.dtype for p in self._sampler.parameters if p.grad is not None})
        scale = gradient_scale(self._optimizer)
        if scale is not None:
            packet.add("exponents scale", scale)

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the readings."""
        if "exponents" not in numbers:
            return {}
        (scale,) = numbers.get("exponents scale", [1.0])
        found, last = Histogram(numbers["exponents"], *self._limits, scale), self._last
        self._last = found
        return {
            "grad_underflow": found.underflow,
            "grad_overflow": found.overflow,
            "exponent_spread": found.spread,
            "exponent_kurtosis": found.kurtosis,
            "exponent_shift": None if last is None else found.distance(last),
        }

    def state_dict(self) -> dict[str, object]:
        """Return the last histogram."""
        last = self._last
        return {} if last is None else {"counts": list(last.counts), "scale": last.scale}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the last histogram; `StateError` if it is damaged."""
        counts, scale = state.get("counts"), state.get("scale")
        if not state:
            self._last = None
            return
        if not isinstance(counts, list) or len(counts) != _BINS or not isinstance(scale, float):
            raise StateError(f"expected {_BINS} `counts` and a `scale` in the saved telemetry")
        if not all(isinstance(count, float) and count >= 0 for count in counts):
            raise StateError("expected `counts` to be numbers in the saved telemetry")
        self._last = Histogram(counts, *self._limits, scale)

    def _counted(self, values: torch.Tensor, absent: frozenset[int]) -> torch.Tensor:
        fields = (values.view(torch.int32) >> 23) & _BROKEN
        fields = torch.where(values == 0, _ZERO, fields).long()
        # INVARIANT: whole numbers add up to the same in any order, so that all ranks and devices agree.
        counts = torch.zeros(_BINS, dtype=torch.int64, device=values.device)
        return counts.scatter_add_(0, fields, self._weights(absent))

    def _weights(self, absent: frozenset[int]) -> torch.Tensor:
        counts = [0 if n in absent else one.distance for n, one in enumerate(self._sampler.patterns)]
        return self._sampler.whole(tuple(counts))


def _limits(types: set[torch.dtype]) -> tuple[int, int]:
    """Return the exponents of the smallest normal and the largest number of the narrowest type, within fp32's."""
    limits = [torch.finfo(kind) for kind in types if kind.is_floating_point]
    lowest = max((math.frexp(limit.smallest_normal)[1] - 1 for limit in limits), default=-126)
    highest = min((math.frexp(limit.max)[1] - 1 for limit in limits), default=127)
    return max(lowest, -126), min(highest, 127)
