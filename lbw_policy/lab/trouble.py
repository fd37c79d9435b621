"""What a fault is: a change of one training at one place, from a step on, for some steps."""

from __future__ import annotations

import math
import random
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import torch
from attrs import asdict, frozen
from torch import nn
from torch.optim import Optimizer

from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.tasks import Batch, Draw, generator

RATE, DATA, WEIGHTS, GRADIENT, MOMENTS, BENIGN = "lr", "data", "weights", "gradient", "moments", "benign"
GROUPS = (RATE, DATA, WEIGHTS, GRADIENT, MOMENTS, BENIGN)
"""Where trouble strikes; what is benign is no trouble, though it may look like it."""

ATTENTION, ROUTER, SECOND_MOMENTS = "attention", "router", "second moments"
"""What a fault may need of an architecture or an optimizer."""

_BEFORE, _AFTER = 100, 150


@frozen
class Now:
    """The step of a run that is under way."""

    step: int
    recipe: Recipe

    def source(self, purpose: int = 2) -> torch.Generator:
        """Return randomness of this step's own."""
        return generator(self.recipe.seed, self.step, purpose)


@frozen
class Fault:
    """Trouble from step `start` (counted from 0) for `length` steps; this one does nothing.

    A kind of fault overrides the hook of the place where it strikes. Hooks are called while it is active, in the
    order in which they are listed. `needs` are traits that architecture and optimizer must have between them.
    """

    name: ClassVar[str] = "none"
    title: ClassVar[str] = "no trouble"
    group: ClassVar[str] = BENIGN
    needs: ClassVar[frozenset[str]] = frozenset()
    start: int = 0
    length: int = 0

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one for a run of `steps`, with a random start, length and severity."""
        return cls()

    @property
    def end(self) -> int:
        """Return the first step after the trouble."""
        return self.start + self.length

    def active(self, step: int) -> bool:
        """Tell whether the trouble is on at this step."""
        return self.start <= step < self.end

    def severity(self) -> dict[str, Any]:
        """Return the numbers of this fault, as plain data."""
        return asdict(self)

    def on_weights(self, model: nn.Module, now: Now) -> None:
        """Change the weights before the forward pass."""

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch to train on."""
        return draw.batch()

    def on_gradients(self, model: nn.Module, now: Now) -> None:
        """Change the gradients after the backward pass, before the loop clips them."""

    def on_moments(self, optimizer: Optimizer, now: Now) -> None:
        """Change what the optimizer remembers, before the update."""

    def on_update(self, optimizer: Optimizer, now: Now) -> AbstractContextManager[object]:
        """Return what to hold open around `optimizer.step()`."""
        return nullcontext()


CALM = Fault()
"""No trouble at all."""


def beginning(source: random.Random, steps: int) -> int:
    """Return a random start that leaves calm steps before it, and steps after it to see what comes of it."""
    first = min(_BEFORE, steps // 3)
    return source.randint(first, max(first, steps - min(_AFTER, steps // 2)))


def between(source: random.Random, low: float, high: float) -> float:
    """Return a random number whose logarithm is uniform, rounded to three digits."""
    drawn = math.exp(source.uniform(math.log(low), math.log(high)))
    return float(f"{drawn:.3g}")


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """Return the weights with two dimensions or more."""
    return [weight for weight in model.parameters() if weight.dim() >= 2]


_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_STRIDE = 7919


def flip_bits(values: torch.Tensor, depth: int = 1, elements: int = 1) -> None:
    """Flip one bit of some elements, the middle one first, in place; twice gives the old bits back.

    `depth` counts from the sign down: 1 is the highest bit of the exponent, 8 the lowest one of an fp32.
    """
    size = values.element_size()
    bits = values.detach().view(-1).view(_INTEGERS[size])
    middle, count = bits.numel() // 2, bits.numel()
    places = {(middle + number * _STRIDE) % count for number in range(elements)}
    bits[sorted(places)] ^= 1 << (8 * size - 1 - depth)
