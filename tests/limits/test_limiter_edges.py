"""The limiter to the tick: what is the last request granted and the first refused, and what each costs."""

from __future__ import annotations

import json
import math

import pytest
from attrs import evolve

from lbw_policy.errors import StateError
from lbw_policy.limits import Grant, Limiter, Outcome, Request, Situation
from lbw_policy.semantics.policy import (
    Budget,
    CustomLimit,
    FreezeLimit,
    Limits,
    RollbackLimit,
    ScaleLimit,
    SkipLimit,
)

GRANTED, REDUCED, REFUSED = Outcome.GRANTED, Outcome.REDUCED, Outcome.REFUSED
WIDE = Budget(100, 100)
LIMITS = Limits(
    scale_lr=ScaleLimit(0.1, 0.8),
    skip=SkipLimit(2, WIDE),
    clip=WIDE,
    rollback=RollbackLimit(20, WIDE),
    freeze=FreezeLimit(0.25, 3),
    reset_moments=WIDE,
    checkpoint=WIDE,
    intervene=Budget(1_000, 1_000),
    custom=(CustomLimit("boost", 0.5, 2.0, WIDE), CustomLimit("nudge", None, None, WIDE)),
)
ACTIONS = ("skip", "clip", "rollback", "freeze", "scale_lr", "reset_moments", "boost", "nudge")
"""Every action that is an intervention."""
AMOUNTS = {"clip": 1.0, "rollback": 20.0, "freeze": 0.1, "scale_lr": 0.5, "boost": 1.0}
AT_HAND = Situation(snapshots=(0,), grad_norm=2.0)


def request(action: str) -> Request:
    return Request(action, "r", AMOUNTS.get(action))


def ask(limiter: Limiter, tick: int, *requests: Request, situation: Situation = AT_HAND) -> dict[str, Grant]:
    """Answer a tick's requests, and end the tick as the answers say; returns grants by action."""
    found = {grant.request.action: grant for grant in limiter.rule(tick, requests, situation)}
    ends = {action for action, grant in found.items() if grant.outcome is not REFUSED}
    limiter.stepped(applied=not ends & {"skip", "rollback", "halt"})
    return found


def one(limiter: Limiter, tick: int, action: str, amount: float | None = None) -> Grant:
    """Answer one request that is alone in its tick."""
    return ask(limiter, tick, Request(action, "r", AMOUNTS.get(action) if amount is None else amount))[action]


def outcomes(limiter: Limiter, action: str, ticks: range, amount: float | None = None) -> list[Outcome]:
    return [one(limiter, tick, action, amount).outcome for tick in ticks]


def at(progress: int, limits: Limits = LIMITS) -> Limiter:
    """A limiter that has seen a number of accepted updates."""
    limiter = Limiter(limits)
    for _ in range(progress):
        limiter.stepped(applied=True)
    return limiter


# Budgets


def budgeted(common: Budget, own: Budget = WIDE) -> Limits:
    """Limits in which all actions have this budget in common, and each the other one of its own."""
    custom = tuple(CustomLimit(each.name, each.low, each.high, own) for each in LIMITS.custom)
    rollback, skip = RollbackLimit(20, own), SkipLimit(2, own)
    limits = evolve(LIMITS, rollback=rollback, skip=skip, custom=custom, intervene=common)
    return evolve(limits, clip=own, reset_moments=own, checkpoint=own, freeze=FreezeLimit(0.25, 1))


def begun(limiter: Limiter, action: str, ticks: range) -> list[int]:
    """Return the ticks at which an action was begun, with a quiet tick after each, so that it can begin again."""
    found = []
    for tick in ticks:
        if one(limiter, 2 * tick, action).outcome is GRANTED:
            found.append(tick)
        ask(limiter, 2 * tick + 1)
    return found


@pytest.mark.parametrize("action", ACTIONS)
def test_every_intervention_is_charged_to_the_common_budget(action: str) -> None:
    assert begun(Limiter(budgeted(Budget(2, 12))), action, range(8)) == [0, 1, 6, 7]


@pytest.mark.parametrize("action", sorted(set(ACTIONS) - {"freeze", "scale_lr"} | {"checkpoint"}))
def test_every_action_with_a_budget_of_its_own_is_charged_to_it(action: str) -> None:
    assert begun(Limiter(budgeted(WIDE, Budget(2, 12))), action, range(8)) == [0, 1, 6, 7]


