"""Fixed strided samples of tensors: cheap, deterministic, spread over the whole tensor."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import torch

WEIGHT_SAMPLE = 1024
"""Most elements sampled of one weight tensor; the bounds tests hold the estimators to are for this size."""


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
    dense = tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor.detach()
    return torch.view_as_real(dense) if dense.is_complex() else dense


def strided(tensor: torch.Tensor, stride: int) -> torch.Tensor:
    """Return every `stride`-th element in storage order: a view where the storage has no holes, else a copy."""
    if not _has_no_holes(tensor):
        return tensor.reshape(-1)[::stride]
    return tensor.as_strided((-(-tensor.numel() // stride),), (stride,))


def gradient_scale(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """Return what a fused optimizer will divide the gradients by (set by GradScaler), or None."""
    scale = getattr(optimizer, "grad_scale", None)
    return scale if isinstance(scale, torch.Tensor) else None


class Sampler:
    """The same sample of the same parameters, again and again, as one flat tensor of at least fp32."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.numel()]
        self._pointers: list[int] = []
        self._refresh()

    def weights(self) -> torch.Tensor:
        """Return the sampled weights."""
        if self._loose or self._pointers != [parameter.data_ptr() for parameter in self._parameters]:
            self._refresh()
        return self._joined(self._views)

    def gradients(self) -> tuple[torch.Tensor, frozenset[int]]:
        """Return the sampled gradients, zero where there is none, and the numbers of those without."""
        parts, absent = [], []
        for number, parameter in enumerate(self._parameters):
            gradient = parameter.grad
            if gradient is None or gradient.layout is not torch.strided:
                absent.append(number)
                parts.append(torch.zeros_like(self._views[number]))
            else:
                parts.append(strided(_in_layout_of(parameter, gradient), self._strides[number]))
        return self._joined(parts), frozenset(absent)

    def places(self, number: int) -> slice:
        """Return where the given parameter lies in a sample."""
        return slice(self._starts[number], self._starts[number + 1])

    def _refresh(self) -> None:
        """Make the views anew: weights move when a model changes device or `.data` is swapped."""
        dense = [plain(parameter) for parameter in self._parameters]
        self._strides = [stride_for(tensor.numel(), WEIGHT_SAMPLE) for tensor in dense]
        self._views = [strided(tensor, step) for tensor, step in zip(dense, self._strides, strict=True)]
        self._pointers = [parameter.data_ptr() for parameter in self._parameters]
        self._loose = not all(_has_no_holes(tensor) for tensor in dense)
        self._devices = {view.device for view in self._views}
        counts = [view.numel() for view in self._views]
        self._starts = [sum(counts[:number]) for number in range(len(counts) + 1)]
        self.multiplicity = self._joined(
            [
                view.new_full((view.numel(),), t.numel() / view.numel(), dtype=torch.float32)
                for t, view in zip(dense, self._views, strict=True)
            ]
        )
        """How many elements of its tensor each sampled one stands for."""

    def _joined(self, parts: list[torch.Tensor]) -> torch.Tensor:
        if len(self._devices) > 1:
            parts = [part.to(parts[0].device, non_blocking=True) for part in parts]
        flat = torch.cat(parts) if parts else torch.zeros(0)
        return flat.float() if flat.dtype.itemsize < 4 else flat


def _has_no_holes(tensor: torch.Tensor) -> bool:
    span = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return span == tensor.numel() and 0 not in tensor.stride()


def _in_layout_of(parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return the gradient with the parameter's strides, so that both samples visit the same elements."""
    if gradient.stride() != parameter.stride():
        gradient = torch.empty_strided(
            parameter.shape, parameter.stride(), dtype=gradient.dtype, device=gradient.device
        ).copy_(gradient)
    return plain(gradient)
