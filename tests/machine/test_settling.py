"""`settles after N steps`: after N ticks a level is a new normal. Baselines learn in it, snapshots are proved."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.machine import Session
from lbw_policy.semantics import load
from lbw_policy.semantics.expressions import Reading, Statistic

RULES = """lbw 1
policy settled {{ quarantine at most {quarantine} steps  snapshot every 3 steps }}
signal loss = observed.loss
signal odd  = observed.odd
let usual = median(loss, 8 steps)
reflex broken {{ when odd > 5  do skip }}
reflex back   {{ when odd < -5  do rollback at most 12 steps }}
levels normal -> slow -> worse
level slow  {{ enter when loss > 4  leave when loss < 2  do scale_lr by 0.5  {settles} }}
level worse {{ enter when loss > 40  leave when loss < 20  do scale_lr by 0.5 }}
alert shown info when usual > 0 "{{usual}}"
limits {{
  scale_lr within [0.1, 1]  skip at most 3 in a row, at most 20 per 100 steps
  rollback at most 12 steps back, at most 9 per 100 steps  intervene at most 50 per 100 steps
}}
"""
PROOF = 3
"""Calm ticks until a snapshot of these policies is healthy: a quarter of the limit of `rollback`."""


def session(settles: int | None, quarantine: int = 90, *, lagged: bool = False) -> Session:
    clause = "" if settles is None else f"settles after {settles} steps"
    return Session(load(RULES.format(settles=clause, quarantine=quarantine)), lagged=lagged)


def tick(run: Session, loss: float = 6.0, odd: float = 0.0) -> tuple[bool, bool]:
    """Go through one tick; return whether it was quarantined, and whether a snapshot was taken after it."""
    captured = run.progress + 1 if run.machine.lagged and run.due else None
    run.begin({"loss": loss, "odd": odd})
    turn = run.decide({})
    upkeep = run.finish(applied=turn.updates, captured=captured if turn.updates else None)
    return turn.decision.quarantined, upkeep.take


def kept(run: Session, ticks: int, loss: float = 6.0) -> list[bool]:
    """Return which of some ticks in a row were kept from the baselines."""
    return [tick(run, loss)[0] for _ in range(ticks)]


def usual(run: Session) -> float | None:
    number = Statistic("median", Reading("loss"), 8)
    return run.machine.evaluator.number(run.machine.program.number_index[number])


def healthy(run: Session) -> tuple[int, ...]:
    assert run.schedule is not None
    return run.schedule.healthy()


@pytest.mark.parametrize("settles", [1, 2, 5])
def test_so_many_ticks_of_a_level_are_suspicious_as_it_takes_to_settle(settles: int) -> None:
    run = session(settles)

    assert kept(run, 3, 1.0) == [False] * 3
    assert kept(run, 9) == [True] * settles + [False] * (9 - settles)
    assert run.level == "slow"


def test_without_the_clause_a_level_never_settles() -> None:
    assert kept(session(None), 60) == [True] * 60


@pytest.mark.parametrize("stay", [3, 4])
def test_ticks_are_counted_as_those_of_stay(stay: int) -> None:
    """The level that lasts for as long as it takes to settle has no settled tick, and one a tick longer has one."""
    text = RULES.format(settles=f"settles after 3 steps  stay at most {stay} steps", quarantine=90)
    run = Session(load(text))
    tick(run)
    levels, found = ["slow"], list[bool]()
    while levels[-1] == "slow":
        found += kept(run, 1, 3.0)
        levels.append(run.level)

    assert levels.count("slow") == stay
    # The tick that leads down is calm if the level had settled by then, and the calm level is always.
    assert found == [True] * 2 + [False] * (stay - 2)


def test_a_tick_that_leads_down_is_suspicious_unless_the_level_it_leaves_has_settled() -> None:
    run = session(2)
    for ticks, suspicious in ((1, True), (2, False), (4, False)):
        kept(run, ticks)
        assert tick(run, 1.0)[0] is suspicious
        assert run.level == "normal"


def test_a_tick_that_leads_further_up_is_suspicious() -> None:
    run = session(2)
    assert kept(run, 4) == [True] * 2 + [False] * 2
    assert tick(run, 50.0)[0] is True
    assert run.level == "worse"


def test_a_level_reached_from_above_counts_anew() -> None:
    run = session(3)
    assert kept(run, 5) == [True] * 3 + [False] * 2
    tick(run, 50.0)
    assert tick(run, 3.0)[0] is True
    assert run.level == "slow"
    assert kept(run, 4, 3.0) == [True] * 2 + [False] * 2


def test_a_reflex_makes_a_tick_of_a_settled_level_suspicious() -> None:
    run = session(2)
    kept(run, 4)

    assert tick(run, odd=9.0)[0] is True
    assert tick(run)[0] is False


def test_a_settled_level_ends_the_quarantine_it_began() -> None:
    """What comes later is quarantined for its own time, not for what was left of the level's."""
    run = session(3, quarantine=4)
    assert kept(run, 5) == [True] * 3 + [False] * 2
    run.machine.configuration = run.machine.ladder.start()
    assert kept(run, 3, 50.0) == [True] * 3


@settings(max_examples=40, deadline=None)
@given(settles=st.integers(1, 12), before=st.integers(0, 12), lagged=st.booleans())
def test_inside_a_settled_level_the_baselines_learn_and_a_snapshot_becomes_healthy(
    settles: int, before: int, lagged: bool
) -> None:
    """A level that lasts: its losses become the usual ones, and what was saved in it can be restored."""
    run, plain = session(settles, lagged=lagged), session(None, lagged=lagged)
    for one in (run, plain):
        kept(one, before, 1.0)
        for _ in range(settles + 8 + 2 * PROOF + lagged):
            tick(one)
            assert one.level == "slow" or lagged
    began = before + settles

    assert usual(run) == 6.0
    assert any(progress > began for progress in healthy(run))
    assert usual(plain) in (None, 1.0)
    assert all(progress <= before + lagged for progress in healthy(plain))
    assert tick(run, odd=-9.0) == (True, False)
    assert run.progress > began


def test_a_rollback_in_a_settled_level_gives_up_what_was_not_proved_and_takes_no_snapshot() -> None:
    run = session(1)
    kept(run, 9)
    assert run.schedule is not None
    unproved = [one for one in run.schedule.taken if one.calm < run.schedule.proof]

    assert tick(run, odd=-9.0)[1] is False
    assert run.level == "slow"
    assert unproved
    assert not {one.progress for one in unproved} & {one.progress for one in run.schedule.taken}


def test_what_was_saved_before_a_level_settled_is_lost_unless_it_was_proved() -> None:
    run = session(5)
    kept(run, 2, 1.0)
    assert run.schedule is not None
    assert [one.progress for one in run.schedule.taken] == [1]
    tick(run)
    assert run.schedule.taken == []


@settings(max_examples=20, deadline=None)
@given(settles=st.integers(1, 6), cut=st.integers(0, 12))
def test_a_run_that_is_cut_settles_when_one_that_is_not_does(settles: int, cut: int) -> None:
    straight, broken = session(settles), session(settles)
    for at in range(14):
        if at == cut:
            fresh = session(settles)
            fresh.load_state_dict(json.loads(json.dumps(broken.state_dict())))
            broken = fresh
        assert tick(straight) == tick(broken)
    assert straight.state_dict() == broken.state_dict()
