"""The levels to the tick: when a hold is full, a stay over, a cooldown past, a factor back."""

from __future__ import annotations

import json
import math

import pytest
from attrs import evolve

from lbw_policy.errors import StateError
from lbw_policy.machine.ladder import Configuration, Ladder, Truths
from lbw_policy.semantics.ceilings import SCALE_FLOOR
from lbw_policy.semantics.expressions import Constant, Truth
from lbw_policy.semantics.policy import Clip, Freeze, Level, Periodic, ScaleLr, Skip
from tests.machine.test_ladder import F, N, T, U, levels, run, trigger

HALF = Constant(0.5)


CAUTION = Level("caution", enter=trigger())
"""A level that is entered in a single tick and never left."""


def two(caution: Level = CAUTION) -> Ladder:
    """A ladder of the calm level and one above it."""
    return Ladder((Level("normal"), caution))


def three(caution: Level | None = None, defend: Level | None = None) -> Ladder:
    """A ladder of the calm level and two above it that are entered, and left, in a single tick."""
    one = caution or Level("caution", enter=trigger(), leave=trigger())
    return Ladder((Level("normal"), one, defend or Level("defend", enter=trigger(), leave=trigger())))


def enter(*values: Truth) -> list[Truths]:
    """Ticks of a ladder with one level above the calm one: what its trigger says, with nothing that leaves."""
    return [Truths((None, value), F) for value in values]


def ticks(*rows: tuple[Truth, Truth, Truth]) -> list[Truths]:
    """Ticks of a ladder with two levels above the calm one: what enters each, and what leaves the present."""
    return [Truths((None, caution, defend), leave) for caution, defend, leave in rows]


# Holds


def test_a_hold_is_full_at_its_count_and_not_before() -> None:
    assert levels(run(two(evolve(CAUTION, enter=trigger(3, 3))), enter(T, T, F, T, T, T))) == [0, 0, 0, 0, 0, 1]


def test_the_tick_before_the_window_no_longer_counts() -> None:
    ladder = two(evolve(CAUTION, enter=trigger(2, 3)))

    assert levels(run(ladder, enter(T, F, F, T, F, F))) == [0] * 6
    assert levels(run(ladder, enter(T, F, T))) == [0, 0, 1]


def test_a_hold_counts_unknown_and_not_what_is_not_ready() -> None:
    ladder = two(evolve(CAUTION, enter=trigger(2, 2)))

    assert levels(run(ladder, enter(U, U))) == [0, 1]
    assert levels(run(ladder, enter(N, T, N))) == [0, 0, 0]


def test_a_level_is_left_at_the_count_of_its_hold() -> None:
    ladder = two(evolve(CAUTION, leave=trigger(2, 3)))
    calm = [Truths((None, F), value) for value in (T, F, F, T, F, T)]

    assert levels(run(ladder, [*enter(T), *calm])) == [1, 1, 1, 1, 1, 1, 0]


def test_what_let_a_level_be_entered_does_not_let_it_be_entered_again() -> None:
    assert levels(run(two(evolve(CAUTION, enter=trigger(3, 5), stay=1)), enter(T, T, T, F, F, F))) == [0, 0, 1, 0, 0, 0]


def test_after_an_entry_a_hold_begins_with_nothing() -> None:
    assert levels(run(two(evolve(CAUTION, enter=trigger(2, 3), stay=1)), enter(T, T, F, T, F, T))) == [0, 1, 0, 0, 0, 1]


def test_a_move_keeps_what_other_levels_have_seen() -> None:
    ladder = three(defend=Level("defend", enter=trigger(2, 3), leave=trigger()))

    assert levels(run(ladder, ticks((T, T, F), (F, T, F)))) == [1, 2]


def test_the_calm_that_left_one_level_does_not_leave_the_next() -> None:
    caution = Level("caution", enter=trigger(), leave=trigger(2, 2))
    defend = Level("defend", enter=trigger(), leave=trigger(2, 2))

    assert levels(run(three(caution, defend), ticks((F, T, F), *[(F, F, T)] * 4))) == [2, 2, 1, 1, 0]


# Order


def test_a_fresh_run_stands_in_normal_and_holds_nothing() -> None:
    assert three().save(three().start()) == {
        "level": 0, "armed": False, "since": 0, "leaving": 0, "entering": [0, 0, 0], "cooling": [0, 0, 0],
        "holding": [False] * 3, "factors": [1.0] * 3, "restoring": [0.0] * 3, "started": [0, 0, 0],
    }  # fmt: skip


