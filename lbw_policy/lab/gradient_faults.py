"""Trouble that strikes the gradients on their way to the optimizer."""

from __future__ import annotations

import math
import random
from typing import ClassVar, Self

import torch
from attrs import frozen
from torch import Tensor, nn

from lbw_policy.lab.trouble import GRADIENT, Fault, Now, beginning, between, flip_bits, matrices


@frozen
class GradientScale(Fault):
    """Gradients explode: `factor` times too large for some steps.

    Seen in: the spikes of OPT and PaLM; a loss scale that was not divided out, a sum taken for a mean.
    """

    name: ClassVar[str] = "grad_scale"
    title: ClassVar[str] = "exploding gradients"
    group: ClassVar[str] = GRADIENT
    length: int = 3
    factor: float = 300.0

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 100 to 1,000 times, for 1 to 30 steps."""
        return cls(beginning(source, steps), source.randint(1, 30), between(source, 100, 1000))

    def on_gradients(self, model: nn.Module, now: Now) -> None:
        """Multiply the gradients, in place."""
        for gradient in _gradients(model):
            gradient.mul_(self.factor)


@frozen
class GradientNan(Fault):
    """One element of one gradient is NaN or infinite.

    Seen in: DeepSpeed pull request 8035 (one infinity in bf16 ends in weights and moments at once).
    """

    name: ClassVar[str] = "grad_nan"
    title: ClassVar[str] = "NaN in a gradient"
    group: ClassVar[str] = GRADIENT
    length: int = 1
    value: float = math.nan
    matrix: float = 0.5

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one in a random matrix."""
        return cls(beginning(source, steps), 1, source.choice((math.nan, math.inf)), round(source.random() * 0.999, 3))

    def on_gradients(self, model: nn.Module, now: Now) -> None:
        """Set the element, in place."""
        gradient = _one_gradient(model, self.matrix)
        gradient.view(-1)[gradient.numel() // 2] = self.value

    def severity(self) -> dict[str, object]:
        """Return the numbers, the value as text: JSON has no NaN."""
        return super().severity() | {"value": str(self.value)}


@frozen
class GradientFlip(Fault):
    """A bit of some elements of one gradient flips, as in the arithmetic of one rank.

    Seen in: arXiv 2604.00726 (silent corruption injected into matrix products), 2502.12340.
    """

    name: ClassVar[str] = "grad_flip"
    title: ClassVar[str] = "bit flips in a gradient"
    group: ClassVar[str] = GRADIENT
    length: int = 1
    depth: int = 1
    elements: int = 1
    matrix: float = 0.5

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return flips in the exponents of 1 to 64 elements, for 1 to 5 steps."""
        depth, elements = source.choice((1, 1, 2, 2, 3, 4)), source.choice((1, 4, 16, 64))
        return cls(beginning(source, steps), source.randint(1, 5), depth, elements, round(source.random() * 0.999, 3))

    def on_gradients(self, model: nn.Module, now: Now) -> None:
        """Flip the bits, in place."""
        flip_bits(_one_gradient(model, self.matrix), self.depth, self.elements)


@frozen
class NoiseCreep(Fault):
    """Noise in the gradients that grows by a factor at every step, from a hundredth of their size.

    Seen in: a link or a device that degrades; the factor of 1.05 stays below rules that compare with the steps before.
    """

    name: ClassVar[str] = "noise_creep"
    title: ClassVar[str] = "noise that creeps into the gradients"
    group: ClassVar[str] = GRADIENT
    length: int = 150
    growth: float = 1.05
    first: float = 0.01

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 5 to 12 % a step, to the end."""
        start = beginning(source, steps)
        return cls(start, steps - start, 1 + between(source, 0.05, 0.12), between(source, 0.01, 0.1))

    def on_gradients(self, model: nn.Module, now: Now) -> None:
        """Add the noise, in place."""
        size, random_ = self.first * self.growth ** (now.step - self.start), now.source()
        for gradient in _gradients(model):
            noise = torch.randn(gradient.shape, generator=random_)
            gradient.add_(noise * (size * gradient.square().mean().sqrt()))


@frozen
class HalfOverflow(Fault):
    """Gradients are kept in half precision under a loss scale that doubles again and again, unchecked.

    What exceeds 65,504 becomes infinite, or, with `saturates`, the largest number there is. The scale is divided out
    at once, in full precision. Seen in: fp16 training with a static loss scale; a `GradScaler` whose check is lost.
    """

    name: ClassVar[str] = "fp16_overflow"
    title: ClassVar[str] = "overflow in half precision"
    group: ClassVar[str] = GRADIENT
    length: int = 60
    every: int = 4
    saturates: bool = False

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one that doubles its scale every 1 to 5 steps, for 60 to 140 steps."""
        start, length = beginning(source, steps), source.randint(60, 140)
        return cls(start, length, source.randint(1, 5), source.random() < 0.2)

    def on_gradients(self, model: nn.Module, now: Now) -> None:
        """Round the gradients as half precision does, in place."""
        scale = 2.0 ** (10 + min(100, (now.step - self.start) // self.every))
        for gradient in _gradients(model):
            scaled = gradient * scale
            if self.saturates:
                scaled.clamp_(-65504, 65504)
            gradient.copy_(scaled.half().float() / scale)


def _gradients(model: nn.Module) -> list[Tensor]:
    return [weight.grad for weight in model.parameters() if weight.grad is not None]


def _one_gradient(model: nn.Module, place: float) -> Tensor:
    """Return the gradient of the matrix at a share of the way, laid out so that it can be changed in place."""
    found = [weight for weight in matrices(model) if weight.grad is not None]
    weight = found[int(place * len(found))]
    assert weight.grad is not None
    weight.grad = weight.grad.contiguous()
    return weight.grad
