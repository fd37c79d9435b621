"""The session decides as the reference does: any policy, any telemetry, any risk, resumed anywhere."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbw_policy.limits import Grant, Request
from lbw_policy.machine import Session, Turn
from lbw_policy.semantics.policy import Policy
from tests.machine import busy
from tests.machine.reference_limiter import Answer, Ask
from tests.machine.reference_session import Heard, ReferenceSession, Was
from tests.strategies import anything, risk_values, streams, unchecked_policies
from tests.texts import policies


@st.composite
def text_runs(draw: st.DrawFn) -> tuple[Policy, list[Heard]]:
    """Draw a policy over the whole language, and a run of few different values, so that conditions come and go."""
    drawn = draw(policies())
    values = st.sampled_from([*draw(st.lists(anything, min_size=1, max_size=4)), None, 1.0, 9.0])
    heard = st.builds(
        Heard,
        values=st.fixed_dictionaries(dict.fromkeys([signal.name for signal in drawn.signals], values)),
        risks=st.fixed_dictionaries({}, optional={risk.name: risk_values() for risk in drawn.risks}),
        norm=st.none() | values,
    )
    told = draw(st.lists(st.tuples(heard, st.integers(1, 20)), min_size=2, max_size=6))
    return drawn, [one for one, ticks in told for _ in range(ticks)][:60]


_SPENDING = ("skip", "rollback", "freeze", "clip", "scale_lr", "reset_moments", "boost")
REACHED = {
    *(f"{action} granted" for action in (*_SPENDING, "halt", "checkpoint")),
    *(f"{action} refused" for action in _SPENDING),
    *(f"{action} refused else" for action in ("skip", "rollback", "freeze", "clip", "boost")),
    *(f"{action} reduced" for action in ("scale_lr", "freeze", "rollback", "nudge")),
    *("rose", "fell", "unlimited refused"),
}
"""What the drawn runs must bring about, lest two sessions agree on nothing."""


def hear(session: Session, heard: Heard) -> Turn:
    """Let the real session decide on what the reference hears."""

    def impossible(request: Request) -> str | None:
        return "it cannot be done now" if request.action in heard.impossible else None

    session.begin(heard.values)
    return session.decide(heard.risks, heard.norm, impossible, heard.layer_norm)


def as_ask(request: Request) -> Ask:
    return Ask(request.action, request.rule, request.amount, request.by, request.group, request.layers)


def as_answer(grant: Grant) -> Answer:
    request = grant.request
    return Answer(request.action, request.rule, grant.outcome.value, grant.amount, grant.starts, grant.fallback)


def same(one: Any, other: Any) -> bool:  # noqa: ANN401 - asks and answers
    """Tell whether two asks or answers are equal, where NaN equals itself."""
    return repr(one) == repr(other)


def agree(session: Session, turn: Turn, was: Was, reference: ReferenceSession) -> None:
    """Check everything that one tick decided."""
    assert turn.decision.level == session.policy.levels[was.level].name
    assert turn.decision.fired == tuple(reflex.name for reflex in was.fired)
    requests = sorted((as_ask(one) for one in turn.decision.requests), key=lambda one: one.action)
    assert same(requests, sorted(was.requests, key=lambda one: one.action))
    assert same([as_answer(grant) for grant in turn.grants], list(was.answers))
    assert all(grant.reason for grant in turn.grants if grant.outcome.value == "refused")
    assert turn.decision.quarantined == was.quarantined
    assert tuple(message.alert for message in turn.decision.messages) == was.messages
    factors = [reference.factor(index) for index in range(len(session.policy.levels))]
    assert same(list(session.machine.configuration.factors), factors)


def differ(policy: Policy, run: list[Heard], cut: int, failing: int, *, lagged: bool = False) -> Counter[str]:
    """Drive both side by side, and return what was answered.

    The session is saved and resumed after `cut` ticks; every `failing`-th update fails by itself.
    """
    session, reference = Session(policy, lagged=lagged), ReferenceSession(policy, lagged=lagged)
    seen = Counter[str]()
    for count, heard in enumerate(run):
        if count == cut:
            state = json.loads(json.dumps(session.state_dict()))
            session = Session(policy, lagged=lagged)
            session.load_state_dict(state)
        captured = session.progress + 1 if lagged and session.due else None
        turn, was = hear(session, heard), reference.tick(heard)
        agree(session, turn, was, reference)
        applied = turn.updates and bool(count % failing)
        session.finish(applied=applied, captured=captured if applied else None)
        reference.finish(applied=applied)
        assert (session.progress, session.limiter.high_water) == reference.limiting.progress()
        seen.update(f"{one.action} {one.outcome}{' else' if one.fallback else ''}" for one in was.answers)
        seen.update(["rose"] * was.rose + ["fell"] * (was.moved and not was.rose))
    return seen


RELAXED = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def test_the_session_agrees_with_the_reference_under_policies_that_act() -> None:
    seen = Counter[str]()

    @settings(RELAXED, max_examples=300)
    @given(
        policy=busy.policies(),
        run=busy.runs(),
        cut=st.integers(0, 60),
        failing=st.sampled_from((5, 10**9)),
        lagged=st.booleans(),
    )
    def check(policy: Policy, run: list[Heard], cut: int, failing: int, lagged: bool) -> None:
        seen.update(differ(policy, run, cut, failing, lagged=lagged))

    check()
    assert len(REACHED - set(seen)) <= 4, REACHED - set(seen)


@settings(RELAXED, max_examples=30)
@given(run=text_runs(), cut=st.integers(0, 40))
def test_the_session_agrees_with_the_reference_under_checked_texts(run: tuple[Policy, list[Heard]], cut: int) -> None:
    differ(*run, cut, 10**9)


@settings(RELAXED, max_examples=40)
@given(policy=unchecked_policies(), told=streams(), cut=st.integers(0, 40))
def test_the_session_agrees_with_the_reference_on_hostile_telemetry(
    policy: Policy, told: list[tuple[int, dict[str, float | None]]], cut: int
) -> None:
    differ(policy, [Heard(values) for _, values in told], cut, 10**9)
