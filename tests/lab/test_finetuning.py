"""A fine-tuning begins with what was learned before, in another domain, and takes part in comparisons only."""

import itertools
import math

import pytest
import torch
from attrs import evolve

from lbw_policy.lab import closed_loop, scenarios
from lbw_policy.lab.architectures import ARCHITECTURES, TRAININGS, task_of
from lbw_policy.lab.closed_loop import find, key
from lbw_policy.lab.contenders import NONE
from lbw_policy.lab.digits import DigitClasses, digits
from lbw_policy.lab.finetuning import FineTuning
from lbw_policy.lab.nets import Mlp
from lbw_policy.lab.plan import plan
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.scenarios import TUNED_ARCHITECTURES, Case, Grid
from lbw_policy.lab.tasks import View
from lbw_policy.lab.training import Run
from lbw_policy.lab.trouble import CALM
from lbw_policy.lab.verdicts import judge

_TUNED = TRAININGS.keys() - ARCHITECTURES.keys()
_BEFORE = 60


@pytest.fixture
def tuning(tasks: dict[str, DigitClasses]) -> FineTuning:
    recipe = Recipe(_BEFORE, rate=0.01, warmup=5)
    return FineTuning(tasks["mlp"], recipe, DigitClasses(digits(), lambda: Mlp(16), size=8, moved=True))


# Where it begins


def test_it_begins_with_the_weights_of_the_trouble_free_training_of_its_seed(tuning: FineTuning) -> None:
    run = Run(tuning.before, evolve(tuning.recipe, seed=3), CALM)
    for _ in range(_BEFORE):
        run.step()
    began = tuning.model(3)
    assert all(torch.equal(a, b) for a, b in zip(began.parameters(), run.model.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(began.parameters(), tuning.model(4).parameters(), strict=True))


def test_training_changes_no_other_run_of_the_seed_and_no_global_random_state(tuning: FineTuning) -> None:
    before = torch.get_rng_state()
    run = Run(tuning, Recipe(5, 3, 0.01), CALM)
    began = [weight.detach().clone() for weight in run.model.parameters()]
    run.step()
    assert not any(torch.equal(a, b) for a, b in zip(began, run.model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(began, tuning.model(3).parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(_TUNED))
def test_there_is_something_to_learn_and_something_that_was_learned_before(name: str) -> None:
    """The start is better than random weights in the first domain, and improved on in the second."""
    task = task_of(name)
    assert isinstance(task, FineTuning)
    start = task.model(0)
    assert task.before.held_out(start) < 0.6 * task.before.held_out(task.before.model(0))
    run = Run(task, Recipe(60, 0, TRAININGS[name].rates["adamw"], warmup=5), CALM)
    for _ in range(60):
        run.step()
    assert run.held_out() < 0.92 * task.held_out(start)


# The other domain


def test_moved_digits_are_the_other_domain_of_plain_ones_and_the_other_way_round() -> None:
    plain, moved = (DigitClasses(digits(), Mlp, moved=there) for there in (False, True))
    for share in (0.0, 0.5, 1.0):
        one, other = plain.batch(1, 2, View(elsewhere=share)), moved.batch(1, 2, View(elsewhere=1 - share))
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
    model = plain.model(0)
    assert plain.held_out(model) != moved.held_out(model) == moved.held_out(model)


def test_the_prose_of_the_fine_tuned_decoder_is_no_part_of_what_it_read_before() -> None:
    task = task_of("gpt_tuned")
    assert isinstance(task, FineTuning)
    code, prose = task.before.text.train, task.task.text
    assert torch.equal(task.task.other, code)
    window = bytes(prose.held_out[:200].tolist())
    assert window not in bytes(code.tolist())
    assert window not in bytes(prose.train.tolist())


# Where it takes part


def test_fine_tunings_leave_the_cases_of_other_trainings_and_their_keys_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases = [case for case in Grid("report", 2).cases() if case.architecture not in _TUNED]
    monkeypatch.setattr(scenarios, "TRAININGS", ARCHITECTURES)
    alone = list(Grid("report", 2).cases())
    assert list(map(repr, alone)) == list(map(repr, cases))
    assert [key(case, NONE) for case in alone] == [key(case, NONE) for case in cases]


def test_fine_tunings_are_reported_on_but_neither_tuned_on_nor_in_a_corpus() -> None:
    assert {case.architecture for case in Grid("tune", 2).cases()} == set(TUNED_ARCHITECTURES)
    assert {case.architecture for case in Grid("report", 1).cases()} == set(TRAININGS)
    assert not {run.architecture for run in itertools.islice(plan(0), 280)} & _TUNED


# How it is judged


def test_a_run_that_ends_above_its_start_is_lost_and_counts_as_one_that_learned_nothing(
    tuning: FineTuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closed_loop, "task_of", lambda _: tuning)
    closed_loop.untrained.cache_clear()
    case = Case("cnn_tuned", "adamw", "fp32", "none", CALM, 0, steps=40)
    calm = find(case, NONE)
    start = tuning.held_out(tuning.model(case.recipe.seed))
    assert calm.untrained == start > calm.held_out
    exploded = evolve(calm, held_out=10 * start)
    found = judge(case, exploded, calm, exploded)
    assert found.crashed
    assert found.ratio == judge(case, evolve(calm, held_out=start), calm, exploded).ratio
    assert found.ratio == judge(case, evolve(calm, held_out=math.nan), calm, exploded).ratio
    closed_loop.untrained.cache_clear()
