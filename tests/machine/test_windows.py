"""What the windows compute, against exact arithmetic, and what they survive."""

from __future__ import annotations

import math
import statistics
import sys
from fractions import Fraction
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.errors import StateError
from lbw_policy.machine.trends import TRENDS, Ewma, Prev, Slope, Trend
from lbw_policy.machine.windows import RankedWindow, SummedWindow, midpoint, warm_up
from tests import strategies

SAMPLES = st.lists(strategies.finite_floats, min_size=1, max_size=80)
SIZES = st.integers(1, 24)
Window = RankedWindow | SummedWindow
W = TypeVar("W", RankedWindow, SummedWindow)
MAX = sys.float_info.max


def filled(window: W, samples: list[float]) -> W:
    for sample in samples:
        window.push(sample)
    return window


@pytest.mark.parametrize(("samples", "needed"), [(1, 1), (8, 8), (9, 8), (32, 8), (33, 8), (36, 9), (128, 32)])
def test_warm_up_is_a_quarter_but_at_least_eight_and_at_most_all(samples: int, needed: int) -> None:
    assert warm_up(samples) == needed
    ranked, summed = RankedWindow(samples), SummedWindow(samples)
    for count in range(1, samples + 1):
        ranked.push(1.0)
        summed.push(1.0)
        assert ranked.ready == summed.ready == (count >= needed)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_midpoint_is_correctly_rounded(one: float, other: float) -> None:
    assert midpoint(one, other) == float((Fraction(one) + Fraction(other)) / 2)