def test_a_checkpoint_and_a_halt_are_no_interventions() -> None:
    limiter = Limiter(evolve(LIMITS, intervene=Budget(1, 100)))
    one(limiter, 0, "nudge")

    assert one(limiter, 1, "checkpoint").outcome is GRANTED
    assert one(limiter, 2, "halt").outcome is GRANTED
    assert one(limiter, 3, "nudge").outcome is REFUSED


def test_what_one_budget_refuses_is_charged_to_none() -> None:
    limiter = Limiter(evolve(LIMITS, clip=Budget(1, 100), intervene=Budget(1, 5)))
    one(limiter, 0, "nudge")

    assert not one(limiter, 1, "clip").starts
    assert outcomes(limiter, "clip", range(2, 6)) == [REFUSED] * 3 + [GRANTED]


def test_what_no_budget_counts_is_granted_and_tells_nothing_left() -> None:
    grant = one(Limiter(Limits(scale_lr=ScaleLimit(0.1, 1.0))), 0, "scale_lr")

    assert (grant.outcome, grant.amount, grant.left) == (GRANTED, 0.5, None)


def test_the_tightest_budget_is_told() -> None:
    limiter = Limiter(evolve(LIMITS, clip=Budget(3, 100), intervene=Budget(9, 100)))
    grants = [one(limiter, tick, "clip") for tick in range(4)]

    assert [grant.left for grant in grants] == [2, 1, 0, 0]
    assert grants[3].reason == "3 per 100 steps are spent"
    assert one(limiter, 4, "nudge").left == 5


@pytest.mark.parametrize("action", [*ACTIONS, "checkpoint"])
def test_without_its_limit_an_action_is_refused_and_costs_nothing(action: str) -> None:
    limiter = Limiter(Limits())
    grant = one(limiter, 0, action)

    assert (grant.outcome, grant.amount, grant.starts) == (REFUSED, None, False)
    assert grant.reason == "the policy has no limit for it"


def test_a_clip_needs_no_limit_beside_that_of_all_interventions() -> None:
    assert one(Limiter(Limits(intervene=Budget(1, 10))), 0, "clip").amount == 0.5


# Skip


def test_a_run_of_skips_ends_at_its_limit_and_an_accepted_update_allows_the_next() -> None:
    assert outcomes(Limiter(LIMITS), "skip", range(6)) == [GRANTED, GRANTED, REFUSED] * 2


def test_a_rollback_does_not_end_a_run_of_skips() -> None:
    limiter = at(5)
    asked = ["skip", "rollback", "skip", "rollback", "skip"]

    assert [one(limiter, tick, action).outcome for tick, action in enumerate(asked)] == [GRANTED] * 4 + [REFUSED]


def test_a_refused_skip_does_not_lengthen_the_run() -> None:
    limiter = Limiter(evolve(LIMITS, skip=SkipLimit(2, Budget(1, 4))))
    one(limiter, 0, "skip")
    limiter.rule(1, [request("skip")], AT_HAND)
    limiter.rule(2, [request("skip")], AT_HAND)

    assert limiter.in_a_row == 1


# Rollback


def test_a_rollback_reaches_exactly_as_far_as_the_limit() -> None:
    request = Request("rollback", "r", 20.0)
    exact = ask(at(30), 0, request, situation=Situation((10,)))["rollback"]
    beyond = ask(at(30), 0, request, situation=Situation((9,)))["rollback"]

    assert (exact.outcome, exact.amount, beyond.outcome) == (GRANTED, 10, REFUSED)


@pytest.mark.parametrize(
    ("asked", "outcome", "restored"),
    [(5.0, GRANTED, 29), (0.0, REFUSED, None), (1e9, REDUCED, 29), (math.inf, REDUCED, 29), (math.nan, REFUSED, None),
     (-5.0, REFUSED, None)],
)  # fmt: skip
def test_a_rollback_restores_the_newest_snapshot_within_what_was_asked(
    asked: float, outcome: Outcome, restored: int | None
) -> None:
    limiter = at(30)
    grant = ask(limiter, 0, Request("rollback", "r", asked), situation=Situation((12, 29)))["rollback"]

    assert (grant.outcome, grant.amount) == (outcome, restored)
    assert (limiter.progress, limiter.high_water) == ((31, 31) if restored is None else (restored, 30))