def test_a_calm_tick_changes_nothing_and_enters_nothing() -> None:
    ladder = three()
    start = ladder.start()

    assert ladder.advance(start, Truths((None, N, F), None)) == (start, False)
    assert ladder.advance(start, Truths((None, N, F), None))[0] is start


def test_an_entry_is_told_and_a_way_down_is_not() -> None:
    ladder, told = three(), list[bool]()
    now = ladder.start()
    for truths in ticks((T, F, F), (F, F, F), (F, T, F), (F, F, T), (T, F, F)):
        now, entered = ladder.advance(now, truths)
        told.append(entered)

    assert told == [True, False, True, False, True]


def test_a_tick_that_fires_both_ways_goes_up() -> None:
    assert levels(run(three(), ticks((T, F, F), (F, T, T)))) == [1, 2]


def test_an_entered_level_is_not_entered_again_by_its_own_trigger() -> None:
    found = run(two(evolve(CAUTION, stay=5)), enter(T, T, T))

    assert [one.since for one in found] == [0, 1, 2]


def test_a_level_reached_from_above_counts_its_own_trigger_from_then_on() -> None:
    found = run(three(), ticks((F, T, F), (F, F, T), (F, F, F), (T, F, F)))

    assert levels(found) == [2, 1, 1, 1]
    assert [one.armed for one in found] == [True, False, False, True]


# Stay


def test_a_level_is_left_when_its_stay_is_over() -> None:
    assert levels(run(two(evolve(CAUTION, stay=3)), enter(T, F, F, F, F))) == [1, 1, 1, 0, 0]


def test_a_stay_counts_from_the_move() -> None:
    caution, defend = Level("caution", enter=trigger(), stay=3), Level("defend", enter=trigger(), stay=2)
    found = run(three(caution, defend), ticks((T, F, F), (F, F, F), (F, T, F), *[(F, F, F)] * 6))

    assert levels(found) == [1, 1, 2, 2, 1, 1, 1, 0, 0]


# Cooldown


def test_a_level_is_open_again_when_its_cooldown_is_over_and_not_before() -> None:
    assert levels(run(two(evolve(CAUTION, stay=1, cooldown=3)), enter(T, T, T, T, T, T))) == [1, 0, 0, 0, 1, 0]


def test_a_cooldown_runs_out_while_all_is_calm() -> None:
    ladder = two(evolve(CAUTION, stay=1, cooldown=3))
    found = run(ladder, enter(T, F, F, F, F, F, T))

    assert [one.cooling[1] for one in found] == [0, 3, 2, 1, 0, 0, 0]
    assert levels(found)[-1] == 1


def test_leaving_a_level_shuts_that_level_only_and_only_on_the_way_down() -> None:
    caution = Level("caution", enter=trigger(), leave=trigger(), cooldown=5)
    defend = Level("defend", enter=trigger(), leave=trigger(), cooldown=7)
    found = run(three(caution, defend), ticks((T, F, F), (F, T, F), (F, F, T)))

    assert [one.cooling for one in found] == [(0, 0, 0), (0, 0, 0), (0, 0, 7)]


def test_a_level_that_cools_acts_again_where_the_run_comes_down_to_it() -> None:
    caution = Level("caution", enter=trigger(), leave=trigger(), cooldown=50)
    found = run(three(caution), ticks((T, F, F), (F, F, T), (T, F, F), (F, T, F), (F, F, T), (T, F, F)))

    assert levels(found) == [1, 0, 0, 2, 1, 1]
    assert found[-1].armed


def test_entering_a_level_again_shuts_nothing() -> None:
    found = run(three(evolve(CAUTION, leave=trigger(), cooldown=50)), ticks((F, T, F), (F, F, T), (T, F, F)))

    assert (found[-1].level, found[-1].cooling) == (1, (0, 0, 0))


# What is held


def test_a_level_holds_its_actions_from_its_entry_until_it_is_left() -> None:
    found = run(three(), ticks((T, F, F), (F, T, F), (F, F, T), (F, F, T)))

    assert [one.holding for one in found] == [
        (False, True, False), (False, True, True), (False, True, False), (False, False, False),
    ]  # fmt: skip


def test_coming_down_to_a_level_holds_nothing_of_it() -> None:
    found = run(three(), ticks((F, T, F), (F, F, T)))

    assert (found[-1].level, found[-1].armed, found[-1].holding) == (1, False, (False, False, False))


