"""A run of a comparison is judged by what it lost, how long it was away, and what its guard took from it."""

import math
from collections.abc import Mapping, Sequence

import pytest
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from lbw_policy.lab.closed_loop import Finding
from lbw_policy.lab.scenarios import SCENARIOS, Case, Grid, reserved
from lbw_policy.lab.trouble import CALM
from lbw_policy.lab.verdicts import MOST, Verdict, away, judge

STEPS = 100
_LOSSES = st.lists(st.floats(0.1, 100), min_size=20, max_size=80)
_CASE = Case("gpt", "adamw", "fp32", "nan_batch", SCENARIOS["nan_batch"].make(40, STEPS), 0, STEPS)


def finding(losses: Sequence[float] = (2.0,) * STEPS, held_out: float = 2.0) -> Finding:
    """Return the finding of a scripted run of a training that goes from 6 to 2."""
    return Finding("key", "guard", "case", tuple(losses), 6.0, held_out, None, "", {})


def judged(run: Finding, plain: Finding | None = None) -> Verdict:
    return judge(_CASE, run, finding(), plain or run)


def test_the_trouble_free_run_itself_has_no_fault() -> None:
    found = judged(finding())
    assert (found.crashed, found.harmful, found.ratio, found.harm, found.away) == (False, False, 1.0, 0.0, 0)


@pytest.mark.parametrize(
    ("run", "lost"),
    [
        (finding(held_out=3.9), False),
        (finding(held_out=4.1), True),  # over half of what the trouble-free run learned
        (finding(held_out=math.nan), True),
        (finding([2.0] * 99 + [math.nan]), True),
        (evolve(finding(), halted=50), True),
        (evolve(finding(), raised="ValueError: no"), True),
    ],
)
def test_what_counts_as_a_crash(run: Finding, lost: bool) -> None:
    assert judged(run).crashed is lost


def test_a_broken_run_has_the_ratio_of_an_untrained_one_and_none_counts_for_more_than_three() -> None:
    assert judged(finding(held_out=math.nan)).ratio == MOST
    assert judged(finding(held_out=5.0)).ratio == 2.5
    calm = finding(held_out=4.0)
    assert judge(_CASE, finding(held_out=math.inf), calm, calm).ratio == 1.5


def test_small_losses_are_compared_by_what_there_was_to_learn() -> None:
    calm = finding(held_out=0.1)
    assert judge(_CASE, finding(held_out=0.22), calm, calm).ratio == pytest.approx(1.1)


def test_harm_is_measured_against_the_unguarded_run_under_the_same_trouble() -> None:
    found = judged(finding(held_out=2.2), plain=finding(held_out=2.0))
    assert found.harm == pytest.approx(0.1)
    assert not found.harmful
    assert judged(finding(), plain=finding(held_out=2.2)).harmful


@pytest.mark.parametrize(
    ("acts", "hard"),
    [({"clip": (1, 2), "alert": (3,)}, 0), ({"skip": (4,), "rollback": (5,), "scale_lr": (6, 7), "clip": (8,)}, 4)],
)
def test_clips_and_alerts_are_no_hard_interventions(acts: Mapping[str, tuple[int, ...]], hard: int) -> None:
    assert judged(evolve(finding(), acts=acts)).hard == hard


@given(_LOSSES)
def test_a_run_is_never_away_from_itself(losses: list[float]) -> None:
    assert away(losses, losses) == 0


@given(_LOSSES, st.integers(0, 80))
def test_a_run_that_breaks_and_stays_broken_is_never_back(losses: list[float], start: int) -> None:
    assume(start <= len(losses) - 10)
    assert away(losses[:start] + [math.nan] * (len(losses) - start), losses) is None


@given(st.integers(10, 30), st.integers(10, 30))
def test_the_longest_of_two_stretches_counts(first: int, second: int) -> None:
    losses = [2.0] * 20 + [9.0] * first + [2.0] * 20 + [9.0] * second + [2.0] * 40
    # The median of five steps ahead leaves two steps early, and is back two steps early.
    assert away(losses, [2.0] * len(losses)) == max(first, second)


def test_a_departure_late_in_trouble_is_seen_though_the_run_was_near_when_it_began() -> None:
    reference = [2.0] * 100
    assert away([2.0] * 60 + [9.0] * 40, reference) is None


def test_a_short_visit_is_no_return() -> None:
    losses = [2.0] * 20 + [9.0] * 10 + [2.0] * 8 + [9.0] * 10 + [2.0] * 40
    assert away(losses, [2.0] * len(losses)) == 28


def test_small_losses_that_differ_by_little_of_what_there_was_to_learn_are_near() -> None:
    reference = [2.0] + [0.01] * 50
    assert away([2.0] + [0.04] * 50, reference) == 0
    assert away([2.0] + [0.06] * 50, reference) is None


def test_a_run_that_ended_early_is_not_back() -> None:
    assert away([2.0] * 50, [2.0] * 60) is None


def test_the_splits_share_no_seed_and_reporting_has_faults_and_architectures_of_its_own() -> None:
    tune, report = (list(Grid(split, 3).cases()) for split in ("tune", "report"))
    assert not {case.seed for case in tune} & {case.seed for case in report}
    assert not {case.recipe.seed for case in tune} & {case.recipe.seed for case in report}
    for part in ("scenario", "architecture"):
        assert {getattr(case, part) for case in tune} < {getattr(case, part) for case in report}
    assert reserved(tune) == []
    assert 0 < len(reserved(report)) < len(report)


def test_the_grid_meets_every_fault_architecture_optimizer_and_precision() -> None:
    cases = list(Grid("report", 1).cases())
    assert {case.scenario for case in cases} == set(SCENARIOS)
    assert sum(each.nature in ("acute", "sustained", "creeping") for each in SCENARIOS.values()) >= 14
    assert {(case.optimizer, case.precision) for case in cases} >= {
        ("adamw", "bf16"),
        ("sgd", "fp32"),
        ("adam", "fp32"),
    }
    assert len(set(cases)) == len(cases)
    assert list(map(repr, cases)) == list(map(repr, Grid("report", 1).cases()))


def test_every_fault_of_the_grid_ends_within_the_run() -> None:
    for case in Grid("report", 1).cases():
        assert case.fault.name == CALM.name or 0 <= case.fault.start < case.steps
