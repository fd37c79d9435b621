"""Seeded trouble: each fault strikes at a fixed step, through the place where it strikes in real runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import ClassVar

import torch
from attrs import evolve, frozen
from torch import nn
from torch.optim import Optimizer

from lbw_policy.lab.tasks import Batch, Draw


@frozen
class Fault:
    """Trouble from step `start` (counted from 0) for `length` steps; this one does nothing.

    A kind of fault overrides the hook of the place where it strikes. Hooks are called while it is active.
    """

    name: ClassVar[str] = "none"
    title: ClassVar[str] = "no trouble"
    start: int = 0
    length: int = 0

    @property
    def end(self) -> int:
        """Return the first step after the trouble."""
        return self.start + self.length

    def active(self, step: int) -> bool:
        """Tell whether the trouble is on at this step."""
        return self.start <= step < self.end

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch to train on."""
        return draw.batch()

    def on_weights(self, model: nn.Module) -> None:
        """Change the weights before the forward pass."""

    def on_gradients(self, model: nn.Module) -> None:
        """Change the gradients after the backward pass."""

    def on_update(self, optimizer: Optimizer) -> AbstractContextManager[Optimizer]:
        """Return what to hold open around `optimizer.step()`."""
        return nullcontext(optimizer)


CALM = Fault()
"""No trouble at all."""


@frozen
class NanBatch(Fault):
    """A batch whose loss mask is empty: its mean loss is 0/0, and so is every gradient.

    Seen in: DeepSpeed issue 1496, NeMo-RL issue 1230.
    """

    name: ClassVar[str] = "nan_batch"
    title: ClassVar[str] = "one NaN batch"
    length: int = 1

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch with a loss of NaN."""
        return evolve(draw.batch(), weight=float("nan"))


@frozen
class CorruptBatches(Fault):
    """A damaged shard: noise in place of data, and a loss that is `weight` times too heavy.

    Seen in: PaLM (arXiv 2204.02311, section 5.1), where 200 to 500 batches had to be left out.
    """

    name: ClassVar[str] = "corrupt_batches"
    title: ClassVar[str] = "corrupted batches"
    length: int = 12
    weight: float = 10.0

    def on_batch(self, draw: Draw) -> Batch:
        """Return noise, weighted."""
        return evolve(draw.noise(), weight=self.weight)


@frozen
class BitFlip(Fault):
    """The highest exponent bit of one weight flips: silent corruption in memory.

    The weight is the middle one of the model's middle matrix (bit 30 of an fp32, 14 of a bf16).
    Seen in: arXiv 2502.12340 and the Llama 3 report (6 of 466 interruptions in 54 days).
    """

    name: ClassVar[str] = "bit_flip"
    title: ClassVar[str] = "bit flip in a weight"
    length: int = 1

    def on_weights(self, model: nn.Module) -> None:
        """Flip the bit, in place."""
        matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
        flip_exponent_bit(matrices[len(matrices) // 2])


@frozen
class LrGlitch(Fault):
    """The learning rate is `factor` times too high, as from a mistake in its schedule.

    Seen in: arXiv 2309.14322 (instabilities of large models, reproduced small by a high rate).
    """

    name: ClassVar[str] = "lr_glitch"
    title: ClassVar[str] = "learning-rate glitch"
    length: int = 20
    factor: float = 30.0

    def on_update(self, optimizer: Optimizer) -> AbstractContextManager[Optimizer]:
        """Return a context in which every group's learning rate is multiplied."""
        return _multiplied_rates(optimizer, self.factor)


FAULTS: dict[str, type[Fault]] = {kind.name: kind for kind in (NanBatch, CorruptBatches, BitFlip, LrGlitch)}
"""Every kind of trouble by name; each has a default length."""

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def flip_exponent_bit(weight: torch.Tensor) -> None:
    """Flip the highest exponent bit of the middle element, in place; twice gives the old bits back."""
    size = weight.element_size()
    bits = weight.detach().view(-1).view(_INTEGERS[size])
    bits[bits.numel() // 2] ^= 1 << (8 * size - 2)


@contextmanager
def _multiplied_rates(optimizer: Optimizer, factor: float) -> Iterator[Optimizer]:
    before = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor
    try:
        yield optimizer
    finally:
        for group, rate in zip(optimizer.param_groups, before, strict=True):
            group["lr"] = rate
