"""Predict the next byte of a text: the training of decoders, state-space models and recurrent nets."""

from __future__ import annotations

from typing import Protocol

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.nn import functional

from lbw_policy.lab.gpt import GptShape
from lbw_policy.lab.tasks import PLAIN, Batch, View, evaluating, generator, seeded
from lbw_policy.lab.text import Text


class Shape(Protocol):
    """The sizes of a sequence model, which know how to build it."""

    @property
    def context(self) -> int:
        """Return the length of a window."""
        ...

    @property
    def vocabulary(self) -> int:
        """Return how many different tokens there are."""
        ...

    def network(self) -> nn.Module:
        """Return a new model: int64 [batch, context] to scores [batch, context, vocabulary]."""
        ...


@frozen(eq=False)
class ByteLanguage:
    """Predict the next byte of a text with a small sequence model.

    A model with an attribute `penalty`, a scalar of its last forward pass, has it added to the loss it is trained
    on (a router's balance). `other` is the text of another domain; without it that is the same text, backwards.
    """

    text: Text = field(repr=False)
    shape: Shape = field(factory=GptShape)
    size: int = 16
    held_out_size: int = 128
    name: str = "byte-level GPT"
    other: Tensor | None = field(default=None, repr=False)

    def model(self, seed: int) -> nn.Module:
        """Return a new model; the global random state is left as it was."""
        with seeded(seed):
            return self.shape.network()

    def batch(self, seed: int, step: int, view: View = PLAIN) -> Batch:
        """Return `size` windows at random places of the training text, int64 of shape [size, context].

        The easy part of a text is its beginning.
        """
        source, count = generator(seed, step), view.count(self.size)
        last = len(self.text.train) - self.shape.context - 1
        near = max(1, int(last * (1 - view.ease)))
        batch = self._windows(self.text.train, torch.randint(near, (count,), generator=source))
        return self._elsewhere(batch, round(view.elsewhere * count), source) if view.elsewhere else batch

    def noise(self, seed: int, step: int) -> Batch:
        """Return uniformly random bytes, with targets that have nothing to do with them."""
        shape = (2, self.size, self.shape.context)
        inputs, targets = torch.randint(self.shape.vocabulary, shape, generator=generator(seed, ~step))
        return Batch(inputs, targets)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross entropy of the batch in nats, times its weight."""
        return self._entropy(model, batch) * batch.weight + getattr(model, "penalty", 0.0)

    def held_out(self, model: nn.Module) -> float:
        """Return the mean cross entropy over evenly spread windows of the held-out text, in nats."""
        last = len(self.text.held_out) - self.shape.context - 1
        places = torch.linspace(0, last, self.held_out_size).long()
        with evaluating(model):
            return float(self._entropy(model, self._windows(self.text.held_out, places)))

    def _entropy(self, model: nn.Module, batch: Batch) -> Tensor:
        scores: Tensor = model(batch.inputs)
        return functional.cross_entropy(scores.flatten(0, 1), batch.targets.flatten())

    def _elsewhere(self, batch: Batch, count: int, source: torch.Generator) -> Batch:
        text = self.text.train.flip(0) if self.other is None else self.other
        places = torch.randint(len(text) - self.shape.context - 1, (count,), generator=source)
        there = self._windows(text, places)
        return Batch(torch.cat((there.inputs, batch.inputs[count:])), torch.cat((there.targets, batch.targets[count:])))

    def _windows(self, text: Tensor, places: Tensor) -> Batch:
        window = text[places[:, None] + torch.arange(self.shape.context + 1)].long()
        return Batch(window[:, :-1], window[:, 1:])