def test_rollbacks_in_a_row_do_not_add_up() -> None:
    limiter = at(30)
    first = ask(limiter, 0, request("rollback"), situation=Situation((15,)))["rollback"]
    second = ask(limiter, 1, request("rollback"), situation=Situation((0, 9)))["rollback"]
    third = ask(limiter, 2, request("rollback"), situation=Situation((10,)))["rollback"]

    assert (first.amount, second.outcome, third.amount) == (15, REFUSED, 10)


def test_a_snapshot_of_a_history_that_was_given_up_is_never_restored() -> None:
    limiter = at(30)
    ask(limiter, 0, request("rollback"), situation=Situation((15, 30)))
    limiter.progress = 15
    grant = ask(limiter, 1, request("rollback"), situation=Situation((12, 30)))["rollback"]

    assert grant.amount == 12


# Clip


@pytest.mark.parametrize(
    ("to", "norm", "outcome", "amount", "starts"),
    [(1.0, 4.0, GRANTED, 0.25, True), (4.0, 4.0, GRANTED, 1.0, False), (5.0, 4.0, GRANTED, 1.0, False),
     (0.0, 4.0, GRANTED, 0.0, True), (-1.0, 4.0, REFUSED, None, False), (math.nan, 4.0, REFUSED, None, False),
     (math.inf, 4.0, REFUSED, None, False), (None, 4.0, REFUSED, None, False), (1.0, math.nan, REFUSED, None, False),
     (1.0, math.inf, REFUSED, None, False), (1.0, None, REFUSED, None, False)],
)  # fmt: skip
def test_a_clip_shrinks_to_a_finite_norm_and_is_free_where_it_does_not_bind(
    to: float | None, norm: float | None, outcome: Outcome, amount: float | None, starts: bool
) -> None:
    limiter = Limiter(LIMITS)
    grant = ask(limiter, 0, Request("clip", "r", to), situation=Situation(grad_norm=norm))["clip"]

    why = "the norm of the gradients, or the norm asked for, is not a finite number"
    assert (grant.outcome, grant.amount, grant.starts) == (outcome, amount, starts)
    assert grant.reason == (why if outcome is REFUSED else "" if starts else "the gradients are within the norm")
    assert limiter.state_dict()["budgets"]["clip"] == [0] * starts


# Freeze


def test_a_freeze_ends_at_its_duration_and_is_followed_by_a_pause_of_its_length() -> None:
    found = [one(Limiter(LIMITS), 0, "freeze", 0.0)]
    limiter = Limiter(LIMITS)
    found += [one(limiter, tick, "freeze") for tick in range(12)]
    full, rest = "layers were frozen for 3 steps", "layers rest until step {}"

    assert [grant.outcome for grant in found[1:]] == ([GRANTED] * 3 + [REFUSED] * 3) * 2
    assert [grant.reason for grant in found[:7]] == [
        "no share of layers to freeze",
        "",
        "",
        "",
        full,
        *[rest.format(6)] * 2,
    ]


def test_a_short_freeze_that_ends_in_a_quiet_tick_is_followed_by_a_short_pause() -> None:
    limiter = Limiter(LIMITS)
    one(limiter, 0, "freeze")
    one(limiter, 1, "freeze")
    ask(limiter, 2)

    assert outcomes(limiter, "freeze", range(3, 8)) == [REFUSED, GRANTED, GRANTED, GRANTED, REFUSED]


def test_a_freeze_is_charged_where_it_begins() -> None:
    limiter = Limiter(LIMITS)
    starts = [one(limiter, tick, "freeze").starts for tick in range(8)]

    assert starts == [True, False, False, False, False, False, True, False]
    assert limiter.state_dict()["budgets"]["intervene"] == [0, 6]


def test_a_freeze_that_no_budget_allows_leaves_no_trace() -> None:
    limiter = Limiter(evolve(LIMITS, intervene=Budget(1, 3)))
    one(limiter, 0, "nudge")

    assert outcomes(limiter, "freeze", range(1, 7)) == [REFUSED] * 2 + [GRANTED] * 3 + [REFUSED]


