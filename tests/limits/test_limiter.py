"""Whatever is asked for, what is granted stays inside the limits; checked against whole histories."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

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
from tests.strategies import anything, limit_sets

ASKABLE = ("halt", "rollback", "skip", "freeze", "clip", "scale_lr", "boost", "nudge", "unlimited")
LIMITS = Limits(
    scale_lr=ScaleLimit(0.1, 1.0),
    skip=SkipLimit(2, Budget(3, 10)),
    clip=Budget(5, 10),
    rollback=RollbackLimit(20, Budget(2, 50)),
    freeze=FreezeLimit(0.25, 4),
    intervene=Budget(20, 20),
)


@st.composite
def ticks(draw: st.DrawFn) -> tuple[list[Request], Situation]:
    """One tick of arbitrary requests in an arbitrary situation."""
    actions = draw(st.sets(st.sampled_from(ASKABLE)))
    requests = [Request(action, "rule", draw(st.none() | anything)) for action in sorted(actions)]
    snapshots = draw(st.lists(st.integers(0, 60), max_size=2))
    return requests, Situation(tuple(snapshots), draw(st.none() | anything))


def drive(limiter: Limiter, history: list[tuple[list[Request], Situation]]) -> list[tuple[int, Grant]]:
    """Run a history as the guard would, and return every grant with its tick."""
    found = []
    for tick, (requests, situation) in enumerate(history, start=limiter.last_tick + 1):
        grants = limiter.rule(tick, requests, situation)
        found += [(tick, grant) for grant in grants]
        limiter.stepped(applied=not _ends(grants))
    return found


def _ends(grants: tuple[Grant, ...]) -> bool:
    return any(g.request.action in ("skip", "rollback", "halt") and g.outcome is not Outcome.REFUSED for g in grants)


def events(found: list[tuple[int, Grant]], action: str | None = None) -> list[int]:
    """Return the ticks at which interventions of a kind began, or of any: a halt and a checkpoint are none."""
    wanted = (lambda name: name == action) if action else (lambda name: name not in ("halt", "checkpoint"))
    return [
        tick
        for tick, grant in found
        if grant.outcome is not Outcome.REFUSED and grant.starts and wanted(grant.request.action)
    ]


def within(events: list[int], budget: Budget | None) -> bool:
    """Tell, by counting every window, whether a budget was kept."""
    if budget is None:
        return True
    return all(sum(start <= e < start + budget.window for e in events) <= budget.count for start in events)


def _custom(limits: Limits, name: str) -> CustomLimit | None:
    return next((limit for limit in limits.custom if limit.name == name), None)


@settings(max_examples=200, deadline=None)
@given(limits=limit_sets(), history=st.lists(ticks(), max_size=60))
def test_every_budget_holds_in_every_window(limits: Limits, history: list[tuple[list[Request], Situation]]) -> None:
    found = drive(Limiter(limits), history)

    assert within(events(found), limits.intervene)
    assert within(events(found, "clip"), limits.clip)
    for name in ("boost", "nudge", "unlimited"):
        custom = _custom(limits, name)
        assert within(events(found, name), custom.budget if custom else Budget(0, 1))
    assert within(events(found, "skip"), limits.skip.budget if limits.skip else Budget(0, 1))
    assert within(events(found, "rollback"), limits.rollback.budget if limits.rollback else Budget(0, 1))


@settings(max_examples=200, deadline=None)
@given(limits=limit_sets(), history=st.lists(ticks(), max_size=60))
def test_every_amount_stays_in_its_bounds(limits: Limits, history: list[tuple[list[Request], Situation]]) -> None:
    for _, grant in drive(Limiter(limits), history):
        if grant.outcome is Outcome.REFUSED:
            assert grant.reason
            continue
        match grant.request.action:
            case "scale_lr":
                assert limits.scale_lr is not None
                assert limits.scale_lr.low <= (grant.amount or 0) <= limits.scale_lr.high
            case "clip":
                assert 0.0 <= (grant.amount or 0.0) <= 1.0
            case "freeze":
                assert limits.freeze is not None
                assert 0.0 < (grant.amount or 0) <= limits.freeze.share
            case "boost" | "nudge" as name:
                limit = _custom(limits, name)
                assert limit is not None
                if limit.low is not None and limit.high is not None:
                    assert grant.amount is not None
                    assert limit.low <= grant.amount <= limit.high
                else:
                    assert grant.amount is None


@settings(max_examples=200, deadline=None)
@given(limits=limit_sets(), history=st.lists(ticks(), max_size=60))
def test_no_chain_of_rollbacks_goes_below_the_high_water_mark_by_more_than_the_limit(
    limits: Limits, history: list[tuple[list[Request], Situation]]
) -> None:
    limiter = Limiter(limits)
    highest = 0
    for tick, (requests, situation) in enumerate(history):
        grants = limiter.rule(tick, requests, situation)
        limiter.stepped(applied=not _ends(grants))
        highest = max(highest, limiter.progress)

        assert limiter.high_water == highest
        assert highest - limiter.progress <= (limits.rollback.distance if limits.rollback else 0)


@settings(max_examples=200, deadline=None)
@given(limits=limit_sets(), history=st.lists(ticks(), max_size=60))
def test_skips_in_a_row_and_frozen_stretches_are_bounded(
    limits: Limits, history: list[tuple[list[Request], Situation]]
) -> None:
    limiter, run, frozen = Limiter(limits), 0, 0
    for tick, (requests, situation) in enumerate(history):
        grants = {
            g.request.action: g for g in limiter.rule(tick, requests, situation) if g.outcome is not Outcome.REFUSED
        }
        run = run + 1 if "skip" in grants else (run if {"rollback", "halt"} & set(grants) else 0)
        frozen = frozen + 1 if "freeze" in grants else 0
        limiter.stepped(applied=not {"skip", "rollback", "halt"} & set(grants))

        assert run <= (limits.skip.in_a_row if limits.skip else 0)
        assert frozen <= (limits.freeze.duration if limits.freeze else 0)


@settings(max_examples=100, deadline=None)
@given(limits=limit_sets(), history=st.lists(ticks(), max_size=40), cut=st.integers(0, 40))
def test_a_resumed_limiter_answers_as_if_it_had_never_stopped(
    limits: Limits, history: list[tuple[list[Request], Situation]], cut: int
) -> None:
    whole, first, second = Limiter(limits), Limiter(limits), Limiter(limits)
    expected = drive(whole, history)

    before = drive(first, history[:cut])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))

    assert repr(before + drive(second, history[cut:])) == repr(expected)  # NaN differs from itself


@given(history=st.lists(ticks(), max_size=20))
def test_without_limits_nothing_but_halt_is_granted(history: list[tuple[list[Request], Situation]]) -> None:
    found = drive(Limiter(Limits()), history)

    assert {g.request.action for _, g in found if g.outcome is not Outcome.REFUSED} <= {"halt"}


def test_a_factor_that_is_not_a_number_gives_the_careful_end() -> None:
    (grant,) = Limiter(LIMITS).rule(0, [Request("scale_lr", "r", math.nan)], Situation())

    assert (grant.amount, grant.outcome) == (0.1, Outcome.REDUCED)


@pytest.mark.parametrize(
    ("asked", "granted"), [(math.nan, -2.0), (None, -2.0), (math.inf, 3.0), (-9.0, -2.0), (1.0, 1.0)]
)
def test_a_plugins_amount_is_clamped_and_the_lower_end_is_the_careful_one(asked: float | None, granted: float) -> None:
    limiter = Limiter(Limits(custom=(CustomLimit("boost", -2.0, 3.0, Budget(1, 10)),), intervene=Budget(5, 10)))
    (grant,) = limiter.rule(0, [Request("boost", "r", asked)], Situation())
    (spent,) = limiter.rule(1, [Request("boost", "r", asked)], Situation())

    assert (grant.amount, grant.outcome) == (granted, Outcome.GRANTED if asked == granted else Outcome.REDUCED)
    assert spent.outcome is Outcome.REFUSED


def test_a_plugin_without_a_limit_is_refused_with_the_reason() -> None:
    (grant,) = Limiter(LIMITS).rule(0, [Request("boost", "r", 1.0)], Situation())

    assert (grant.outcome, grant.reason) == (Outcome.REFUSED, "the policy has no limit for it")


def test_an_action_of_a_plugin_costs_one_intervention() -> None:
    limiter = Limiter(Limits(custom=(CustomLimit("boost", None, None, Budget(9, 10)),), intervene=Budget(2, 10)))
    outcomes = [limiter.rule(tick, [Request("boost", "r")], Situation())[0].outcome for tick in range(3)]

    assert outcomes == [Outcome.GRANTED, Outcome.GRANTED, Outcome.REFUSED]


def test_a_limit_under_the_name_of_a_built_in_changes_nothing() -> None:
    limits = Limits(custom=(CustomLimit("skip", None, None, Budget(9, 10)),))
    (grant,) = Limiter(limits).rule(0, [Request("skip", "r")], Situation())

    assert grant.outcome is Outcome.REFUSED


def test_a_held_factor_costs_one_intervention_only() -> None:
    limiter = Limiter(LIMITS)
    grants = [limiter.rule(tick, [Request("scale_lr", "r", 0.5)], Situation())[0] for tick in range(30)]

    assert [grant.starts for grant in grants].count(True) == 1
    assert {grant.amount for grant in grants} == {0.5}


def test_when_interventions_are_spent_a_factor_is_held_and_not_lowered() -> None:
    limiter = Limiter(evolve(LIMITS, intervene=Budget(1, 100)))
    limiter.rule(0, [Request("scale_lr", "r", 0.5)], Situation())
    (grant,) = limiter.rule(1, [Request("scale_lr", "r", 0.2)], Situation())

    assert (grant.amount, grant.outcome, grant.starts) == (0.5, Outcome.REDUCED, False)


def test_a_clip_within_the_norm_is_free_and_a_clip_of_a_broken_norm_is_refused() -> None:
    limiter = Limiter(LIMITS)
    (free,) = limiter.rule(0, [Request("clip", "r", 5.0)], Situation(grad_norm=3.0))
    (broken,) = limiter.rule(1, [Request("clip", "r", 5.0)], Situation(grad_norm=math.inf))
    (real,) = limiter.rule(2, [Request("clip", "r", 5.0)], Situation(grad_norm=10.0))

    assert (free.amount, free.starts) == (1.0, False)
    assert broken.outcome is Outcome.REFUSED
    assert real.amount == 0.5


def test_a_rollback_takes_the_newest_snapshot_within_reach() -> None:
    limiter = Limiter(LIMITS)
    limiter.progress = limiter.high_water = 30
    request = [Request("rollback", "r", 15.0)]
    (grant,) = limiter.rule(0, request, Situation(snapshots=(5, 18, 25, 31)))
    (refused,) = limiter.rule(1, request, Situation(snapshots=(14,)))

    assert grant.amount == 25
    assert limiter.progress == 25
    assert "no healthy snapshot within 15 steps of step 30" in refused.reason


def test_a_tick_that_halts_grants_a_checkpoint_and_nothing_else() -> None:
    limiter = Limiter(evolve(LIMITS, checkpoint=Budget(1, 10), reset_moments=Budget(1, 10)))
    limiter.progress = limiter.high_water = 30
    asked = [Request(action, "r", 20.0) for action in (*ASKABLE, "checkpoint", "reset_moments")]
    grants = limiter.rule(0, asked, Situation(snapshots=(25,), grad_norm=99.0))

    assert [grant.request.action for grant in grants] == ["halt", "checkpoint"]
    assert limiter.progress == 30


def test_a_tick_cannot_be_answered_twice() -> None:
    limiter = Limiter(LIMITS)
    limiter.rule(3, [], Situation())

    with pytest.raises(ValueError, match="expected a tick after 3, found 3"):
        limiter.rule(3, [], Situation())


@pytest.mark.parametrize(
    "damage",
    [
        {"progress": -1},
        {"progress": 5},
        {"scale": math.nan},
        {"scale": 2.0},
        {"budgets": {}},
        {"budgets": None},
        {"in_a_row": "2"},
        {"last_tick": 1.5},
        {"extra": 1},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(damage: dict[str, Any]) -> None:
    limiter = Limiter(LIMITS)
    before = limiter.state_dict()

    with pytest.raises(StateError):
        limiter.load_state_dict({**before, **damage})
    assert limiter.state_dict() == before


@pytest.mark.parametrize("ticks_saved", [[5, 3], [1, 2, 3, 4], [-1], ["1"], "123"])
def test_a_damaged_budget_is_refused(ticks_saved: object) -> None:
    limiter = Limiter(LIMITS)
    state = limiter.state_dict()

    with pytest.raises(StateError):
        limiter.load_state_dict({**state, "budgets": {**state["budgets"], "skip": ticks_saved}})
