"""A run is the plain loop of a user, repeatable, guarded or not."""

import math

import pytest
import torch
from attrs import define, field, frozen
from torch import Tensor

from lbw_policy.errors import Halted
from lbw_policy.lab.data_faults import NanBatch
from lbw_policy.lab.experiment import Experiment, judge
from lbw_policy.lab.faults import CALM, FAULTS, Fault
from lbw_policy.lab.language import ByteLanguage
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.training import Run
from lbw_policy.lab.weight_faults import BitFlip

_STEPS = 24
_RECIPE = Recipe(steps=_STEPS, warmup=4)


@frozen
class Note:
    """A record of a guard."""

    tick: int
    action: str
    outcome: str
    rule: str


@define
class Witness:
    """Stands where a guard would: sees every loss, halts when told to."""

    halt_at: int | None = None
    losses: list[float] = field(factory=list)
    interventions: tuple[Note, ...] = ()
    detached: bool = False

    def attach(self, optimizer: torch.optim.Optimizer, *_: object) -> "Witness":
        optimizer.register_step_pre_hook(self._before)
        return self

    def observe(self, *, loss: Tensor) -> None:
        self.losses.append(loss.item())

    def detach(self) -> None:
        self.detached = True

    def _before(self, *_: object) -> None:
        if self.halt_at == len(self.losses) - 1:
            raise Halted("told to", self.halt_at)


def _trained(task: ByteLanguage, fault: Fault, witness: Witness | None = None) -> Run:
    run = Run(task, _RECIPE, fault, attach=witness.attach if witness else None)
    for _ in range(_STEPS):
        run.step()
    return run


def test_training_learns(task: ByteLanguage) -> None:
    run = _trained(task, CALM)
    assert run.losses[-1] < run.losses[0] - 0.2
    assert run.held_out() < task.held_out(task.model(0)) - 0.2


def test_the_same_seed_gives_the_same_run_bit_for_bit_watched_or_not(task: ByteLanguage) -> None:
    witness = Witness()
    plain, watched = _trained(task, CALM), _trained(task, CALM, witness)
    assert plain.losses == watched.losses == witness.losses
    assert plain.held_out() == watched.held_out()


@pytest.mark.parametrize("fault", [NanBatch(start=8), BitFlip(start=8)])
def test_one_nan_batch_or_one_flipped_bit_is_the_end_of_an_unguarded_run(task: ByteLanguage, fault: Fault) -> None:
    run = _trained(task, fault)
    assert math.isnan(run.losses[-1])
    assert math.isnan(run.held_out())


def test_the_schedule_is_the_same_with_a_glitch_on_the_way(task: ByteLanguage) -> None:
    calm, troubled = _trained(task, CALM), _trained(task, FAULTS["lr_glitch"](start=8))
    assert troubled.optimizer.param_groups[0]["lr"] == calm.optimizer.param_groups[0]["lr"]


def test_a_run_that_its_guard_halts_stops_where_it_is(task: ByteLanguage) -> None:
    run = _trained(task, CALM, Witness(halt_at=5))
    assert run.halted == 5
    assert len(run.losses) == len(run.seconds) == 5


def test_the_schedule_warms_up_and_ends_at_a_tenth() -> None:
    recipe = Recipe(steps=200, warmup=10)
    factors = [recipe.factor(step) for step in range(201)]
    assert factors[0] == pytest.approx(0.1, rel=1e-3)
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert factors[200] == pytest.approx(0.1)


def test_a_pair_differs_in_the_guard_only_and_is_judged_by_the_trouble_free_run(task: ByteLanguage) -> None:
    witness = Witness(interventions=(Note(3, "clip", "granted", "reflex tall"), Note(4, "skip", "refused", "r")))
    experiment, steps = Experiment(task, _RECIPE, witness.attach), []
    pair = experiment.train(CALM, lambda now: steps.append((len(now.plain.losses), len(now.guarded.losses))))
    assert steps == [(step, step) for step in range(1, _STEPS + 1)]
    assert pair.plain.losses == pair.guarded.losses == witness.losses
    assert witness.detached
    result = judge(pair, experiment.reference(pair))
    assert result.plain.held_out == result.guarded.held_out
    assert not result.plain.crashed
    assert not result.guarded.crashed
    assert dict(result.guarded.counts()) == {"clip": 1}
    assert result.guarded.refused == 1
    assert result.plain.interventions == ()


def test_a_halted_run_counts_as_crashed(task: ByteLanguage) -> None:
    experiment = Experiment(task, _RECIPE, Witness(halt_at=5).attach)
    pair = experiment.train(NanBatch(start=5), lambda _: None)
    calm = Experiment(task, _RECIPE, Witness().attach).train(CALM, lambda _: None)
    result = judge(pair, experiment.reference(calm))
    assert result.guarded.crashed
    assert result.guarded.halted == 5
    assert result.guarded.recovery is None
    assert math.isfinite(result.guarded.held_out)
