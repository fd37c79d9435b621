"""Which runs a corpus is made of: an endless sequence in which every part is balanced, the same for the same seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from attrs import frozen

from lbw_policy.corpora import TEST, TRAIN
from lbw_policy.lab.architectures import ARCHITECTURES
from lbw_policy.lab.faults import BENIGN_SHIFTS, CALM, FAULTS, KINDS, Fault
from lbw_policy.lab.recipes import OPTIMIZERS, Recipe

SHORTEST, LONGEST = 300, 600
_SEEDS = 100_000
"""The most runs of a plan: each seed of a corpus has as many seeds of runs to itself."""
_BENIGN_A_ROUND = 9
_TWICE = ("lr_high", "lr_start", "lr_ramp", "output_growth", "noise_creep")
"""Kinds of which many end in divergence, and most of them not at once: there is something to foresee."""
_CLIP = 1.0


@frozen
class Planned:
    """A run to be made: its number and seed, what is trained and how, and what strikes it."""

    number: int
    seed: int
    architecture: str
    recipe: Recipe
    fault: Fault
    split: str

    @property
    def id(self) -> str:
        """Return the name of the run, unique in its corpus."""
        recipe = self.recipe
        words = (f"{self.number:05d}", self.architecture, recipe.optimizer, recipe.precision, self.fault.name)
        return "-".join(words)


def plan(seed: int, steps: int | None = None) -> Iterator[Planned]:
    """Yield the runs of a corpus; `steps` is the length of each, drawn for each where it is None.

    They come in rounds: every kind of fault once, some twice, and nine that are clean or benign. A kind meets another
    architecture and optimizer in every round, in a random order of its own. Every third round is for testing.
    """
    number = itertools.count()
    orders = {kind: _meetings(KINDS[kind], _source(seed, kind)) for kind in KINDS}
    for turn in itertools.count():
        kinds = [*FAULTS, *_TWICE, *_benign(turn)]
        _source(seed, f"round {turn}").shuffle(kinds)
        for kind in kinds:
            yield _run(seed, next(number), (kind, *next(orders[kind])), steps, TEST if turn % 3 == 2 else TRAIN)


def _run(seed: int, number: int, met: tuple[str, str, str], steps: int | None, split: str) -> Planned:
    kind, architecture, optimizer = met
    source = _source(seed, f"run {number}")
    drawn = source.randint(SHORTEST, LONGEST)
    recipe = Recipe(
        steps=steps or drawn,
        seed=seed * _SEEDS + number,
        rate=ARCHITECTURES[architecture].rates[optimizer],
        optimizer=optimizer,
        schedule=source.choice(("cosine", "cosine", "linear", "constant")),
        precision=source.choice(("fp32", "fp32", "bf16")),
        clip=source.choice((None, None, _CLIP)),
        beta2=source.choice((0.95, 0.99, 0.999)),
    )
    return Planned(number, recipe.seed, architecture, recipe, KINDS[kind].drawn(source, recipe.steps), split)


def _benign(turn: int) -> list[str]:
    """Return two clean runs and seven of the benign shifts, all of which get their turn."""
    count = _BENIGN_A_ROUND - 2
    return [CALM.name, CALM.name, *itertools.islice(itertools.cycle(BENIGN_SHIFTS), count * turn, count * (turn + 1))]


def _meetings(kind: type[Fault], source: random.Random) -> Iterator[tuple[str, str]]:
    """Yield pairs of architecture and optimizer: all architectures in turn, each time under another optimizer."""
    fitting = [name for name, each in ARCHITECTURES.items() if any(each.fits(kind, one) for one in OPTIMIZERS)]
    source.shuffle(fitting)
    optimizers = {name: _fitting(kind, name, source) for name in fitting}
    for turn in itertools.count():
        for place, name in enumerate(fitting):
            known = optimizers[name]
            yield name, known[(turn + place) % len(known)]


def _fitting(kind: type[Fault], architecture: str, source: random.Random) -> list[str]:
    found = [optimizer for optimizer in OPTIMIZERS if ARCHITECTURES[architecture].fits(kind, optimizer)]
    source.shuffle(found)
    return found


def _source(seed: int, purpose: str) -> random.Random:
    # Seeded with text, so that no two purposes share a stream.
    return random.Random(f"{seed} {purpose}")  # noqa: S311 - not for secrets
