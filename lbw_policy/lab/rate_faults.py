"""Trouble with the learning rate, and changes of it that are meant."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar, Self

from attrs import frozen
from torch.optim import Optimizer

from lbw_policy.lab.trouble import BENIGN, RATE, Fault, Now, beginning, between


@frozen
class LrGlitch(Fault):
    """The learning rate is `factor` times too high for a while, as from a mistake in its schedule.

    Seen in: arXiv 2309.14322 (instabilities of large models, reproduced small by a high rate).
    """

    name: ClassVar[str] = "lr_glitch"
    title: ClassVar[str] = "learning-rate glitch"
    group: ClassVar[str] = RATE
    length: int = 20
    factor: float = 30.0

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 5 to 100 times, for 3 to 40 steps."""
        return cls(beginning(source, steps), source.randint(3, 40), between(source, 5, 100))

    def on_update(self, optimizer: Optimizer, now: Now) -> AbstractContextManager[object]:
        """Return a context in which every group's learning rate is multiplied."""
        return multiplied_rates(optimizer, self.factor)


@frozen
class LrHigh(LrGlitch):
    """The learning rate becomes `factor` times too high and stays so, as after a resume with the wrong schedule.

    Seen in: arXiv 2309.14322.
    """

    name: ClassVar[str] = "lr_high"
    title: ClassVar[str] = "learning rate too high from a step on"

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 5 to 100 times, to the end."""
        start = beginning(source, steps)
        return cls(start, steps - start, between(source, 5, 100))


@frozen
class LrStart(LrGlitch):
    """The learning rate is `factor` times too high from the first step on.

    Seen in: arXiv 2309.14322; the sweeps of every paper on optimizers.
    """

    name: ClassVar[str] = "lr_start"
    title: ClassVar[str] = "learning rate too high from the start"

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 10 or 30 times, or of any factor between 3 and 100."""
        factor = source.choice((10.0, 30.0, between(source, 3, 100)))
        return cls(0, steps, factor)


@frozen
class LrRamp(Fault):
    """The learning rate grows by a factor at every step, as from a schedule with the wrong sign.

    Seen in: arXiv 2309.14322; the ramp of a learning-rate range test (Smith, 2017), forgotten in the loop.
    """

    name: ClassVar[str] = "lr_ramp"
    title: ClassVar[str] = "learning rate that creeps up"
    group: ClassVar[str] = RATE
    length: int = 80
    growth: float = 1.05

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 3 to 12 % a step, for 60 to 140 steps."""
        return cls(beginning(source, steps), source.randint(60, 140), 1 + between(source, 0.03, 0.12))

    def on_update(self, optimizer: Optimizer, now: Now) -> AbstractContextManager[object]:
        """Return a context in which every group's learning rate is multiplied."""
        return multiplied_rates(optimizer, self.growth ** (now.step - self.start + 1))


@frozen
class LrRestart(Fault):
    """The schedule begins anew without its warm-up: a warm restart (SGDR, Loshchilov and Hutter, 2017)."""

    name: ClassVar[str] = "lr_restart"
    title: ClassVar[str] = "warm restart of the learning rate"
    group: ClassVar[str] = BENIGN

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one in the second half of the run, to the end."""
        start = source.randint(steps // 2, steps - steps // 5)
        return cls(start, steps - start)

    def on_update(self, optimizer: Optimizer, now: Now) -> AbstractContextManager[object]:
        """Return a context in which the rate is that of an earlier step."""
        again = now.recipe.warmup + now.step - self.start
        return multiplied_rates(optimizer, now.recipe.factor(again) / now.recipe.factor(now.step))


@frozen
class Plateau(Fault):
    """The learning rate is next to nothing for a while: a flat loss, then learning again."""

    name: ClassVar[str] = "plateau"
    title: ClassVar[str] = "plateau at a tiny learning rate"
    group: ClassVar[str] = BENIGN
    length: int = 60
    factor: float = 1e-3

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 30 to 120 steps."""
        return cls(beginning(source, steps), source.randint(30, 120), between(source, 1e-4, 1e-2))

    def on_update(self, optimizer: Optimizer, now: Now) -> AbstractContextManager[object]:
        """Return a context in which every group's learning rate is multiplied."""
        return multiplied_rates(optimizer, self.factor)


@contextmanager
def multiplied_rates(optimizer: Optimizer, factor: float) -> Iterator[None]:
    """Multiply every group's learning rate for a while, and put it back."""
    before = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, before, strict=True):
            group["lr"] = rate