@given(SIZES, SAMPLES)
def test_ranked_window_agrees_with_sorting_the_last_samples(size: int, samples: list[float]) -> None:
    window, last = filled(RankedWindow(size), samples), samples[-size:]
    middle = window.median()
    exact = (Fraction(statistics.median_low(last)) + Fraction(statistics.median_high(last))) / 2
    assert (window.least(), window.greatest(), middle) == (min(last), max(last), float(exact))
    away = sorted(abs(sample - middle) for sample in last)
    assert window.spread(middle) == midpoint(away[(len(away) - 1) // 2], away[len(away) // 2])


@given(SIZES, SAMPLES, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_are_ordered_and_stay_between_the_extremes(
    size: int, samples: list[float], one: float, other: float
) -> None:
    window = filled(RankedWindow(size), samples)
    low, high = window.quantile(min(one, other)), window.quantile(max(one, other))
    assert window.least() <= low <= window.greatest()
    assert low <= high or math.isclose(low, high, rel_tol=1e-12)
    assert (window.quantile(0.0), window.quantile(1.0)) == (window.least(), window.greatest())


def test_quantile_is_linear_between_order_statistics() -> None:
    window = filled(RankedWindow(5), [50.0, 10.0, 40.0, 20.0, 30.0])
    assert [window.quantile(share) for share in (0.25, 0.5, 0.625, 0.9)] == [20.0, 30.0, 35.0, 46.0]


@given(SIZES, SAMPLES)
def test_mean_and_deviation_are_the_correctly_rounded_ones_of_the_last_samples(size: int, samples: list[float]) -> None:
    window, last = filled(SummedWindow(size), samples), samples[-size:]
    assert (window.mean(), window.std()) == (statistics.mean(last), statistics.pstdev(last))


@given(st.sampled_from([1e300, -MAX, 5e-324, 1e16]))
def test_a_huge_or_tiny_sample_leaves_no_trace_once_it_has_left(intruder: float) -> None:
    clean = [0.1 * step for step in range(8)]
    window, slope = filled(SummedWindow(8), [intruder, *clean]), Slope(8)
    for tick, sample in enumerate([intruder, *clean]):
        slope.follow(tick, sample)
    assert (window.mean(), window.std()) == (statistics.mean(clean), statistics.pstdev(clean))
    assert slope.value == pytest.approx(0.1)


def test_a_spike_does_not_mask_the_next_one() -> None:
    window = filled(RankedWindow(32), [4.0 + 0.01 * (step % 7) for step in range(31)] + [1e6])
    assert window.zscore(5.0) > 30
    assert abs(window.zscore(4.03)) < 1


def test_rounding_noise_on_a_constant_history_is_no_surprise() -> None:
    window = filled(RankedWindow(32), [2.5] * 32)
    assert abs(window.zscore(2.5 * (1 + 1e-6))) < 0.01
    assert window.zscore(2.6) > 30
    assert filled(RankedWindow(8), [0.0] * 8).zscore(1e-13) == pytest.approx(0.1)


@given(SAMPLES, strategies.anything)
def test_zscore_is_nan_for_what_is_not_finite_and_rises_with_the_sample(samples: list[float], value: float) -> None:
    window = filled(RankedWindow(16), samples)
    score = window.zscore(value)
    if not math.isfinite(value):
        assert math.isnan(score)
    elif math.isfinite(score):
        assert (score > 0) <= (value > window.median())
        assert (score < 0) <= (value < window.median())


def test_negative_zero_is_zero_to_a_baseline() -> None:
    window = filled(RankedWindow(2), [-0.0, -0.0])
    assert [math.copysign(1, value) for value in (window.least(), window.median())] == [1, 1]


@given(st.integers(1, 30), strategies.finite_floats, st.integers(1, 40))
def test_the_ewma_of_a_constant_is_that_constant(samples: int, value: float, count: int) -> None:
    trend = Ewma(samples)
    for tick in range(count):
        trend.follow(tick, value)
    assert trend.value == (value if count >= warm_up(samples) else None)


@given(st.integers(1, 30), SAMPLES)
def test_the_ewma_stays_finite(samples: int, values: list[float]) -> None:
    trend = Ewma(samples)
    for tick, value in enumerate([*values, MAX, -MAX, MAX, -MAX, *[1.0] * 8]):
        trend.follow(tick, value)
    assert math.isfinite(trend.value)


def test_ewma_starts_at_the_first_sample_and_moves_by_two_over_n_plus_one() -> None:
    trend = Ewma(3)
    for tick, value in enumerate([4.0, 8.0, 8.0]):
        trend.follow(tick, value)
    assert trend.value == 7.0


@given(
    st.integers(2, 20),
    st.integers(-50, 50),
    st.integers(0, 10**9),
    st.lists(st.integers(1, 9), min_size=20, max_size=40),
)
def test_the_slope_of_a_line_is_exact_at_any_tick_and_over_uneven_gaps(
    samples: int, steepness: int, tick: int, gaps: list[int]
) -> None:
    trend = Slope(samples)
    for gap in gaps:
        tick += gap
        trend.follow(tick, 0.25 * steepness * tick)
    assert trend.value == 0.25 * steepness


def test_slope_needs_its_warm_up_and_two_samples() -> None:
    trend, lone = Slope(40), Slope(1)
    for tick in range(9):
        trend.follow(tick, 1.0)
        lone.follow(tick, 1.0)
        assert trend.value is None
    trend.follow(9, 1.0)
    assert (trend.value, lone.value) == (0.0, None)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_slope_beyond_the_floats_is_infinite(sign: int) -> None:
    trend = Slope(2)
    trend.follow(0, -sign * MAX)
    trend.follow(1, sign * MAX)
    assert trend.value == sign * math.inf


def test_prev_is_the_value_that_many_samples_ago() -> None:
    trend, seen = Prev(3), []
    for tick in range(6):
        trend.follow(tick, float(tick))
        seen.append(trend.value)
    assert seen == [None, None, None, 0.0, 1.0, 2.0]


@settings(max_examples=60)
@given(st.sampled_from([RankedWindow, SummedWindow]), SIZES, SAMPLES, SAMPLES)
def test_a_restored_window_goes_on_as_the_first_would_have(
    kind: type[Window], size: int, before: list[float], after: list[float]
) -> None:
    first, second = filled(kind(size), before), filled(kind(size), after)
    second.load_state_dict(first.state_dict())
    filled(first, after)
    filled(second, after)
    assert first.state_dict() == second.state_dict()
    reads = ("median", "least", "greatest") if kind is RankedWindow else ("mean", "std")
    assert [getattr(first, name)() for name in reads] == [getattr(second, name)() for name in reads]


@settings(max_examples=60)
@given(st.sampled_from(sorted(TRENDS)), SIZES, SAMPLES, SAMPLES)
def test_a_restored_trend_goes_on_as_the_first_would_have(
    kind: str, size: int, before: list[float], after: list[float]
) -> None:
    first, second = TRENDS[kind](size), TRENDS[kind](size)
    for tick, value in enumerate(before):
        first.follow(tick, value)
    second.load_state_dict(first.state_dict())
    assert second.value == first.value
    for tick, value in enumerate(after, 1000):
        first.follow(tick, value)
        second.follow(tick, value)
        assert second.value == first.value


@pytest.mark.parametrize(
    ("owner", "state"),
    [
        (RankedWindow(2), [1.0, 2.0, 3.0]),
        (RankedWindow(2), [math.nan]),
        (RankedWindow(2), {"a": 1.0}),
        (SummedWindow(2), ["1"]),
        (SummedWindow(2), [True]),
        (SummedWindow(2), [10**400]),
        (Ewma(9), [1.0]),
        (Ewma(9), [math.inf, 3]),
        (Ewma(9), [1.0, 9]),
        (Ewma(9), [1.0, -1]),
        (Ewma(9), [1.0, 1.5]),
        (Slope(3), [1.0]),
        (Slope(3), [[0.5, 1.0]]),
        (Slope(3), [[1, math.nan]]),
        (Prev(1), [1.0, 2.0, 3.0]),
    ],
)
def test_a_damaged_state_is_refused(owner: Window | Trend, state: object) -> None:
    with pytest.raises(StateError, match=r"expected .* found"):
        owner.load_state_dict(state)


@given(st.sampled_from([RankedWindow, SummedWindow, Prev, Slope]), SIZES, st.integers(0, 200))
def test_no_window_outgrows_its_slots(kind: type[Window | Trend], size: int, count: int) -> None:
    owner = kind(size)
    for tick in range(count):
        owner.follow(tick, float(tick)) if hasattr(owner, "follow") else owner.push(float(tick))
    assert len(owner.state_dict()) <= owner.slots
