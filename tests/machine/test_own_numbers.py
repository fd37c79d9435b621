"""What the guard provides about itself, its events and the lr factor it granted, is known a tick later by name."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbw_policy.machine import Session, Turn
from lbw_policy.runtime.replaying import Binding
from lbw_policy.semantics import Policy, load
from lbw_policy.semantics.signals import OWN
from tests.machine import busy
from tests.machine.reference_session import Heard
from tests.machine.test_reference_session import hear

HEAD = "lbw 1 policy p { snapshot every 2 steps } signal loss = observed.loss "
LIMITS = """limits {
  scale_lr within [0.25, 1]  skip at most 3 in a row, at most 9 per 100 steps
  rollback at most 8 steps back, at most 3 per 100 steps  intervene at most 2 per 100 steps
}"""


def observed(name: str, source: str) -> Policy:
    return load(f'lbw 1 policy p {{ }} signal {name} = observed.{source} alert high info when {name} > 3 "{{{name}}}"')


@pytest.mark.parametrize("source", OWN)
@pytest.mark.parametrize("name", ["mine", "the same"])
def test_an_observed_number_is_not_taken_for_the_guards_own(name: str, source: str) -> None:
    name = source if name == "the same" else name
    session = Session(observed(name, source))
    session.begin({name: 5.0})

    assert [message.text for message in session.decide({}).decision.messages] == ["5"]


@pytest.mark.parametrize("source", OWN)
def test_a_replay_reads_an_observed_number_of_that_name_from_its_column(source: str) -> None:
    assert Binding.of(observed("mine", source), ["tick", source]).signals == {"mine": source}


def factors(rules: str, losses: list[float], *, decided: frozenset[int] = frozenset(range(99))) -> list[float]:
    """Return what `lr_factor` reads at each tick; at ticks that are not `decided` the guard fails before it decides."""
    policy = load(HEAD + rules + LIMITS)
    session, found = Session(policy), []
    for tick, loss in enumerate(losses):
        session.begin({"loss": loss})
        updates = session.decide({}).updates if tick in decided else True
        value = session.machine.evaluator.reading("lr_factor")
        assert value is not None
        found.append(value)
        session.finish(applied=updates)
    return found


SLOW = "reflex slow { when loss > 1 and lr_factor > 0 do scale_lr by 1 / loss } "


def test_it_is_one_before_the_first_tick_and_after_each_tick_that_lowered_nothing() -> None:
    assert factors(SLOW, [2, 0, 0, 2, 0]) == [1, 0.5, 1, 1, 0.5]


def test_it_is_what_was_granted_not_what_was_asked_for() -> None:
    """The first is reduced to the limit; the third, once interventions are spent, refused."""
    assert factors(SLOW, [100, 1, 2, 1, 2, 1]) == [1, 0.25, 1, 0.5, 1, 1]


def test_a_refusal_to_lower_it_further_keeps_what_is_held() -> None:
    assert factors(SLOW, [2, 3, 4, 2, 0]) == [1, 0.5, 1 / 3, 1 / 3, 0.5]


@pytest.mark.parametrize("ending", ["skip", "rollback at most 8 steps"])
def test_it_is_what_was_granted_in_a_tick_whose_update_was_left_out_too(ending: str) -> None:
    rules = f"{SLOW} reflex bad {{ when loss > 3 do {ending} }} "
    assert factors(rules, [0, 0, 0, 0, 0, 4, 0]) == [1, 1, 1, 1, 1, 1, 0.25]


def test_it_is_one_after_a_tick_that_halted() -> None:
    """A tick that halts grants nothing else."""
    assert factors(SLOW + "reflex end { when loss > 3 do halt } ", [2, 4, 0]) == [1, 0.5, 1]


def test_it_is_one_after_a_tick_that_the_guard_failed_to_decide() -> None:
    """Its update was not guarded, so nothing lowered it."""
    assert factors(SLOW, [2, 2, 0], decided=frozenset((0, 2))) == [1, 0.5, 1]


def granted(turn: Turn) -> float:
    found = [grant.amount for grant in turn.granted if grant.request.action == "scale_lr"]
    return 1.0 if not found or found[0] is None else found[0]


def test_at_any_tick_it_is_what_was_granted_a_tick_before_and_within_the_limit() -> None:
    seen = Counter[bool]()

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(policy=busy.policies(), run=busy.runs(), lagged=st.booleans())
    def check(policy: Policy, run: list[Heard], lagged: bool) -> None:
        session, expected, limit = Session(policy, lagged=lagged), 1.0, policy.limits.scale_lr
        for heard in run:
            turn = hear(session, heard)
            assert session.machine.evaluator.reading("lr_factor") == expected
            assert expected == 1.0 or (limit is not None and limit.low <= expected <= 1.0)
            session.finish(applied=turn.updates)
            expected = granted(turn)
            seen[expected < 1.0] += 1

    check()
    assert seen[True] > 5
