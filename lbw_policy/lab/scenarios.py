"""What an efficacy run is put through: named trouble and shifts of fixed severity, and the runs of each split."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence

from attrs import field, frozen

from lbw_policy.lab import data_faults as data
from lbw_policy.lab import gradient_faults as gradient
from lbw_policy.lab import moment_faults as moments
from lbw_policy.lab import rate_faults as rate
from lbw_policy.lab import shifts
from lbw_policy.lab import weight_faults as weights
from lbw_policy.lab.architectures import TRAININGS
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.trouble import CALM, Fault, beginning

STEPS = 300
"""The length of a run."""
ACUTE, SUSTAINED, CREEPING, FLOOD, BENIGN = "acute", "sustained", "creeping", "flood", "benign"
NATURES = (ACUTE, SUSTAINED, CREEPING, FLOOD, BENIGN)
"""How trouble comes: in a few steps, for good, step by step; a flood of harmless spikes; none at all."""
TUNE, REPORT = "tune", "report"
SPLITS = (TUNE, REPORT)
TUNED_ARCHITECTURES = ("gpt", "ssm", "denoiser", "mlp")
"""What thresholds may be chosen on; the others are for reporting only."""
SETTINGS = (("adamw", "fp32"), ("sgd", "fp32"), ("adamw", "bf16"), ("adam", "fp32"))
"""Optimizer and precision; the runs of a split take turns with them."""
_FIRST_SEED = {TUNE: 0, REPORT: 2000}


@frozen
class Scenario:
    """A kind of trouble at one severity.

    `make` is given the step at which it strikes and the length of the run. `tuned` scenarios are in both splits, the
    others only in that for reporting. `settings` is how many pairs of optimizer and precision it meets in each
    architecture, under one seed.
    """

    name: str
    nature: str
    make: Callable[[int, int], Fault] = field(repr=False)
    tuned: bool = False
    settings: int = 1


@frozen
class Case:
    """One run: what is trained and how, what strikes it, and the seed of both."""

    architecture: str
    optimizer: str
    precision: str
    scenario: str
    fault: Fault
    seed: int
    steps: int = STEPS

    @property
    def id(self) -> str:
        """Return its name: the case in words."""
        words = (self.architecture, self.optimizer, self.precision, self.scenario, f"s{self.seed}", str(self.steps))
        return "-".join(words)

    @property
    def recipe(self) -> Recipe:
        """Return how it is trained: the lab's learning rate, warm-up and cosine."""
        rate = TRAININGS[self.architecture].rates[self.optimizer]
        seed = int.from_bytes(hashlib.sha256(f"{self.architecture} {self.seed}".encode()).digest()[:4], "big")
        return Recipe(self.steps, seed, rate, optimizer=self.optimizer, precision=self.precision)

    @property
    def calm(self) -> Case:
        """Return its trouble-free twin, with the same weights and data."""
        return Case(self.architecture, self.optimizer, self.precision, CALM.name, CALM, self.seed, self.steps)


def _start(factor: float) -> Callable[[int, int], Fault]:
    return lambda _, steps: rate.LrStart(0, steps, factor)


