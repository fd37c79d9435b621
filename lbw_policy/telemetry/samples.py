"""Fixed samples of tensors: cheap, deterministic, spread over the whole tensor."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

import torch
from attrs import frozen

RUN = 16
"""Elements sampled in one piece: a cache line of fp32."""
RUNS = 256
"""Most runs of one tensor; smaller tensors are taken whole. `benchmarks/estimators.py` measures what this leaves."""
WEIGHT_SAMPLE = RUN * RUNS
_CHUNK = 64
_GOLDEN = (math.sqrt(5) - 1) / 2


@functools.lru_cache(maxsize=4096)
def stride_for(numel: int, most: int) -> int:
    """Return the step that visits at most `most` of `numel` elements and favours no row or column.

    It is coprime to `numel` and so to every dimension: a step of 128 through rows of 512 would see
    four columns only.
    """
    stride = max(1, -(-numel // most))
    while math.gcd(stride, numel) != 1:
        stride += 1
    return stride


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return the stored numbers as a dense real tensor: coalesced values of a sparse one, pairs of a complex one."""
    dense = tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor
    return torch.view_as_real(dense) if dense.is_complex() else dense


def gradient_scale(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """Return what a fused optimizer will divide the gradients by (set by GradScaler), or None."""
    scale = getattr(optimizer, "grad_scale", None)
    return scale if isinstance(scale, torch.Tensor) else None


@frozen
class Pattern:
    """Which elements of a tensor are sampled, in storage order: all, or runs of `RUN` at equal distances."""

    size: tuple[int, ...]
    steps: tuple[int, ...]
    start: int
    distance: int
    """One of so many runs is sampled."""
    numel: int

    @classmethod
    @functools.lru_cache(maxsize=16384)
    def of(cls, numel: int, place: int) -> Pattern:
        """Return the pattern of a tensor; `place` among all tensors moves its start, so that errors do not add up."""
        if numel <= WEIGHT_SAMPLE:
            return cls((numel,), (1,), 0, 1, numel)
        blocks = numel // RUN
        distance = stride_for(blocks, RUNS)
        start = int(distance * math.modf((place + 1) * _GOLDEN)[0])
        count = -(-(blocks - start) // distance)
        return cls((count, RUN), (distance * RUN, 1), start * RUN, distance, numel)

    @property
    def count(self) -> int:
        """How many elements are sampled."""
        return math.prod(self.size)

    @property
    def stands_for(self) -> float:
        """How many elements each sampled one stands for."""
        return self.numel / self.count if self.count else 0.0

    def view(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sampled elements of a tensor without holes in its storage."""
        return tensor.as_strided(self.size, self.steps, tensor.storage_offset() + self.start)


@frozen(eq=False)
class Sample:
    """One number for every sampled element, zero where its tensor had none, and the numbers of such tensors.

    It lies in a buffer that is used again: it stands until the second next call for the same kind of sample.
    """

    values: torch.Tensor
    absent: frozenset[int] = frozenset()


class Sampler:
    """The same sample of the same parameters, again and again, as one flat tensor of at least fp32.

    Each parameter's part is followed by zeros up to a multiple of 64. `dot` sums over it, for each
    parameter where `divided` is set, over all of them otherwise.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], *, divided: bool = False) -> None:
        self.parameters = list(parameters)
        self.divided = divided
        self._buffers: dict[str, list[tuple[torch.Tensor, list[torch.Tensor]]]] = {}
        self._pointers: list[int] = []
        self._gradients: Sample | None = None
        self._whole: tuple[tuple[int, ...], torch.Tensor] | None = None
        self._refresh()

    def begin(self) -> None:
        """Begin a tick: gradients are sampled anew."""
        self._gradients = None

    def weights(self, kind: str = "weights") -> Sample:
        """Return the sampled weights."""
        if self._pointers != [parameter.data_ptr() for parameter in self.parameters]:
            self._refresh()
        views = self._views if self._views is not None else self._fresh_views(self.parameters)
        flat, rows = self._next_buffer(kind)
        torch._foreach_copy_(rows, views)
        return Sample(flat)

    def gradients(self) -> Sample:
        """Return the sampled gradients of this tick."""
        if self._gradients is None:
            self._gradients = self.like([parameter.grad for parameter in self.parameters], "gradients")
        return self._gradients

    def like(self, tensors: Sequence[torch.Tensor | None], kind: str) -> Sample:
        """Return the sample of tensors that are shaped like the parameters: gradients, moments.

        None, sparse and wrongly shaped tensors are absent. `kind` names the buffers to use.
        """
        flat, rows = self._next_buffer(kind)
        into, views, absent = [], [], []
        for number, (tensor, parameter) in enumerate(zip(tensors, self.parameters, strict=True)):
            if tensor is None or tensor.layout is not torch.strided or tensor.shape != parameter.shape:
                rows[number].zero_()
                absent.append(number)
            else:
                into.append(rows[number])
                views.append(self._view(number, _in_layout_of(parameter, tensor)))
        if views:
            torch._foreach_copy_(into, views)
        return Sample(flat, frozenset(absent))

    def without(self, sample: Sample, absent: Iterable[int]) -> torch.Tensor:
        """Return a sample with zeros in place of the given parameters."""
        places = [slice(self._starts[number], self._starts[number + 1]) for number in absent]
        if not places:
            return sample.values
        values = sample.values.clone()
        for place in places:
            values[place] = 0
        return values

    def dot(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return the sums of products: of each parameter, or one over all; one side has been weighted."""
        if not self.divided:
            return torch.dot(left, right).reshape(1)
        parts = (left * right).view(-1, _CHUNK).sum(1)
        return torch.segment_reduce(parts, "sum", lengths=self._chunks, initial=0, unsafe=True)

    @property
    def sums(self) -> int:
        """How many numbers `dot` returns."""
        return len(self.parameters) if self.divided else 1

    def weighted(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values, each times the number of elements it stands for."""
        return values * self._multiplicity

    def whole(self, numbers: tuple[int, ...]) -> torch.Tensor:
        """Return a flat tensor of whole numbers, one for each parameter, as `spread` does; the last one is kept."""
        if self._whole is None or self._whole[0] != numbers:
            self._whole = numbers, self._spread(numbers, self._empty().long())
        return self._whole[1]

    def spread(self, numbers: Sequence[float]) -> torch.Tensor:
        """Return a flat tensor with the number of each parameter at all of its sampled elements, zero between them."""
        return self._spread(numbers, self._empty())

    def _spread(self, numbers: Sequence[float], flat: torch.Tensor) -> torch.Tensor:
        for number, value in enumerate(numbers):
            flat[self._starts[number] : self._starts[number] + self.patterns[number].count] = value
        return flat

    def _refresh(self) -> None:
        """Make everything anew: weights move when a model changes device or `.data` is swapped."""
        dense = [plain(parameter.detach()) for parameter in self.parameters]
        self.patterns = [Pattern.of(tensor.numel(), place) for place, tensor in enumerate(dense)]
        chunks = [-(-pattern.count // _CHUNK) for pattern in self.patterns]
        self._starts = [_CHUNK * sum(chunks[:number]) for number in range(len(chunks) + 1)]
        self._dtype = torch.float64 if any(t.dtype is torch.float64 for t in dense) else torch.float32
        self._device = dense[0].device if dense else torch.device("cpu")
        self._chunks = torch.tensor(chunks, device=self._device)
        self._buffers, self._whole = {}, None
        self._views = self._fresh_views(self.parameters) if all(map(_has_no_holes, dense)) else None
        self._pointers = [parameter.data_ptr() for parameter in self.parameters]
        self._multiplicity = self.spread([pattern.stands_for for pattern in self.patterns])

    def _fresh_views(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        # Views of a parameter itself would be tracked by autograd.
        return [self._view(number, tensor.detach()) for number, tensor in enumerate(tensors)]

    def _view(self, number: int, tensor: torch.Tensor) -> torch.Tensor:
        return self.patterns[number].view(solid(plain(tensor)))

    def _empty(self) -> torch.Tensor:
        return torch.zeros(self._starts[-1], dtype=self._dtype, device=self._device)

    def _next_buffer(self, kind: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the older one of two buffers: what was sampled last stands while the next sample is taken."""
        pair = self._buffers.setdefault(kind, [])
        if len(pair) < 2:
            flat = self._empty()
            starts = zip(self._starts, self.patterns, strict=False)
            pair.append((flat, [flat[at : at + one.count].view(one.size) for at, one in starts]))
        else:
            pair.reverse()
        return pair[-1]


def solid(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor, or a copy if its storage has holes."""
    return tensor if _has_no_holes(tensor) else tensor.reshape(-1)


def _has_no_holes(tensor: torch.Tensor) -> bool:
    if tensor.is_contiguous():
        return True
    span = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return span == tensor.numel() and 0 not in tensor.stride()


def _in_layout_of(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor with the parameter's strides, so that both samples visit the same elements."""
    if tensor.stride() == parameter.stride():
        return tensor
    shaped = torch.empty_strided(parameter.shape, parameter.stride(), dtype=tensor.dtype, device=tensor.device)
    return shaped.copy_(tensor)
