"""What a healthy run goes through: shifts of its data that no guard should answer with more than a look."""

from __future__ import annotations

import random
from typing import ClassVar, Self

from attrs import frozen

from lbw_policy.lab.tasks import Batch, Draw, View
from lbw_policy.lab.trouble import Fault, beginning


@frozen
class LabelNoise(Fault):
    """A share of all targets is wrong, from the first step to the last: chronic, and nothing to be done about."""

    name: ClassVar[str] = "label_noise"
    title: ClassVar[str] = "label noise"
    share: float = 0.2

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 5 to 40 %."""
        return cls(0, steps, round(source.uniform(0.05, 0.4), 3))

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch with its wrong targets."""
        return draw.batch(View(mislabelled=self.share))


@frozen
class DomainShift(Fault):
    """From a step on, a share of the data comes from another domain.

    Seen in: multi-task and multilingual runs (GLM-130B, arXiv 2210.02414); curricula over sources.
    """

    name: ClassVar[str] = "domain_shift"
    title: ClassVar[str] = "domain shift"
    share: float = 0.5

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 20 to 100 %, to the end."""
        start = beginning(source, steps)
        return cls(start, steps - start, round(source.uniform(0.2, 1.0), 3))

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch, in part from the other domain."""
        return draw.batch(View(elsewhere=self.share))


@frozen
class BatchSize(Fault):
    """From a step on, batches have another size."""

    name: ClassVar[str] = "batch_size"
    title: ClassVar[str] = "batch size changed"
    factor: float = 0.5

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return a quarter, a half or twice the size, to the end."""
        start = beginning(source, steps)
        return cls(start, steps - start, source.choice((0.25, 0.5, 2.0)))

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch of that size."""
        return draw.batch(View(size=self.factor))


@frozen
class Curriculum(Fault):
    """The first steps see easy data only, and less so with every step (Bengio et al., 2009)."""

    name: ClassVar[str] = "curriculum"
    title: ClassVar[str] = "curriculum"
    ease: float = 0.8

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one over a third to two thirds of the run."""
        return cls(0, source.randint(steps // 3, 2 * steps // 3), round(source.uniform(0.5, 0.9), 3))

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch, as easy as is due."""
        return draw.batch(View(ease=self.ease * (1 - (draw.step - self.start) / self.length)))


@frozen
class HardBatches(Fault):
    """A stretch of data that is harder to fit: a share of its targets makes no sense."""

    name: ClassVar[str] = "hard_batches"
    title: ClassVar[str] = "a stretch of hard batches"
    length: int = 15
    share: float = 0.4

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 3 to 20 steps, 20 to 60 %."""
        return cls(beginning(source, steps), source.randint(3, 20), round(source.uniform(0.2, 0.6), 3))

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch with such targets."""
        return draw.batch(View(mislabelled=self.share))


@frozen
class Spikes(Fault):
    """A flood of single nonsense batches, each a spike in loss and gradient that does no lasting harm.

    It is there to make a guard overreact: what is skipped, slowed or rolled back here is lost for nothing.
    """

    name: ClassVar[str] = "spikes"
    title: ClassVar[str] = "a flood of harmless spikes"
    length: int = 150
    every: int = 10

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one with a spike every 5 to 20 steps, to the end."""
        start = beginning(source, steps)
        return cls(start, steps - start, source.randint(5, 20))

    def on_batch(self, draw: Draw) -> Batch:
        """Return noise where a spike is due."""
        return draw.batch() if (draw.step - self.start) % self.every else draw.noise()
