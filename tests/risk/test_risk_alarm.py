from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_streams import dice

from lbw_policy.risk.alarm import ENOUGH, REFRACTORY, SCORE_BOUND, Threshold, log_odds

H = 10


def _drive(scores: list[float], budget: float) -> tuple[Threshold, float]:
    """Run a threshold over calm ticks, each score known a horizon later; also return the highest excess."""
    threshold, waiting, highest = Threshold(budget), [], 0.0
    for tick, score in enumerate(scores):
        highest = max(highest, threshold.excess(score) or 0.0)
        threshold.judge(tick, score)
        waiting.append(score)
        if len(waiting) > H:
            threshold.learn(waiting.pop(0))
        threshold.observe(tick, troubled=False, intervened=False)
    return threshold, highest


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([3e-4, 3e-3, 3e-2]),
    st.sampled_from([0.0, 0.2, 2.0]),
    st.lists(st.tuples(st.integers(1, 60), st.floats(-SCORE_BOUND, SCORE_BOUND)), min_size=5, max_size=30),
    st.integers(0, 99),
)
def test_false_alarms_keep_to_the_guarantee(
    budget: float, spread: float, spans: list[tuple[int, float]], seed: int
) -> None:
    """For any sequence of scores the false alarms stay below `budget N + K + ceil(25 / 25)`."""
    rng = dice(seed)
    scores = [
        min(max(level + rng.gauss(0, spread), -SCORE_BOUND), SCORE_BOUND)
        for length, level in spans
        for _ in range(length)
    ]
    threshold, highest = _drive(scores, budget)
    assert threshold.false_alarms <= budget * threshold.quiet + highest + 1


@pytest.mark.parametrize(
    ("draw", "most"), [(lambda rng: rng.gauss(-5, 0.5), 0.3), (lambda rng: rng.expovariate(2) - 5, 0.8)]
)
def test_the_budget_holds_on_exchangeable_scores(draw: Callable[[random.Random], float], most: float) -> None:
    """At 0.3 per 1_000 asked, Gaussian scores stay below it and exponential ones within 0.5 of it over 40_000 ticks."""
    rng, alarms, ticks = dice(5), 0, 0
    for _ in range(8):
        threshold, _ = _drive([draw(rng) for _ in range(5000)], 3e-4)
        alarms, ticks = alarms + threshold.false_alarms, ticks + 5000
    assert 1000 * alarms / ticks <= most


def test_a_priors_threshold_stands_and_is_moved_by_false_alarms_only() -> None:
    """Scores far below the prior's start do not lower it beyond the budget; each false alarm lifts it by its unit."""
    threshold = Threshold(3e-4, start=-2.0, unit=0.5)
    for _ in range(500):
        threshold.learn(-7.0)
    assert threshold.value == pytest.approx(-2.0 - 0.5 * 500 * 3e-4)
    assert threshold.judge(0, 0.0)
    before = threshold.value
    for tick in range(30):
        threshold.observe(tick, False, False)
    assert threshold.value == pytest.approx(before + 0.5)


def test_a_larger_budget_is_spent() -> None:
    """At 10 per 1_000 asked, between 5 and 13 per 1_000 come: the threshold sinks to where alarms are."""
    rng = dice(5)
    threshold, _ = _drive([rng.gauss(-5, 0.5) for _ in range(5000)], 1e-2)
    assert 5 <= 1000 * threshold.false_alarms / threshold.quiet <= 13


def test_no_alarm_before_the_tail_is_known() -> None:
    """Without a prior's threshold nothing alarms until ENOUGH quiet scores are in; a prior's alarms from the start."""
    fresh, started = Threshold(3e-4), Threshold(3e-4, start=-2.0)
    for _ in range(ENOUGH - 1):
        fresh.learn(-5.0)
    assert not fresh.exceeded(SCORE_BOUND)
    assert started.exceeded(-1.9)
    assert not started.exceeded(-2.1)


def test_a_budget_of_nothing_never_alarms() -> None:
    """No false alarm allowed means no alarm."""
    threshold, _ = _drive([-5.0] * 200, 0.0)
    assert not threshold.exceeded(SCORE_BOUND)


@pytest.mark.parametrize(
    ("trouble", "act", "known", "raised"), [(None, None, 1, 1), (12, None, 0, 0), (None, 3, 0, 1), (12, 3, 0, 0)]
)
def test_an_alarm_is_false_unless_trouble_follows(
    trouble: int | None, act: int | None, known: int, raised: int
) -> None:
    """A calm `grace` makes an alarm false, though not provably so if the guard acted; a crossing excuses it."""
    threshold = Threshold(3e-4, start=-2.0)
    assert threshold.judge(0, 0.0)
    found = [threshold.observe(tick, tick == trouble, tick == act) for tick in range(60)]
    false = [each.false for each in found]
    assert sum(false) == known
    assert sum(each.true for each in found) == (trouble is not None)
    assert threshold.false_alarms == threshold.shift == raised
    assert false.index(1) == REFRACTORY if known else 1 not in false


def test_a_warning_is_remembered_while_the_trouble_lasts() -> None:
    """`warned` tells, from the first tick of trouble to its last, whether an alarm came before."""
    warned, surprised = Threshold(3e-4, start=-2.0), Threshold(3e-4, start=-2.0)
    assert warned.judge(0, 0.0)
    for tick in range(1, 6):
        for each in (warned, surprised):
            each.observe(tick, tick in (2, 3), False)
        assert warned.warned == (tick in (2, 3))
        assert not surprised.warned


def test_a_standing_alarm_is_counted_every_25_ticks() -> None:
    """An alarm that stands for 60 ticks counts three times."""
    threshold = Threshold(3e-4, grace=100, start=-2.0)
    assert all(threshold.judge(tick, 12.0) for tick in range(60))
    assert [alarm.tick for alarm in threshold.raised] == [0, 25, 50]


@given(st.floats(0, 1))
def test_scores_are_bounded_and_ordered(probability: float) -> None:
    """Log-odds of any probability are within the bound and do not fall as it rises."""
    assert -SCORE_BOUND <= log_odds(probability) <= SCORE_BOUND
    assert log_odds(probability) >= log_odds(probability / 2)


def test_threshold_round_trip_is_exact() -> None:
    """A threshold restored from JSON is the same to the bit and stays so."""
    rng = dice(0)
    one, _ = _drive([rng.gauss(-5, 1) for _ in range(900)], 3e-3)
    two = Threshold(3e-3)
    two.load_state_dict(json.loads(json.dumps(one.state_dict(), allow_nan=False)))
    for tick in range(900, 1000):
        score = rng.gauss(-4, 1)
        assert two.judge(tick, score) == one.judge(tick, score)
        one.learn(score)
        two.learn(score)
        assert two.observe(tick, False, tick == 950) == one.observe(tick, False, tick == 950)
        assert two.value == one.value