_SCENARIOS = (
    Scenario("lr_start_30x", SUSTAINED, _start(30), tuned=True, settings=2),
    Scenario("lr_start_10x", SUSTAINED, _start(10), tuned=True, settings=2),
    Scenario("lr_high", SUSTAINED, lambda start, steps: rate.LrHigh(start, steps - start, 30.0), tuned=True),
    Scenario("lr_glitch", ACUTE, lambda start, _: rate.LrGlitch(start), tuned=True),
    Scenario("lr_ramp", CREEPING, lambda start, _: rate.LrRamp(start), tuned=True),
    Scenario("nan_batch", ACUTE, lambda start, _: data.NanBatch(start), tuned=True),
    Scenario("corrupt_batches", ACUTE, lambda start, _: data.CorruptBatches(start), tuned=True),
    Scenario("bad_input", ACUTE, lambda start, _: data.BadInput(start)),
    Scenario("poison", CREEPING, lambda start, _: data.Poison(start), tuned=True),
    Scenario("bit_flip", ACUTE, lambda start, _: weights.BitFlip(start), tuned=True),
    Scenario("weight_noise", ACUTE, lambda start, _: weights.WeightNoise(start)),
    Scenario("logit_growth", CREEPING, lambda start, _: weights.LogitGrowth(start, growth=1.1), tuned=True, settings=2),
    Scenario("output_growth", CREEPING, lambda start, _: weights.OutputGrowth(start)),
    Scenario("router_collapse", CREEPING, lambda start, _: weights.RouterCollapse(start, push=5.0), settings=4),
    Scenario("grad_scale", ACUTE, lambda start, _: gradient.GradientScale(start), tuned=True),
    Scenario("grad_nan", ACUTE, lambda start, _: gradient.GradientNan(start), tuned=True),
    Scenario("grad_flip", ACUTE, lambda start, _: gradient.GradientFlip(start)),
    Scenario("noise_creep", CREEPING, lambda start, _: gradient.NoiseCreep(start, growth=1.1)),
    Scenario("fp16_overflow", CREEPING, lambda start, _: gradient.HalfOverflow(start)),
    Scenario("moment_flip", ACUTE, lambda start, _: moments.MomentFlip(start, elements=16), tuned=True),
    Scenario("stale_moments", ACUTE, lambda start, _: moments.StaleMoments(start), tuned=True),
    Scenario("moments_lost", ACUTE, lambda start, _: moments.MomentsLost(start, lost="second")),
    Scenario("spikes", FLOOD, lambda start, _: shifts.Spikes(start), tuned=True),
    Scenario("none", BENIGN, lambda _, __: CALM, tuned=True, settings=2),
    Scenario("label_noise", BENIGN, lambda _, steps: shifts.LabelNoise(0, steps), tuned=True),
    Scenario("domain_shift", BENIGN, lambda start, steps: shifts.DomainShift(start, steps - start), tuned=True),
    Scenario("lr_restart", BENIGN, lambda start, steps: rate.LrRestart(steps // 2 + start // 4, steps), tuned=True),
    Scenario("batch_size", BENIGN, lambda start, steps: shifts.BatchSize(start, steps - start)),
    Scenario("curriculum", BENIGN, lambda _, steps: shifts.Curriculum(0, steps // 2)),
    Scenario("hard_batches", BENIGN, lambda start, _: shifts.HardBatches(start)),
    Scenario("plateau", BENIGN, lambda start, _: rate.Plateau(start), tuned=True),
)

SCENARIOS: dict[str, Scenario] = {each.name: each for each in _SCENARIOS}
"""Every scenario by name."""


@frozen
class Grid:
    """The runs that every guard of a comparison is put through.

    Empty `scenarios` and `architectures` stand for all of the split; naming some only takes others away.
    """

    split: str = REPORT
    seeds: int = 2
    scenarios: frozenset[str] = frozenset()
    architectures: frozenset[str] = frozenset()
    steps: int = STEPS

    def cases(self) -> Iterator[Case]:
        """Yield the runs; those of a scenario take turns with the settings, over architectures and seeds."""
        for seed in range(_FIRST_SEED[self.split], _FIRST_SEED[self.split] + self.seeds):
            for row, scenario in enumerate(_SCENARIOS):
                for column, architecture in enumerate(TRAININGS):
                    if self._holds(scenario, architecture):
                        yield from self._met(scenario, architecture, seed, row + column + seed)

    def _holds(self, scenario: Scenario, architecture: str) -> bool:
        if self.split == TUNE and not (scenario.tuned and architecture in TUNED_ARCHITECTURES):
            return False
        named = not self.scenarios or scenario.name in self.scenarios
        return named and (not self.architectures or architecture in self.architectures)

    def _met(self, scenario: Scenario, architecture: str, seed: int, turn: int) -> Iterator[Case]:
        source = random.Random(f"{scenario.name} {architecture} {seed}")  # noqa: S311 - not for secrets
        fault = scenario.make(beginning(source, self.steps), self.steps)
        fitting = [each for each in SETTINGS if TRAININGS[architecture].fits(type(fault), each[0])]
        for place in range(min(scenario.settings, len(fitting))):
            optimizer, precision = fitting[(turn + place) % len(fitting)]
            yield Case(architecture, optimizer, precision, scenario.name, fault, seed, self.steps)


def reserved(cases: Sequence[Case]) -> list[Case]:
    """Return those runs whose scenario, or architecture, or both, were not seen in tuning."""
    return [
        case for case in cases
        if not SCENARIOS[case.scenario].tuned or case.architecture not in TUNED_ARCHITECTURES
    ]  # fmt: skip
