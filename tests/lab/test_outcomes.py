"""What becomes of a run is told from its losses: diverged and when, healed, or neither."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbw_policy.lab.outcomes import AHEAD, LEAST_AHEAD, Outcome, outcome
from lbw_policy.risk.divergence import Divergence

_CALM = [5.0, *[1.0] * 119]  # reference 1, bar 3


def _after(*parts: tuple[int, float], start: int | None = 120) -> Outcome:
    losses = _CALM + [loss for count, loss in parts for _ in range(count)]
    return outcome(losses, start)


def test_a_loss_that_rises_and_stays_has_diverged_where_it_crossed() -> None:
    assert _after((4, 2.9), (200, 3.1)) == Outcome(diverged_at=124)


def test_a_loss_that_comes_back_has_healed() -> None:
    assert _after((60, 4.0), (140, 1.5)) == Outcome(healed=True)


def test_a_loss_below_the_bar_is_neither() -> None:
    assert _after((200, 2.9)) == Outcome()


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_diverged_at_once(broken: float) -> None:
    assert _after((3, 1.0), (1, broken), (100, 1.0)) == Outcome(diverged_at=123)
    assert _after((3, 1.0), (1, broken)) == Outcome(diverged_at=123)


def test_a_climb_that_ends_in_nan_diverged_where_it_began() -> None:
    assert _after((6, 4.0), (AHEAD, math.nan)) == Outcome(diverged_at=120)


def test_one_spike_ahead_of_a_divergence_is_not_its_beginning() -> None:
    assert _after((1, 9.0), (40, 1.0), (150, 9.0)) == Outcome(diverged_at=161)


def test_a_crossing_that_comes_too_late_is_undecided_until_thirty_steps_have_followed() -> None:
    assert _after((LEAST_AHEAD, 4.0)) == Outcome(undecided=120)
    assert _after((LEAST_AHEAD + 1, 4.0)) == Outcome(diverged_at=120)
    assert _after((5, 4.0), (10, 1.0)) == Outcome(healed=True)


def test_what_follows_the_planned_length_only_judges_what_began_before() -> None:
    losses = _CALM + [1.0] * 10 + [9.0] * 60
    assert outcome(losses, 120, planned=130) == Outcome()
    assert outcome(losses, 120, planned=131) == Outcome(diverged_at=130)


def test_the_bar_of_a_faulted_run_stays_that_of_the_steps_before_the_fault() -> None:
    """A loss that is higher for ever after a fault is no new normal."""
    slow = [(1, 1.0 + step / 50) for step in range(300)]
    assert _after(*slow) == Outcome(diverged_at=120 + 101)


def test_without_a_fault_the_bar_follows_the_run() -> None:
    falling = [5.0 * 0.99**step for step in range(400)]
    assert outcome(falling) == Outcome()
    assert outcome([*falling, *[5.0] * 150]) == Outcome(diverged_at=400)


def test_a_fault_from_the_first_step_on_is_judged_by_the_losses_reached() -> None:
    losses = [5.0, *[3.0] * 20, *[4.9] * 150]
    assert outcome(losses, 0) == Outcome(diverged_at=21)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=200), st.none() | st.integers(0, 250))
def test_any_losses_have_one_outcome(losses: list[float], start: int | None) -> None:
    found = outcome(losses, start)
    assert (found.diverged_at is not None) + found.healed + (found.undecided is not None) <= 1
    broken = [step for step, loss in enumerate(losses) if not math.isfinite(loss)]
    if broken:
        assert found.diverged_at is not None or found.undecided is not None
        assert found.diverged_at is None or found.diverged_at <= broken[0]


@given(st.floats(0.2, 3.0), st.integers(6, 80), st.floats(1.6, 50.0))
def test_the_online_label_agrees_on_plain_cases(calm: float, length: int, height: float) -> None:
    """The label a guard finds as it goes tells the same of a lasting rise, five steps late and without hindsight."""
    losses = [calm * 1.2] * 10 + [calm] * 140 + [calm * height] * max(length, AHEAD + 1)
    online, at = Divergence(), []
    for step, loss in enumerate(losses):
        if online.observe(loss, finite=True):
            at.append(step)
    assert outcome(losses, 150) == Outcome(diverged_at=150)
    assert at == [154]
