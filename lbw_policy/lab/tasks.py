"""What a small training is made of: a model, its batches and its held-out loss, all from seeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from attrs import evolve, frozen
from torch import Tensor, nn


@frozen(eq=False)
class Batch:
    """One batch; `weight` multiplies its mean loss, as a loss mask or a normaliser would."""

    inputs: Tensor
    targets: Tensor
    weight: float = 1.0


@frozen
class View:
    """How the data of a step differ from the task's plain ones.

    `size` multiplies the number of examples, `elsewhere` is the share of them from another domain, `ease` how far
    they are restricted to the easy part (0 to below 1), `mislabelled` the share of targets dealt out anew among
    themselves.
    """

    size: float = 1.0
    elsewhere: float = 0.0
    ease: float = 0.0
    mislabelled: float = 0.0

    def count(self, usual: int) -> int:
        """Return how many examples there are where there usually are so many."""
        return max(1, round(usual * self.size))


PLAIN = View()
"""The data as they are."""


class Task(Protocol):
    """A kind of training; the same seed and step always give the same model and batch."""

    @property
    def name(self) -> str:
        """Return the name shown to people."""
        ...

    def model(self, seed: int) -> nn.Module:
        """Return a new model; the global random state is left as it was."""
        ...

    def batch(self, seed: int, step: int, view: View = PLAIN) -> Batch:
        """Return the batch of a step; it does not depend on what was trained before. `view.mislabelled` is not its."""
        ...

    def noise(self, seed: int, step: int) -> Batch:
        """Return a batch of the same shape as `batch` with nothing in it to learn."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the weighted mean loss, a scalar."""
        ...

    def held_out(self, model: nn.Module) -> float:
        """Return the mean loss on data never trained on."""
        ...


@frozen
class Draw:
    """The data due at one step of a run."""

    task: Task
    seed: int
    step: int

    def batch(self, view: View = PLAIN) -> Batch:
        """Return the batch of this step."""
        batch = self.task.batch(self.seed, self.step, view)
        return _mislabelled(batch, view.mislabelled, generator(self.seed, self.step, 1)) if view.mislabelled else batch

    def noise(self) -> Batch:
        """Return noise in its place."""
        return self.task.noise(self.seed, self.step)


def generator(seed: int, step: int, purpose: int = 0) -> torch.Generator:
    """Return the source of randomness of one step of one run; each purpose has its own."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step + purpose * 2_305_843_009_213) % 2**63)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Give the global random state a seed for a while, and put it back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, for a while."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _mislabelled(batch: Batch, share: float, source: torch.Generator) -> Batch:
    targets = batch.targets.reshape(-1).clone()
    chosen = torch.randperm(targets.numel(), generator=source)[: round(share * targets.numel())]
    targets[chosen] = targets[chosen[torch.randperm(chosen.numel(), generator=source)]]
    return evolve(batch, targets=targets.view_as(batch.targets))
