"""The levels: what lets one be entered and left, under any sequence of condition values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.errors import StateError
from lbw_policy.machine.ladder import Configuration, Ladder, Truths
from lbw_policy.semantics.ceilings import SCALE_FLOOR
from lbw_policy.semantics.expressions import Finite, Reading, Truth
from lbw_policy.semantics.policy import Level, Trigger
from tests.strategies import anything, ladders

F, N, U, T = Truth.FALSE, Truth.NOT_READY, Truth.UNKNOWN, Truth.TRUE
CONDITION = Finite(Reading("loss"))


def trigger(count: int = 1, window: int = 1) -> Trigger:
    return Trigger(CONDITION, count, window)


def run(ladder: Ladder, ticks: list[Truths], start: Configuration | None = None) -> list[Configuration]:
    """Return the configuration after each tick."""
    now, found = start or ladder.start(), []
    for truths in ticks:
        now, _ = ladder.advance(now, truths)
        found.append(now)
    return found


def truths_of(ladder: Ladder) -> st.SearchStrategy[Truths]:
    value = st.sampled_from([F, N, U, T])
    enter = st.tuples(*(value if level.enter else st.none() for level in ladder.levels))
    return st.builds(Truths, enter, value)


@st.composite
def runs(draw: st.DrawFn) -> tuple[Ladder, list[Truths]]:
    ladder = draw(ladders())
    return ladder, draw(st.lists(truths_of(ladder), max_size=60))


def levels(found: list[Configuration]) -> list[int]:
    return [one.level for one in found]


TWO = Ladder(
    (Level("normal"), Level("caution", enter=trigger(), leave=trigger(2, 2)), Level("defend", enter=trigger()))
)


def test_the_highest_level_whose_trigger_fires_is_entered() -> None:
    assert levels(run(TWO, [Truths((None, T, T), None)])) == [2]


def test_unknown_enters_a_level_and_not_ready_does_not() -> None:
    assert levels(run(TWO, [Truths((None, N, N), None), Truths((None, U, N), None)])) == [0, 1]


def test_only_true_leaves_a_level_and_every_tick_of_the_hold_must_be_true() -> None:
    calm = [Truths((None, F, F), value) for value in (T, U, T, N, T, T)]

    assert levels(run(TWO, [Truths((None, T, F), None), *calm])) == [1, 1, 1, 1, 1, 1, 0]


def test_leaving_goes_one_rung_down_and_runs_no_actions() -> None:
    ladder = Ladder(
        (Level("n"), Level("c", enter=trigger(), leave=trigger()), Level("d", enter=trigger(), leave=trigger()))
    )
    found = run(ladder, [Truths((None, F, T), None), Truths((None, F, F), T), Truths((None, F, F), T)])

    assert levels(found) == [2, 1, 0]
    assert [one.armed for one in found] == [True, False, False]


def test_a_level_reached_from_above_is_entered_again_if_its_trigger_fires() -> None:
    ladder = Ladder(
        (Level("n"), Level("c", enter=trigger(), leave=trigger()), Level("d", enter=trigger(), leave=trigger()))
    )
    found = run(ladder, [Truths((None, F, T), None), Truths((None, F, F), T), Truths((None, T, F), F)])

    assert (found[-1].level, found[-1].armed, found[-1].holding) == (1, True, (False, True, False))


def test_a_hold_of_three_in_five_counts_the_last_five_ticks() -> None:
    ladder = Ladder((Level("n"), Level("c", enter=trigger(3, 5))))
    pattern = [T, F, F, T, F, F, T, T, F, T]

    assert levels(run(ladder, [Truths((None, value), None) for value in pattern])) == [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]


def test_a_factor_is_held_and_then_restored_in_equal_parts() -> None:
    from lbw_policy.semantics.expressions import Constant
    from lbw_policy.semantics.policy import ScaleLr

    level = Level("c", enter=trigger(), leave=trigger(), actions=(ScaleLr(Constant(0.5), restore=5),))
    ladder = Ladder((Level("n"), level))
    (entered,) = run(ladder, [Truths((None, T), None)])
    held = ladder.scale(entered, 1, 0.5)
    found = run(ladder, [Truths((None, F), F), *[Truths((None, F), T)] * 8], held)

    assert [one.factors[1] for one in found] == pytest.approx([0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0])


@settings(deadline=None)
@given(runs())
def test_unknown_and_not_ready_never_let_a_level_be_left(case: tuple[Ladder, list[Truths]]) -> None:
    ladder, ticks = case
    doubtful = [Truths(t.enter, min(t.leave or F, U) if t.leave != T else U) for t in ticks]
    now = ladder.start()
    for truths in doubtful:
        after, _ = ladder.advance(now, truths)
        overstayed = ladder.levels[now.level].stay is not None and now.since + 1 >= (ladder.levels[now.level].stay or 0)
        assert after.level >= now.level or overstayed
        now = after


@settings(deadline=None)
@given(runs())
def test_a_level_moves_down_one_rung_at_a_time_and_never_past_its_stay(case: tuple[Ladder, list[Truths]]) -> None:
    ladder, ticks = case
    before = ladder.start()
    for now in run(ladder, ticks):
        assert now.level >= before.level - 1
        stay = ladder.levels[now.level].stay
        assert stay is None or now.since <= stay
        before = now


@settings(deadline=None)
@given(runs())
def test_a_level_is_not_entered_from_below_while_it_cools(case: tuple[Ladder, list[Truths]]) -> None:
    ladder, ticks = case
    left: dict[int, int] = {}
    before = ladder.start()
    for tick, now in enumerate(run(ladder, ticks)):
        if now.level > before.level:
            cooldown = ladder.levels[now.level].cooldown
            assert tick - left.get(now.level, -cooldown - 1) > cooldown - 1
        if now.level < before.level:
            left[before.level] = tick
        before = now


@settings(deadline=None)
@given(runs())
def test_calm_leads_back_to_the_calm_level(case: tuple[Ladder, list[Truths]]) -> None:
    ladder, ticks = case
    now = [ladder.start(), *run(ladder, ticks)][-1]
    quiet = Truths(tuple(None if level.enter is None else F for level in ladder.levels), T)
    down = sum((level.leave.window if level.leave else level.stay or 0) + 1 for level in ladder.levels)
    most = down + max(level.enter.window if level.enter else 0 for level in ladder.levels)  # what was true still counts

    assert run(ladder, [quiet] * (most + 1), now)[-1].level == 0


@settings(deadline=None)
@given(runs(), st.lists(st.tuples(st.integers(0, 3), anything), max_size=10))
def test_factors_stay_between_the_floor_and_one(
    case: tuple[Ladder, list[Truths]], factors: list[tuple[int, float]]
) -> None:
    ladder, ticks = case
    now = ladder.start()
    for level, factor in factors:
        now = ladder.scale(now, min(level, len(ladder.levels) - 1), factor)
    for one in [now, *run(ladder, ticks, now)]:
        assert all(SCALE_FLOOR <= factor <= 1.0 for factor in one.factors)


@settings(deadline=None)
@given(runs(), st.integers(0, 60))
def test_a_resumed_ladder_goes_on_the_same(case: tuple[Ladder, list[Truths]], cut: int) -> None:
    ladder, ticks = case
    found = run(ladder, ticks)
    middle = [ladder.start(), *found][min(cut, len(found))]
    resumed = ladder.load(json.loads(json.dumps(ladder.save(middle))))

    assert resumed == middle
    assert run(ladder, ticks[cut:], resumed) == found[cut:]


@pytest.mark.parametrize(
    "damage",
    [{"level": 9}, {"armed": 1}, {"factors": [1.0]}, {"factors": [0.0, 1.0, 1.0]}, {"entering": "abc"}, {"x": 1},
     {"restoring": [0.0, -0.1, 0.0]}, {"restoring": [0.0, 1.1, 0.0]}],
)  # fmt: skip
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(StateError):
        TWO.load({**TWO.save(TWO.start()), **damage})
