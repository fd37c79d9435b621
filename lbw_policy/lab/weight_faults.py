"""Trouble that strikes the weights themselves."""

from __future__ import annotations

import random
from typing import ClassVar, Self

import torch
from attrs import frozen
from torch import nn

from lbw_policy.lab.gpt import Attention
from lbw_policy.lab.trouble import ATTENTION, ROUTER, WEIGHTS, Fault, Now, beginning, between, flip_bits, matrices


@frozen
class BitFlip(Fault):
    """One bit of a weight flips, the highest of the exponent by default: silent corruption in memory.

    `matrix` tells which one, as a share of the way through the model; see `flip_bits` for `depth` and `elements`.
    Seen in: arXiv 2502.12340, 2604.00726, and the Llama 3 report (6 of 466 interruptions in 54 days).
    """

    name: ClassVar[str] = "bit_flip"
    title: ClassVar[str] = "bit flip in a weight"
    group: ClassVar[str] = WEIGHTS
    length: int = 1
    depth: int = 1
    elements: int = 1
    matrix: float = 0.5

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return a flip in the exponent of 1 to 64 elements."""
        depth, elements = source.choice((1, 1, 1, 1, 5, 6)), source.choice((1, 4, 16, 64))
        return cls(beginning(source, steps), 1, depth, elements, round(source.random() * 0.999, 3))

    def on_weights(self, model: nn.Module, now: Now) -> None:
        """Flip the bits, in place."""
        found = matrices(model)
        flip_bits(found[int(self.matrix * len(found))], self.depth, self.elements)


@frozen
class WeightNoise(Fault):
    """Noise of `size` times each matrix's root mean square is added to it, once: a bad copy, a lossy checkpoint.

    Seen in: the silent data corruptions of arXiv 2502.12340, where many elements are a little wrong.
    """

    name: ClassVar[str] = "weight_noise"
    title: ClassVar[str] = "noise in the weights"
    group: ClassVar[str] = WEIGHTS
    length: int = 1
    size: float = 1.0

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 0.2 to 10 times the weights."""
        return cls(beginning(source, steps), 1, between(source, 0.2, 10))

    @torch.no_grad()
    def on_weights(self, model: nn.Module, now: Now) -> None:
        """Add the noise, in place."""
        random_ = now.source()
        for weight in matrices(model):
            noise = torch.randn(weight.shape, generator=random_)
            weight.add_(noise * (self.size * weight.square().mean().sqrt()))


@frozen
class LogitGrowth(Fault):
    """Queries and keys grow by a factor at every step, until attention looks at one place only.

    Seen in: arXiv 2309.14322 and 2302.05442 (query-key normalisation against it), Kimi K2's clip of the same weights.
    """

    name: ClassVar[str] = "logit_growth"
    title: ClassVar[str] = "attention logits that grow"
    group: ClassVar[str] = WEIGHTS
    needs: ClassVar[frozenset[str]] = frozenset({ATTENTION})
    length: int = 60
    growth: float = 1.05

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 3 to 12 % a step, for 40 to 140 steps."""
        return cls(beginning(source, steps), source.randint(40, 140), 1 + between(source, 0.03, 0.12))

    @torch.no_grad()
    def on_weights(self, model: nn.Module, now: Now) -> None:
        """Let the rows of queries and keys grow, in place."""
        for part in model.modules():
            if isinstance(part, Attention):
                part.qkv.weight[: 2 * part.qkv.in_features].mul_(self.growth)


@frozen
class OutputGrowth(Fault):
    """The weights of the output grow by a factor at every step: output logits that diverge.

    Seen in: PaLM's z-loss (arXiv 2204.02311, section 5), which is there to prevent it.
    """

    name: ClassVar[str] = "output_growth"
    title: ClassVar[str] = "output logits that grow"
    group: ClassVar[str] = WEIGHTS
    length: int = 60
    growth: float = 1.05

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 2 to 10 % a step, for 40 to 140 steps."""
        return cls(beginning(source, steps), source.randint(40, 140), 1 + between(source, 0.02, 0.1))

    @torch.no_grad()
    def on_weights(self, model: nn.Module, now: Now) -> None:
        """Let the output's weights grow, in place; where they are the embedding's too, those grow with them."""
        output = model.get_parameter("head.weight" if hasattr(model, "head") else "embedding.weight")
        output.mul_(self.growth)


@frozen
class RouterCollapse(Fault):
    """Every router is pushed towards its first two experts at every step, so that all tokens end up there.

    Seen in: ST-MoE (arXiv 2202.08906), the dead experts of every run without a balance loss.
    """

    name: ClassVar[str] = "router_collapse"
    title: ClassVar[str] = "router collapse"
    group: ClassVar[str] = WEIGHTS
    needs: ClassVar[frozenset[str]] = frozenset({ROUTER})
    length: int = 60
    push: float = 0.5

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 0.1 to 20 logits a step, for 10 to 120 steps."""
        return cls(beginning(source, steps), source.randint(10, 120), between(source, 0.1, 20))

    @torch.no_grad()
    def on_weights(self, model: nn.Module, now: Now) -> None:
        """Push, in place."""
        for name, part in model.named_modules():
            if name.endswith("router") and isinstance(part, nn.Linear):
                part.bias[:2].add_(self.push)
                part.weight[:2].mul_(1 + self.push / 10)
