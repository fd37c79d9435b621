"""Whatever is asked for in place of what was refused, the limits hold; and rollbacks keep their distance in time."""

from __future__ import annotations

import json
import math
from collections.abc import Collection

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.errors import StateError
from lbw_policy.limits import Grant, Limiter, Outcome, Request, Situation
from lbw_policy.limits.limiter import ORDER
from lbw_policy.semantics.policy import Budget, CustomLimit, Limits, RollbackLimit
from tests.limits.test_limiter import ASKABLE, LIMITS, events, ticks, within
from tests.strategies import anything, limit_sets

Asked = list[list[Request]]


class Instead:
    """Asks for drawn requests in place of refused ones, sensible or not."""

    def __init__(self, drawn: Asked) -> None:
        self.drawn, self.calls = drawn, 0

    def __call__(self, refused: Request, already: Collection[str]) -> tuple[Request, ...]:
        assert refused.action in already
        self.calls += 1
        return tuple(self.drawn[self.calls % len(self.drawn)]) if self.drawn else ()


requests = st.builds(Request, st.sampled_from((*ASKABLE, "checkpoint")), st.just("instead"), st.none() | anything)


@settings(max_examples=200, deadline=None)
@given(
    limits=limit_sets(),
    history=st.lists(ticks(), max_size=40),
    drawn=st.lists(st.lists(requests, max_size=3), max_size=4),
)
def test_limits_hold_whatever_is_asked_for_instead(
    limits: Limits, history: list[tuple[list[Request], Situation]], drawn: Asked
) -> None:
    limiter, found, instead = Limiter(limits), [], Instead(drawn)
    for tick, (asked, situation) in enumerate(history):
        grants = limiter.rule(tick, asked, evolve(situation, otherwise=instead))
        ending = {"skip", "rollback", "halt"} & {g.request.action for g in grants if g.outcome is not Outcome.REFUSED}
        limiter.stepped(applied=not ending)
        found += [(tick, grant) for grant in grants]

        assert len({grant.request.action for grant in grants}) == len(grants)
        assert limiter.high_water - limiter.progress <= (limits.rollback.distance if limits.rollback else 0)
        assert limiter.in_a_row <= (limits.skip.in_a_row if limits.skip else 0)
        assert limiter.frozen_for <= (limits.freeze.duration if limits.freeze else 0)
    assert within(events([one for one in found if one[1].request.action != "checkpoint"]), limits.intervene)
    _budgets_hold(limits, found)


def _budgets_hold(limits: Limits, found: list[tuple[int, Grant]]) -> None:
    never = Budget(0, 1)
    assert within(events(found, "clip"), limits.clip)
    assert within(events(found, "skip"), limits.skip.budget if limits.skip else never)
    assert within(events(found, "checkpoint"), limits.checkpoint or never)
    assert within(events(found, "rollback"), limits.rollback.budget if limits.rollback else never)
    spacing = limits.rollback.spacing if limits.rollback else 0
    assert within(events(found, "rollback"), Budget(1, spacing) if spacing else None)


def test_plugins_are_answered_between_resets_and_freezes_by_their_names_and_the_lr_factor_is_last() -> None:
    custom = tuple(CustomLimit(name, None, None, Budget(9, 10)) for name in ("zeta", "boost"))
    asked = [Request(action, "r", 0.5) for action in ("scale_lr", "zeta", "clip", "boost", "freeze", "skip")]
    limits = evolve(LIMITS, custom=custom, skip=None)
    grants = Limiter(limits).rule(0, asked, Situation(grad_norm=9.0))

    assert [grant.request.action for grant in grants] == ["skip", "boost", "zeta", "freeze", "clip", "scale_lr"]
    assert ORDER[-3:] == ("freeze", "clip", "scale_lr")


