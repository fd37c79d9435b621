from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbw_policy.errors import TuneError
from lbw_policy.lab.verdicts import HARD
from lbw_policy.semantics import load
from lbw_policy.semantics.policy import ACTION_NAMES
from lbw_policy.traces import Column, Trace
from lbw_policy.tuning.counting import (
    GENTLE,
    RULES,
    Counted,
    Score,
    check_alarming,
    check_complete,
    complete,
    count,
)  # fmt: skip
from lbw_policy.tuning.runs import Run, Trouble

POLICY = """lbw 1
policy small { doc "" }
signal loss = telemetry.loss
reflex tall { when loss > 50 do clip to 1 }
reflex broken { when loss > 100 do skip }
levels normal -> caution
level caution { enter when loss > 10  leave when loss < 5  do scale_lr by 0.5  restore over 2 steps }
limits { clip at most 9 per 100 steps  scale_lr within [0.1, 1]  skip at most 9 in a row, at most 2 per 1_000 steps }
alert high warning when loss > 10 "loss {loss}"
"""


def _run(losses: Sequence[float], healthy: int | None = None, trouble: Trouble | None = None) -> Run:
    columns: Mapping[str, Column] = {
        name: Column(array("d", values), bytearray(len(losses)))
        for name, values in (("loss", losses), ("grad_norm", [1.0] * len(losses)))
    }
    trace = Trace(Path("x.npz"), tuple(columns), columns, len(losses))
    return Run("x", trace, len(losses) if healthy is None else healthy, trouble)


def _count(run: Run, alarm: str = "interventions") -> Counted:
    (found,) = count(load(POLICY), [run], RULES[alarm])
    return found


def test_what_is_gentle_is_all_but_the_hard_interventions_of_the_benchmark() -> None:
    """An alarm is what `benchmarks/efficacy.py` counts as a hard intervention."""
    assert frozenset(ACTION_NAMES.values()) - GENTLE == HARD


def test_an_alarm_is_where_something_begins() -> None:
    """The level that is entered and the skip count; the factor held, the clip, and the way back do not."""
    found = _count(_run([1, 20, 20, 20, 1, 1, 60, 200, 1, 1]))
    assert found.false == ("level caution", "level caution", "reflex broken")
    assert (found.healthy, found.troubled, found.lead) == (10, False, None)


def test_what_the_limits_refuse_is_no_alarm() -> None:
    """Of five broken batches two are skipped, the budget; a refused skip would not have saved the run."""
    found = _count(_run([1, 200, 200, 200, 200, 200]))
    assert Counter(found.false) == {"reflex broken": 2}


def test_alerts_can_be_what_counts() -> None:
    """An alert counts where it begins to hold, whatever the guard does."""
    assert _count(_run([1, 20, 20, 1, 20, 1]), "alerts").false == ("alert high", "alert high")


@pytest.mark.parametrize(
    ("alarm_at", "false", "lead"),
    [(2, 1, None), (3, 0, 4), (6, 0, 1), (7, 0, 0), (9, 0, -2), (10, 0, None)],
)
def test_an_alarm_is_false_before_the_fault_and_in_time_until_a_while_after_the_divergence(
    alarm_at: int, false: int, lead: int | None
) -> None:
    """The fault strikes at 3, the run diverges at 7, and 9 is the last row at which an alarm is in time."""
    losses = [20.0 if row == alarm_at else 1.0 for row in range(12)]
    found = _count(_run(losses, 3, Trouble(3, 7, 9)))
    assert (len(found.false), found.lead, found.healthy, found.troubled) == (false, lead, 3, True)


def _score(*runs: tuple[int, int]) -> Score:
    return Score.of([Counted(steps, ("r",) * alarms, troubled=False) for steps, alarms in runs])


def test_scores_add_up() -> None:
    """Rates are per 1_000 healthy steps, the lead is the median of those caught, the share of all that diverged."""
    counted = [Counted(400, ("a", "b"), troubled=False), Counted(100, ("a",), troubled=True, lead=4),
               Counted(0, (), troubled=True, lead=-2), Counted(0, (), troubled=True)]  # fmt: skip
    score = Score.of(counted)
    assert (score.rate, score.caught, score.lead, score.rules) == (6.0, 2 / 3, 1.0, {"a": 2, "b": 1})


@pytest.mark.parametrize(("alarms", "bound"), [(0, 2.9957), (1, 4.7439), (10, 16.9622)])
def test_alarms_that_come_by_themselves_have_the_exact_bound(alarms: int, bound: float) -> None:
    """One-sided 95 % bounds of a Poisson mean, as tables have them, for 1_000 steps of 1_000 runs."""
    score = _score(*[(1, 1)] * alarms, *[(1, 0)] * (1_000 - alarms))
    assert score.at_most == pytest.approx(bound, rel=0.02)


def test_alarms_that_come_in_clusters_have_a_wider_bound() -> None:
    """Twenty alarms in one run of twenty say less than one in each."""
    spread, lumped = _score(*[(50, 1)] * 20), _score((50, 20), *[(50, 0)] * 19)
    assert spread.rate == lumped.rate == 20.0
    assert lumped.at_most > 1.5 * spread.at_most


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 5)), min_size=1, max_size=20))
def test_the_bound_is_above_the_rate(runs: list[tuple[int, int]]) -> None:
    """And it is the same whenever it is asked for."""
    score = _score(*runs)
    assert score.at_most > score.rate
    assert score.at_most == _score(*runs).at_most


def test_runs_that_lack_a_signal_are_named() -> None:
    """The signal, how many runs lack it, and one of them; the others are complete."""
    whole, bare = _run([1.0]), Run("bare", Trace(Path("b.npz"), ("lr",), {}, 1), 1)
    found, lines = complete(load(POLICY), [whole, bare])
    assert found == [whole]
    assert lines[0] == "no column `loss`, which signal `loss` reads: 1 of 2 runs, such as `bare`"
    with pytest.raises(TuneError, match="leave such runs out with --skip-incomplete"):
        check_complete(load(POLICY), [whole, bare])


def test_a_policy_that_can_never_alarm_is_refused() -> None:
    """One that only alerts is tuned by its alerts, if asked; one that has none cannot be."""
    with pytest.raises(TuneError, match="no levels to leave; count its alerts with --alarm alerts"):
        check_alarming(load("monitor"), "interventions")
    check_alarming(load("monitor"), "alerts")
    silent = load(POLICY[: POLICY.index("alert high")])
    check_alarming(silent, "interventions")
    with pytest.raises(TuneError, match="has no alert to count"):
        check_alarming(silent, "alerts")
