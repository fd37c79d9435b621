"""A budget counts as a person would who looks at every window; a clamp lets nothing through."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.errors import StateError
from lbw_policy.limits.budget import SlidingBudget, clamp
from lbw_policy.semantics.policy import Budget
from tests.strategies import anything, budgets

gaps = st.lists(st.integers(1, 40), max_size=60)
"""Ticks between one question and the next."""


def recent(budget: Budget, events: list[int], tick: int) -> int:
    """Count the events in the window that ends with a tick."""
    return sum(tick - budget.window < event <= tick for event in events)


def spent(budget: Budget, *ticks: int) -> SlidingBudget:
    found = SlidingBudget(budget)
    for tick in ticks:
        found.spend(tick)
    return found


def test_a_budget_is_full_at_its_count_and_frees_one_exactly_a_window_later() -> None:
    budget = spent(Budget(2, 10), 5, 8)

    assert [budget.allows(tick) for tick in (8, 9, 14, 15, 16)] == [False, False, False, True, True]
    assert [budget.left(tick) for tick in (8, 14, 15, 17, 18)] == [0, 0, 1, 1, 2]


def test_the_oldest_of_the_last_events_decides() -> None:
    budget = spent(Budget(2, 10), 5, 8, 15)

    assert [budget.allows(tick) for tick in (15, 17, 18)] == [False, False, True]


def test_a_fresh_budget_allows_its_count_in_one_tick_and_then_nothing() -> None:
    budget, allowed = SlidingBudget(Budget(3, 10)), []
    for _ in range(4):
        allowed.append(budget.allows(7))
        budget.spend(7)

    assert allowed == [True, True, True, False]


@settings(deadline=None)
@given(budgets(), gaps)
def test_a_budget_answers_as_counting_every_window_does(budget: Budget, gaps: list[int]) -> None:
    counted, events, tick = SlidingBudget(budget), list[int](), 0
    for gap in gaps:
        tick += gap - 1
        allowed = counted.allows(tick)
        assert allowed == (recent(budget, events, tick) < budget.count)
        assert counted.left(tick) == budget.count - recent(budget, events, tick)
        if allowed:
            counted.spend(tick)
            events.append(tick)


@settings(deadline=None)
@given(budgets(), gaps, gaps)
def test_a_resumed_budget_goes_on_counting(budget: Budget, before: list[int], after: list[int]) -> None:
    counted, tick = SlidingBudget(budget), 0
    for gap in before:
        tick += gap
        if counted.allows(tick):
            counted.spend(tick)
    resumed = SlidingBudget(budget)
    resumed.restore(json.loads(json.dumps(counted.state())))
    for gap in after:
        tick += gap
        assert resumed.allows(tick) == counted.allows(tick)
        if counted.allows(tick):
            counted.spend(tick)
            resumed.spend(tick)
    assert resumed.state() == counted.state()


def test_a_resumed_budget_goes_on_forgetting_what_has_left_its_window() -> None:
    budget = SlidingBudget(Budget(2, 10))
    budget.restore([5, 8])
    for tick in (15, 18):
        budget.spend(tick)

    assert budget.state() == [15, 18]
    assert not budget.allows(19)


@pytest.mark.parametrize("ticks", [[8, 5], [1, 2, 3], [-1], ["1"], [1.0], "12", None])
def test_ticks_that_no_budget_of_this_limit_can_have_kept_are_refused(ticks: object) -> None:
    budget = spent(Budget(2, 10), 5)

    with pytest.raises(StateError):
        budget.restore(ticks)
    assert budget.state() == [5]


@pytest.mark.parametrize(
    ("value", "held"),
    [(-1.0, 0.25), (0.25, 0.25), (0.5, 0.5), (1.0, 1.0), (2.0, 1.0), (math.inf, 1.0), (-math.inf, 0.25),
     (math.nan, 0.25)],
)  # fmt: skip
def test_a_clamp_holds_a_value_to_its_range_and_nan_to_the_lower_end(value: float, held: float) -> None:
    assert clamp(value, 0.25, 1.0) == held


@given(anything, st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_nothing_gets_past_a_clamp_and_what_is_inside_stays(value: float, low: float, width: float) -> None:
    found = clamp(value, low, low + width)

    assert low <= found <= low + width
    assert found == value or not low <= value <= low + width