@pytest.mark.parametrize(
    ("asked", "outcome", "share"),
    [(0.1, GRANTED, 0.1), (0.25, GRANTED, 0.25), (0.3, REDUCED, 0.25), (math.inf, REDUCED, 0.25), (0.0, REFUSED, None),
     (-1.0, REFUSED, None), (math.nan, REFUSED, None)],
)  # fmt: skip
def test_a_freeze_takes_at_most_its_share_and_none_for_no_number(
    asked: float, outcome: Outcome, share: float | None
) -> None:
    limiter = Limiter(LIMITS)
    grant = one(limiter, 0, "freeze", asked)

    assert (grant.outcome, grant.amount) == (outcome, share)
    assert limiter.frozen_for == (share is not None)


# Learning rate


@pytest.mark.parametrize(
    ("asked", "outcome", "factor"),
    [(0.5, GRANTED, 0.5), (0.1, GRANTED, 0.1), (0.05, REDUCED, 0.1), (0.0, REDUCED, 0.1), (-math.inf, REDUCED, 0.1),
     (math.nan, REDUCED, 0.1), (0.9, REDUCED, 0.8), (math.inf, REDUCED, 0.8)],
)  # fmt: skip
def test_an_lr_factor_stays_in_its_range_and_no_number_gives_the_lower_end(
    asked: float, outcome: Outcome, factor: float
) -> None:
    grant = one(Limiter(LIMITS), 0, "scale_lr", asked)

    assert (grant.outcome, grant.amount) == (outcome, factor)


def test_each_lowering_is_charged_and_holding_or_raising_is_not() -> None:
    limiter = Limiter(LIMITS)
    starts = [one(limiter, tick, "scale_lr", factor).starts for tick, factor in enumerate((0.5, 0.5, 0.4, 0.7, 0.5))]

    assert starts == [True, False, True, False, True]
    assert limiter.state_dict()["budgets"]["intervene"] == [0, 2, 4]


@pytest.mark.parametrize("between", [(), (Request("nudge", "r"),)])
def test_a_factor_that_was_let_go_of_is_charged_again(between: tuple[Request, ...]) -> None:
    limiter = Limiter(LIMITS)
    first = one(limiter, 0, "scale_lr", 0.5)
    ask(limiter, 1, *between)
    second = one(limiter, 2, "scale_lr", 0.5)

    assert (first.starts, second.starts, limiter.scale) == (True, True, 0.5)


def test_a_refused_lowering_keeps_the_present_factor_and_none_where_there_is_none() -> None:
    limiter = Limiter(evolve(LIMITS, intervene=Budget(1, 4)))
    first = one(limiter, 0, "scale_lr", 0.5)
    kept = one(limiter, 1, "scale_lr", 0.2)
    ask(limiter, 2)
    refused = one(limiter, 3, "scale_lr", 0.2)

    assert (first.amount, kept.amount, kept.outcome, kept.starts) == (0.5, 0.5, REDUCED, False)
    assert (kept.reason, kept.left) == ("1 per 4 steps are spent", 0)
    assert (refused.outcome, refused.amount, limiter.scale) == (REFUSED, None, 1.0)


# Plugins


@pytest.mark.parametrize(
    ("asked", "outcome", "amount"),
    [(1.0, GRANTED, 1.0), (0.5, GRANTED, 0.5), (2.0, GRANTED, 2.0), (9.0, REDUCED, 2.0), (-9.0, REDUCED, 0.5),
     (math.nan, REDUCED, 0.5)],
)  # fmt: skip
def test_a_plugins_amount_stays_in_its_range(asked: float, outcome: Outcome, amount: float) -> None:
    grant = one(Limiter(LIMITS), 0, "boost", asked)

    assert (grant.outcome, grant.amount) == (outcome, amount)


def test_a_plugin_without_a_range_is_given_no_amount() -> None:
    assert one(Limiter(LIMITS), 0, "nudge", 5.0).amount is None


# One tick


def test_a_tick_that_rolls_back_neither_skips_nor_clips() -> None:
    limiter = at(5)
    found = ask(limiter, 0, *(request(action) for action in ("clip", "skip", "rollback", "scale_lr")))

    assert set(found) == {"rollback", "scale_lr"}
    assert limiter.in_a_row == 0


def test_a_tick_that_skips_does_not_clip() -> None:
    found = ask(Limiter(LIMITS), 0, request("clip"), request("skip"))

    assert set(found) == {"skip"}