def test_a_fallback_waits_for_its_turn_and_takes_the_place_of_a_waiting_request() -> None:
    def otherwise(refused: Request, _: Collection[str]) -> tuple[Request, ...]:
        return (Request("scale_lr", "both", 0.25),) if refused.action == "rollback" else ()

    asked = [Request("rollback", "one", 5.0), Request("clip", "two", 1.0), Request("scale_lr", "two", 0.5)]
    grants = Limiter(LIMITS).rule(0, asked, Situation(grad_norm=4.0, otherwise=otherwise))

    assert [(g.request.action, g.request.rule, g.amount) for g in grants] == [
        ("rollback", "one", None),
        ("clip", "two", 0.25),
        ("scale_lr", "both", 0.25),
    ]


def test_a_granted_action_is_never_answered_a_second_time() -> None:
    def otherwise(refused: Request, _: Collection[str]) -> tuple[Request, ...]:
        return (Request("skip", "again"), refused)

    limiter = Limiter(LIMITS)
    asked = [Request("skip", "r"), Request("freeze", "r", 0.0)]
    grants = limiter.rule(0, asked, Situation(otherwise=otherwise))

    assert [(g.request.action, g.fallback) for g in grants] == [("skip", ""), ("freeze", "skip, freeze")]
    assert limiter.state_dict()["budgets"]["skip"] == [0]


def test_a_tick_that_halts_as_a_fallback_does_not_count_what_it_dropped_as_done() -> None:
    def otherwise(refused: Request, _: Collection[str]) -> tuple[Request, ...]:
        return (Request("halt", "r"),)

    limiter = Limiter(LIMITS)
    asked = [Request("skip", "r"), Request("freeze", "r", math.nan), Request("scale_lr", "r", 0.5)]
    situation = Situation(impossible=lambda r: "cannot" if r.action == "freeze" else None, otherwise=otherwise)
    grants = limiter.rule(0, asked, situation)

    assert [(g.request.action, g.outcome.value) for g in grants] == [("freeze", "refused"), ("halt", "granted")]
    assert (limiter.in_a_row, limiter.scale, limiter.frozen_for) == (0, 1.0, 0)
    assert limiter.state_dict()["budgets"]["skip"] == [0]


# Spacing

SPACED = Limits(rollback=RollbackLimit(20, Budget(3, 100), spacing=5), intervene=Budget(50, 100))


def roll_back(limiter: Limiter, tick: int) -> Grant:
    """Ask for a rollback in a tick in which a snapshot is at hand."""
    (grant,) = limiter.rule(tick, [Request("rollback", "r", 20.0)], Situation(snapshots=(0,)))
    return grant


def test_rollbacks_keep_their_distance_to_the_tick() -> None:
    limiter = Limiter(SPACED)
    outcomes = {tick: roll_back(limiter, tick) for tick in range(11)}

    assert [tick for tick, grant in outcomes.items() if grant.outcome is Outcome.GRANTED] == [0, 5, 10]
    assert outcomes[4].reason == "the last rollback is less than 5 steps ago"
    assert [outcomes[tick].left for tick in (0, 5, 10)] == [2, 1, 0]


def test_a_rollback_that_is_refused_for_another_reason_does_not_begin_the_distance_anew() -> None:
    limiter = Limiter(evolve(SPACED, rollback=RollbackLimit(20, Budget(1, 6), spacing=5)))
    granted = [tick for tick in range(13) if roll_back(limiter, tick).outcome is Outcome.GRANTED]

    assert granted == [0, 6, 12]


def test_a_resumed_limiter_remembers_the_last_rollback() -> None:
    limiter, resumed = Limiter(SPACED), Limiter(SPACED)
    roll_back(limiter, 3)
    resumed.load_state_dict(json.loads(json.dumps(limiter.state_dict())))

    assert roll_back(resumed, 7).outcome is Outcome.REFUSED
    assert roll_back(resumed, 8).outcome is Outcome.GRANTED


def test_a_state_without_the_last_rollback_is_refused() -> None:
    with pytest.raises(StateError):
        Limiter(SPACED).load_state_dict(
            Limiter(evolve(SPACED, rollback=RollbackLimit(20, Budget(3, 100)))).state_dict()
        )