def test_a_ladder_rests_only_when_nothing_is_held_and_every_factor_is_back() -> None:
    ladder = three()
    both = run(ladder, ticks((T, F, F), (F, T, F), (F, F, T)))[-1]
    left = evolve(ladder.scale(ladder.start(), 1, 0.5), restoring=(0.0, 0.1, 0.0))

    assert not both.armed
    assert [ladder.at_rest(now) for now in (ladder.start(), both, left)] == [True, False, False]


# Factors


def scaled(ladder: Ladder, *factors: float, level: int = 1) -> Configuration:
    """A level that was entered and has scaled the lr by the factors."""
    (now,) = run(ladder, enter(T))
    for factor in factors:
        now = ladder.scale(now, level, factor)
    return now


@pytest.mark.parametrize(
    ("factors", "held"),
    [((0.5,), 0.5), ((0.5, 0.5), 0.25), ((0.5, 3.0), 0.5), ((0.5, math.inf), 0.5), ((0.1, 0.1, 0.1), SCALE_FLOOR),
     ((math.nan,), SCALE_FLOOR), ((-1.0,), SCALE_FLOOR), ((0.0,), SCALE_FLOOR)],
)  # fmt: skip
def test_factors_multiply_and_never_rise_nor_sink_below_the_floor(factors: tuple[float, ...], held: float) -> None:
    calm, found = scaled(two(), *factors).factors

    assert calm == 1.0
    assert found == pytest.approx(held)


@pytest.mark.parametrize("ticks", [1, 3, 7, 10, 49])
@pytest.mark.parametrize("factor", [0.01, 0.3, 0.5, 0.9])
def test_a_factor_comes_back_to_one_in_its_ticks_and_then_nothing_is_pending(ticks: int, factor: float) -> None:
    ladder = two(evolve(CAUTION, leave=trigger(), actions=(ScaleLr(HALF, restore=ticks),)))
    found = run(ladder, [Truths((None, F), T)] * (ticks + 2), scaled(ladder, factor))
    speed = (1.0 - factor) / ticks

    assert [one.factors[1] for one in found] == pytest.approx([min(1.0, factor + speed * i) for i in range(ticks + 2)])
    assert found[-1].factors == (1.0, 1.0)
    assert found[-1].restoring == (0.0, 0.0)
    assert all(one.factors[1] <= 1.0 for one in found)


@pytest.mark.parametrize("ticks", [1, 7, 1_000, 100_000])
@pytest.mark.parametrize("factor", [math.nextafter(1.0, 0.0), 1.0 - 1e-15, 1.0 - 1e-12])
def test_a_factor_just_below_one_comes_back_too(ticks: int, factor: float) -> None:
    """What it regains a tick must not be rounded away."""
    ladder = two(evolve(CAUTION, leave=trigger(), actions=(ScaleLr(HALF, restore=ticks),)))
    (now,) = run(ladder, [Truths((None, F), T)], scaled(ladder, factor))
    regained = now.restoring[1]

    assert factor + regained > factor
    assert (1.0 - factor) / regained <= ticks


def test_a_level_whose_factor_is_whole_gives_nothing_back() -> None:
    ladder = two(evolve(CAUTION, leave=trigger(), actions=(ScaleLr(HALF, restore=8),)))

    assert run(ladder, [Truths((None, F), T)], scaled(ladder))[-1].restoring == (0.0, 0.0)


def test_a_level_that_never_scales_the_lr_has_nothing_to_restore() -> None:
    assert two().restore == (1, 1)


def test_of_several_ways_back_the_slowest_counts_also_where_it_is_periodic() -> None:
    periodic = Periodic(5, ScaleLr(HALF, restore=9))

    assert two(evolve(CAUTION, actions=(ScaleLr(HALF, restore=4), ScaleLr(HALF, restore=6)))).restore == (1, 6)
    assert two(evolve(CAUTION, actions=(ScaleLr(HALF, restore=4),), periodic=(periodic,))).restore == (1, 9)


def test_the_factor_of_a_level_that_is_still_held_stays_when_a_higher_one_is_left() -> None:
    ladder = three(Level("caution", enter=trigger(), leave=trigger(), actions=(ScaleLr(HALF, restore=4),)))
    (entered,) = run(ladder, ticks((T, F, F)))
    found = run(ladder, ticks((F, T, F), (F, F, T), (F, F, F), (F, F, F)), ladder.scale(entered, 1, 0.5))

    assert levels(found) == [2, 1, 1, 1]
    assert [one.factors[1] for one in found] == [0.5] * 4


