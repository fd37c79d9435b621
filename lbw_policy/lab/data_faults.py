"""Trouble that comes in with the data."""

from __future__ import annotations

import random
from typing import ClassVar, Self

from attrs import evolve, frozen

from lbw_policy.lab.tasks import Batch, Draw, View
from lbw_policy.lab.trouble import DATA, Fault, beginning, between


@frozen
class NanBatch(Fault):
    """A batch whose loss mask is empty: its mean loss is 0/0, and so is every gradient.

    Seen in: DeepSpeed issue 1496, NeMo-RL issue 1230.
    """

    name: ClassVar[str] = "nan_batch"
    title: ClassVar[str] = "one NaN batch"
    group: ClassVar[str] = DATA
    length: int = 1

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of a single step."""
        return cls(beginning(source, steps))

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
    group: ClassVar[str] = DATA
    length: int = 12
    weight: float = 10.0

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 1 to 40 steps, 1 to 30 times too heavy."""
        return cls(beginning(source, steps), source.randint(1, 40), between(source, 1, 30))

    def on_batch(self, draw: Draw) -> Batch:
        """Return noise, weighted."""
        return evolve(draw.noise(), weight=self.weight)


@frozen
class BadInput(Fault):
    """Inputs that were not normalised: `factor` times too large; of tokens, one repeated all over.

    Seen in: PaLM and GLM-130B (arXiv 2210.02414), whose spikes came with odd batches; repeated tokens are the common
    kind of those in text.
    """

    name: ClassVar[str] = "bad_input"
    title: ClassVar[str] = "inputs out of range"
    group: ClassVar[str] = DATA
    length: int = 8
    factor: float = 30.0

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 1 to 30 steps, 5 to 300 times too large."""
        return cls(beginning(source, steps), source.randint(1, 30), between(source, 5, 300))

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch with such inputs."""
        batch = draw.batch()
        if batch.inputs.is_floating_point():
            return evolve(batch, inputs=batch.inputs * self.factor)
        return evolve(batch, inputs=batch.inputs[:, :1].expand_as(batch.inputs).contiguous())


@frozen
class Poison(Fault):
    """Wrong targets that creep in under running statistics: more and heavier by a factor at every step.

    Seen in: data poisoning (Biggio et al., 2012); the factor of 1.05 stays below every rule that compares a step with
    the steps just before it.
    """

    name: ClassVar[str] = "poison"
    title: ClassVar[str] = "poison that creeps into the data"
    group: ClassVar[str] = DATA
    length: int = 120
    growth: float = 1.05
    share: float = 0.01
    most: float = 20.0

    @classmethod
    def drawn(cls, source: random.Random, steps: int) -> Self:
        """Return one of 3 to 8 % a step, to the end, 3 to 100 times too heavy there."""
        start = beginning(source, steps)
        growth, most = 1 + between(source, 0.03, 0.08), between(source, 3, 100)
        return cls(start, steps - start, growth, most=most)

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch with its share of wrong targets."""
        grown = self.growth ** (draw.step - self.start + 1)
        batch = draw.batch(View(mislabelled=min(1.0, self.share * grown)))
        return evolve(batch, weight=min(self.most, grown))