def test_where_a_rollback_is_refused_the_update_is_skipped_and_where_that_is_refused_it_is_clipped() -> None:
    limiter = Limiter(evolve(LIMITS, skip=SkipLimit(1, WIDE)))
    asked = [request(action) for action in ("rollback", "skip", "clip")]
    found = [ask(limiter, tick, *asked, situation=Situation(grad_norm=2.0)) for tick in range(2)]

    assert [{name: grant.outcome for name, grant in each.items()} for each in found] == [
        {"rollback": REFUSED, "skip": GRANTED},
        {"rollback": REFUSED, "skip": REFUSED, "clip": GRANTED},
    ]


def test_a_refused_rollback_leaves_progress_alone() -> None:
    limiter = at(5)
    ask(limiter, 0, request("rollback"), situation=Situation(()))

    assert (limiter.progress, limiter.high_water) == (6, 6)


def test_progress_counts_accepted_updates_only() -> None:
    limiter = Limiter(LIMITS)
    for tick, action in enumerate(("clip", "skip", "nudge", "skip")):
        one(limiter, tick, action)

    assert (limiter.progress, limiter.high_water) == (2, 2)


def test_a_tick_that_halts_charges_nothing_but_its_checkpoint() -> None:
    limiter = at(5)
    found = ask(limiter, 0, *(request(action) for action in (*ACTIONS, "checkpoint", "halt")))
    budgets = limiter.state_dict()["budgets"]

    assert list(found) == ["halt", "checkpoint"]
    assert {name: ticks for name, ticks in budgets.items() if ticks} == {"checkpoint": [0]}
    assert (limiter.progress, limiter.in_a_row, limiter.frozen_for, limiter.scale) == (5, 0, 0, 1.0)


# Saved states


def test_a_fresh_limiter_has_seen_nothing() -> None:
    names = ("skip", "rollback", "clip", "reset_moments", "checkpoint", "intervene", "boost", "nudge")

    assert Limiter(LIMITS).state_dict() == {
        "progress": 0, "high_water": 0, "in_a_row": 0, "frozen_for": 0, "rest_until": 0, "last_tick": -1, "scale": 1.0,
        "budgets": {name: [] for name in names},
    }  # fmt: skip


def worn() -> Limiter:
    """A limiter in which every number of the state is other than at the start."""
    limiter = at(9)
    ask(limiter, 0, request("rollback"), situation=Situation((5,)))
    ask(limiter, 1, request("freeze"))
    ask(limiter, 2, request("nudge"), request("clip"))
    ask(limiter, 3, request("skip"), request("freeze"), request("scale_lr"), request("checkpoint"))
    ask(limiter, 4, request("skip"), request("freeze"), request("scale_lr"), request("reset_moments"))
    return limiter


def test_a_saved_state_has_every_number_and_a_resumed_limiter_has_it_too() -> None:
    limiter, resumed = worn(), Limiter(LIMITS)
    state = json.loads(json.dumps(limiter.state_dict()))
    resumed.load_state_dict(state)

    assert state == {
        "progress": 7, "high_water": 9, "in_a_row": 2, "frozen_for": 2, "rest_until": 3, "last_tick": 4, "scale": 0.5,
        "budgets": {"skip": [3, 4], "rollback": [0], "clip": [2], "reset_moments": [4], "checkpoint": [3],
                    "intervene": [0, 1, 2, 2, 3, 3, 3, 4, 4], "boost": [], "nudge": [2]},
    }  # fmt: skip
    assert resumed.state_dict() == state


@pytest.mark.parametrize(
    "damage",
    [
        {"progress": 10},
        {"progress": -1},
        {"high_water": -1},
        {"in_a_row": -1},
        {"frozen_for": -1},
        {"rest_until": -1},
        {"last_tick": "4"},
        {"high_water": 2**53 + 1},
        {"high_water": 10**400},
        {"scale": 0.0},
        {"scale": 1.5},
        {"scale": math.nan},
    ],
)
def test_a_state_that_no_run_can_have_saved_is_refused(damage: dict[str, object]) -> None:
    limiter = Limiter(LIMITS)
    fresh = limiter.state_dict()

    with pytest.raises(StateError):
        limiter.load_state_dict({**worn().state_dict(), **damage})
    assert limiter.state_dict() == fresh


@pytest.mark.parametrize("name", ["skip", "intervene", "nudge"])
def test_a_state_that_lacks_a_budget_is_refused(name: str) -> None:
    state = worn().state_dict()
    budgets = {other: ticks for other, ticks in state["budgets"].items() if other != name}

    with pytest.raises(StateError):
        Limiter(LIMITS).load_state_dict({**state, "budgets": budgets})
