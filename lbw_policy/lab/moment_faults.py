"""Trouble with what the optimizer remembers."""

from __future__ import annotations

import random
from typing import ClassVar, Self

from attrs import field, frozen, validators
from torch import nn
from torch.optim import Optimizer

from lbw_policy.lab.trouble import MOMENTS, SECOND_MOMENTS, Fault, Now, beginning, between, flip_bits

_FIRST = ("exp_avg", "momentum_buffer")
_SECOND = "exp_avg_sq"


@frozen
class MomentFlip(Fault):
    """A bit of some elements of one first or second moment flips.

    Seen in: arXiv 2502.12340; the state of Adam is twice as large a target as the weights.
    """

    name: ClassVar[str] = "moment_flip"
    title: ClassVar[str] = "bit flips in the moments"
    group: ClassVar[str] = MOMENTS
    length: int = 1
    depth: int = 1
    elements: int = 1
    matrix: float = 0.5
    second: bool = False

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return flips in the exponents of 1 to 64 elements."""
        depth, elements = source.choice((1, 1, 1, 2, 2, 3)), source.choice((1, 4, 16, 64))
        matrix = round(source.random() * 0.999, 3)
        return cls(beginning(source, steps), 1, depth, elements, matrix, source.random() < 0.3)

    def on_moments(self, optimizer: Optimizer, now: Now) -> None:
        """Flip the bits, in place; plain momentum stands in where there are no second moments."""
        names = (_SECOND, *_FIRST) if self.second else _FIRST
        held = [state for weight, state in optimizer.state.items() if weight.dim() >= 2]
        state = held[int(self.matrix * len(held))]
        flip_bits(next(state[name] for name in names if name in state), self.depth, self.elements)


@frozen
class StaleMoments(Fault):
    """Gradients are `factor` times smaller for a while and then come back: second moments that have forgotten them.

    Seen in: arXiv 2304.13013 and 2506.04805 (spikes where the second moment lags behind the gradient).
    """

    name: ClassVar[str] = "stale_moments"
    title: ClassVar[str] = "second moments that went stale"
    group: ClassVar[str] = MOMENTS
    needs: ClassVar[frozenset[str]] = frozenset({SECOND_MOMENTS})
    length: int = 80
    factor: float = 1e-3

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 40 to 120 steps, 30 to 10,000 times smaller."""
        return cls(beginning(source, steps), source.randint(40, 120), between(source, 1e-4, 0.03))

    def on_gradients(self, model: nn.Module, now: Now) -> None:
        """Shrink the gradients, in place."""
        for weight in model.parameters():
            if weight.grad is not None:
                weight.grad.mul_(self.factor)


@frozen
class MomentsLost(Fault):
    """A restart loses the optimizer's memory: all of it, or the second moments only; the learning rate stays.

    Seen in: resumes without optimizer state (OneVision-Encoder issue 65, apex issue 180); `second` is a checkpoint of
    which a part was not restored, so that the step count is there and its correction of the start is not.
    """

    name: ClassVar[str] = "moments_lost"
    title: ClassVar[str] = "moments lost at a restart"
    group: ClassVar[str] = MOMENTS
    needs: ClassVar[frozenset[str]] = frozenset({SECOND_MOMENTS})
    length: int = 1
    lost: str = field(default="all", validator=validators.in_(("all", "second")))

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one that loses all, or the second moments."""
        return cls(beginning(source, steps), 1, source.choice(("all", "second", "second")))

    def on_moments(self, optimizer: Optimizer, now: Now) -> None:
        """Forget, in place."""
        if self.lost == "all":
            optimizer.state.clear()
            return
        for state in optimizer.state.values():
            state[_SECOND].zero_()
