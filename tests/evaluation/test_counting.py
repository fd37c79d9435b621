from __future__ import annotations

import numpy as np
import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.corpora import BENIGN
from lbw_policy.evaluation.counting import ALWAYS, NEVER, Detection, Scored, alarms, caught, false_rate, threshold_for
from lbw_policy.evaluation.examples import Example
from lbw_policy.risk.alarm import REFRACTORY


def _calm(runs: list[Example], number: int) -> list[Example]:
    return [each for each in runs if each.run.group == BENIGN][:number]


def test_an_alarm_counts_again_only_after_25_steps() -> None:
    """An alarm that stands for 60 steps counts three times; one that began elsewhere hides what follows it."""
    above, everywhere = np.ones(60, bool), np.ones(60, bool)
    assert alarms(above, everywhere) == 3
    late = np.arange(60) >= 10
    assert alarms(above, late) == 2
    assert alarms(~above, everywhere) == 0
    assert REFRACTORY == 25


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 50))
def test_a_threshold_is_the_lowest_that_keeps_its_budget(runs: list[Example], seed: int, budget: float) -> None:
    """No more than the budget alarms at it; any clearly lower score would break the budget or is none that occurs."""
    dice = np.random.default_rng(seed)
    scored = [Scored(each, dice.normal(size=each.steps)) for each in _calm(runs, 4)]
    threshold = threshold_for(scored, budget)
    known = np.unique(np.concatenate([each.scores for each in scored]))
    assert false_rate(scored, threshold) <= budget
    below = known[known < threshold]
    assert not len(below) or false_rate(scored, float(below[-1])) > budget


def _diverged(runs: list[Example]) -> Example:
    return next(each for each in runs if each.run.diverged)


@pytest.mark.parametrize(("at", "lead"), [(99, None), (100, 12), (109, 3), (111, 1)])
def test_lead_counts_from_the_first_alarm_after_the_fault(runs: list[Example], at: int, lead: int | None) -> None:
    """The small corpus strikes at 100 and diverges at 112: an alarm before the fault does not count."""
    one = _diverged(runs)
    scores = np.full(one.steps, NEVER)
    scores[at] = 1.0
    found = caught(Scored(one, scores), 0.0)
    assert found is not None
    assert (found.available, found.lead) == (12, lead)


def test_shares_are_of_those_that_leave_enough_steps(runs: list[Example]) -> None:
    """A divergence one step after its fault counts among all and `>= 1`, not among `>= 3`."""
    one = _diverged(runs)
    early = evolve(one, run=evolve(one.run, start=111))
    seen, unseen = np.full(one.steps, 1.0), np.full(one.steps, NEVER)
    found = Detection.of([Scored(one, seen), Scored(early, unseen)], 0.0)
    assert (found.divergences, found.leaving_1, found.leaving_3) == (2, 2, 1)
    assert (found.all, found.least_1, found.least_3) == (0.5, 0.5, 1.0)


def test_certainty_is_above_every_threshold(runs: list[Example]) -> None:
    """Subtracting a threshold leaves the answers of the hard rule, and the silence where nobody is asked."""
    one = _calm(runs, 1)[0]
    scores = np.zeros(one.steps)
    scores[:2] = NEVER, ALWAYS
    assert Scored(one, scores).minus(5.0).scores[:3].tolist() == [NEVER, ALWAYS, -5.0]