def test_a_level_entered_again_begins_with_the_whole_learning_rate() -> None:
    ladder = two(evolve(CAUTION, leave=trigger(), actions=(ScaleLr(HALF, restore=4),)))
    back = run(ladder, [Truths((None, F), T), Truths((None, F), F)], scaled(ladder, 0.2))[-1]
    (again,) = run(ladder, enter(T), back)
    fresh = ladder.fresh(again)

    assert again.since == 0
    assert 0.2 < again.factors[1] < 1.0
    assert (fresh.factors, fresh.restoring) == ((1.0, 1.0), (0.0, 0.0))
    assert fresh == evolve(again, factors=fresh.factors, restoring=fresh.restoring)


def test_a_factor_that_is_lowered_while_it_comes_back_is_held() -> None:
    ladder = two(evolve(CAUTION, leave=trigger(), actions=(ScaleLr(HALF, restore=4),)))
    (left,) = run(ladder, [Truths((None, F), T)], scaled(ladder, 0.2))
    held = ladder.scale(left, 1, 0.5)

    assert left.restoring[1] > 0.0
    assert [one.factors[1] for one in run(ladder, enter(F, F), held)] == [held.factors[1]] * 2


# Actions that last

CLIP, FREEZE, SKIP = Clip(HALF), Freeze(0.1, "grad_norm"), Skip()


def test_a_level_goes_on_with_the_lasting_actions_it_has_done_until_it_is_left_or_entered_again() -> None:
    ladder = two(evolve(CAUTION, leave=trigger(), actions=(SKIP, evolve(CLIP, otherwise=FREEZE), ScaleLr(HALF))))
    clip, freeze, scale = ladder.lasting[1]
    (entered,) = run(ladder, enter(T))
    one = ladder.hold(entered, 1, freeze)
    both = ladder.hold(one, 1, clip)
    left = run(ladder, [Truths((None, F), T)], both)[-1]

    assert ladder.lasting[0] == ()
    assert (clip.otherwise, freeze, scale) == (FREEZE, FREEZE, ScaleLr(HALF))
    assert [ladder.held(now, 1) for now in (entered, one, both)] == [[], [freeze], [clip, freeze]]
    assert run(ladder, enter(F), both)[-1].started == both.started
    assert ladder.held(left, 1) == ladder.held(ladder.fresh(both), 1) == []
    assert ladder.hold(both, 1, clip) == both


# Saved states


def test_a_level_at_the_top_with_its_factor_at_the_floor_is_resumed() -> None:
    ladder = three()
    (now,) = run(ladder, ticks((F, T, F)))
    now = ladder.scale(now, 2, math.nan)

    assert ladder.load(json.loads(json.dumps(ladder.save(now)))) == now


def test_a_resumed_level_has_its_factors_its_holds_and_its_times() -> None:
    caution = Level(
        "caution", enter=trigger(), leave=trigger(2, 2), cooldown=9, actions=(ScaleLr(HALF, restore=8), CLIP)
    )
    ladder = three(caution, Level("defend", enter=trigger(2, 2), leave=trigger(), actions=(ScaleLr(HALF, restore=4),)))
    (now,) = run(ladder, ticks((T, F, F)))
    now = run(ladder, ticks((T, T, F), (F, T, F)), ladder.scale(now, 1, 0.7))[-1]
    now = run(ladder, ticks((F, F, T), (F, T, T)), ladder.scale(now, 2, 0.5))[-1]
    now = evolve(ladder.hold(now, 1, CLIP), cooling=(0, 5, 3))
    state = json.loads(json.dumps(ladder.save(now)))

    assert (now.level, now.since, now.leaving, now.entering) == (1, 1, 1, (0, 0, 1))
    assert (now.factors, now.restoring) == ((1.0, 0.7, 0.625), (0.0, 0.0, 0.125))
    assert now.started == (0, 2, 0)
    assert ladder.load(state) == now


@pytest.mark.parametrize(
    "damage",
    [
        {"level": 3},
        {"level": -1},
        {"since": -1},
        {"leaving": -1},
        {"cooling": [0, -1, 0]},
        {"entering": [0, -1, 0]},
        {"factors": [1.0, SCALE_FLOOR / 2, 1.0]},
        {"factors": [1.0, 1.5, 1.0]},
        {"factors": [1.0, math.nan, 1.0]},
        {"restoring": [0.0, math.nan, 0.0]},
        {"holding": [False]},
        {"started": [0, 1, 0]},
        {"started": [0, -1, 0]},
        {"started": [0, 0]},
    ],
)
def test_a_state_that_no_run_of_this_ladder_can_have_saved_is_refused(damage: dict[str, object]) -> None:
    ladder = three()
    state = ladder.save(ladder.start())

    with pytest.raises(StateError):
        ladder.load({**state, **damage})
