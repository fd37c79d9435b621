"""What a small training is made of: a model, its batches and its held-out loss, all from seeds."""

from __future__ import annotations

from typing import Protocol

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn import functional

from lbw_policy.lab.gpt import Gpt, GptShape
from lbw_policy.lab.text import Text


@frozen(eq=False)
class Batch:
    """One batch; `weight` multiplies its mean loss, as a loss mask or a normaliser would."""

    inputs: Tensor
    targets: Tensor
    weight: float = 1.0


class Task(Protocol):
    """A kind of training; the same seed and step always give the same model and batch."""

    @property
    def name(self) -> str:
        """Return the name shown to people."""
        ...

    def model(self, seed: int) -> nn.Module:
        """Return a new model."""
        ...

    def batch(self, seed: int, step: int) -> Batch:
        """Return the batch of a step; it does not depend on what was trained before."""
        ...

    def noise(self, seed: int, step: int) -> Batch:
        """Return a batch of the same shape as `batch` with nothing in it to learn."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the weighted mean loss, a scalar."""
        ...

    def held_out(self, model: nn.Module) -> float:
        """Return the mean loss on data never trained on, in nats."""
        ...


@frozen
class Draw:
    """The data due at one step of a run."""

    task: Task
    seed: int
    step: int

    def batch(self) -> Batch:
        """Return the batch of this step."""
        return self.task.batch(self.seed, self.step)

    def noise(self) -> Batch:
        """Return noise in its place."""
        return self.task.noise(self.seed, self.step)


@frozen(eq=False)
class ByteLanguage:
    """Predict the next byte of a text with a small decoder."""

    text: Text = field(repr=False)
    shape: GptShape = field(factory=GptShape)
    size: int = 16
    held_out_size: int = 128
    name: str = "byte-level GPT"

    def model(self, seed: int) -> nn.Module:
        """Return a new decoder; the global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Gpt(self.shape)

    def batch(self, seed: int, step: int) -> Batch:
        """Return `size` windows at random places of the training text, int64 of shape [size, context]."""
        last = len(self.text.train) - self.shape.context - 1
        return self._windows(self.text.train, torch.randint(last, (self.size,), generator=_source(seed, step)))

    def noise(self, seed: int, step: int) -> Batch:
        """Return uniformly random bytes, with targets that have nothing to do with them."""
        shape = (2, self.size, self.shape.context)
        inputs, targets = torch.randint(self.shape.vocabulary, shape, generator=_source(seed, ~step))
        return Batch(inputs, targets)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the batch in nats, times its weight."""
        scores: Tensor = model(batch.inputs)
        return functional.cross_entropy(scores.flatten(0, 1), batch.targets.flatten()) * batch.weight

    @torch.no_grad()
    def held_out(self, model: nn.Module) -> float:
        """Return the mean cross entropy over evenly spread windows of the held-out text, in nats."""
        last = len(self.text.held_out) - self.shape.context - 1
        places = torch.linspace(0, last, self.held_out_size).long()
        return float(self.loss(model, self._windows(self.text.held_out, places)))

    def _windows(self, text: Tensor, places: Tensor) -> Batch:
        window = text[places[:, None] + torch.arange(self.shape.context + 1)].long()
        return Batch(window[:, :-1], window[:, 1:])


def _source(seed: int, step: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
