"""The figures mean what their names say, for every finite and non-finite history."""

import math

from hypothesis import assume, given
from hypothesis import strategies as st

from lbw_policy.lab.measures import AHEAD, SETTLED, crashed, overhead, recovery, smoothed, typical

_LOSSES = st.lists(st.floats(0.1, 100), min_size=SETTLED, max_size=80)
_ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(_ANY, max_size=60))
def test_smoothing_keeps_the_length_and_never_yields_nan(losses: list[float]) -> None:
    smooth = smoothed(losses)
    assert len(smooth) == len(losses)
    assert not any(math.isnan(loss) for loss in smooth)


@given(_LOSSES, st.integers(0, 60))
def test_the_reference_itself_never_left(losses: list[float], start: int) -> None:
    assume(start <= len(losses) - SETTLED)
    assert recovery(losses, losses, start) == 0


@given(_LOSSES, st.integers(0, 60))
def test_a_run_of_nan_never_comes_back(losses: list[float], start: int) -> None:
    assume(start < len(losses))
    assert recovery(losses[:start] + [math.nan] * (len(losses) - start), losses, start) is None


@given(st.integers(AHEAD, 40), st.integers(0, 40), st.sampled_from([1.2, 50.0, math.inf, math.nan]))
def test_recovery_counts_the_steps_of_one_stretch_of_trouble(length: int, start: int, height: float) -> None:
    reference = [2.0] * 100
    losses = [2.0] * start + [height * 2.0] * length + [2.0] * (100 - start - length)
    # The median of five steps ahead is back when three of the five are.
    assert recovery(losses, reference, start) == length - AHEAD // 2


@given(st.integers(1, AHEAD // 2), st.sampled_from([50.0, math.nan]))
def test_a_blip_of_two_steps_is_not_leaving(length: int, height: float) -> None:
    assert recovery([2.0] * 20 + [height] * length + [2.0] * 40, [2.0] * (60 + length), 20) == 0


def test_a_short_visit_is_no_recovery() -> None:
    losses = [2.0] * 10 + [9.0] * 10 + [2.0] * 8 + [9.0] * 10 + [2.0] * 30
    assert recovery(losses, [2.0] * 68, 10) == 26


def test_a_run_that_stopped_early_has_not_recovered() -> None:
    assert recovery([2.0] * 15, [2.0] * 100, 10) is None


@given(st.lists(_ANY, max_size=5), _ANY)
def test_what_is_not_finite_has_crashed(losses: list[float], held_out: float) -> None:
    if not losses or not math.isfinite(losses[-1]) or not math.isfinite(held_out):
        assert crashed(losses, held_out, reference=2.0, untrained=5.5)


@given(st.floats(0, 100), st.floats(0.5, 4), st.floats(0.1, 5))
def test_a_run_has_crashed_when_it_lost_over_half_of_what_was_learned(loss: float, best: float, learned: float) -> None:
    assert crashed([1.0], loss, best, best + learned) == (loss - best > 0.5 * ((best + learned) - best))


@given(st.lists(st.floats(1e-3, 10), min_size=1, max_size=50), st.floats(1.0, 3.0))
def test_overhead_is_how_much_slower_each_step_is(seconds: list[float], factor: float) -> None:
    slower = [factor * second for second in seconds]
    assert math.isclose(overhead(slower, seconds), factor - 1, abs_tol=1e-9)


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_a_machine_that_is_busy_for_a_while_does_not_change_the_overhead(busy: list[bool]) -> None:
    plain = [3.0 if each else 1.0 for each in busy]
    assert math.isclose(overhead([1.1 * second for second in plain], plain), 0.1)


def test_a_slow_start_and_a_slow_step_do_not_count() -> None:
    assert typical([9.0] * 5 + [1.0] * 20 + [50.0]) == 1.0


def test_without_steps_there_is_no_overhead() -> None:
    assert math.isnan(overhead([], [1.0]))
    assert math.isnan(overhead([1.0], []))
