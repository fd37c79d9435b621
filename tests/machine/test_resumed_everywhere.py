"""A session that is saved and resumed before every tick decides as one that is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from lbw_policy.limits import Limiter, Request
from lbw_policy.machine import Session, Turn
from lbw_policy.machine.session import Upkeep
from lbw_policy.semantics.policy import Policy
from tests.machine import flickers
from tests.machine.reference_session import Heard


def through(session: Session, heard: Heard, *, fails: bool) -> tuple[Turn, Upkeep]:
    def impossible(request: Request) -> str | None:
        return "it cannot be done now" if request.action in heard.impossible else None

    session.begin(heard.values)
    turn = session.decide(heard.risks, heard.norm, impossible, heard.layer_norm)
    return turn, session.finish(applied=turn.updates and not fails)


def resumed(session: Session) -> Session:
    fresh = Session(session.policy)
    fresh.load_state_dict(json.loads(json.dumps(session.state_dict())))
    return fresh


def compare(policy: Policy, run: list[Heard]) -> None:
    straight, broken = Session(policy), Session(policy)
    for count, heard in enumerate(run):
        broken = resumed(broken)
        fails = count % 11 == 10
        # By `repr`, in which NaN equals itself.
        assert repr(through(straight, heard, fails=fails)) == repr(through(broken, heard, fails=fails)), count
        assert (straight.level, straight.progress) == (broken.level, broken.progress)
    assert repr(straight.state_dict()) == repr(broken.state_dict())


GENERATED = settings(
    max_examples=80, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(policy=flickers.policies(), run=flickers.runs())
def test_where_a_run_is_cut_changes_nothing(policy: Policy, run: list[Heard]) -> None:
    compare(policy, run)


def _no_events(session: Session) -> None:
    session._events = dict.fromkeys(session._events, 0)


def _no_rest(session: Session) -> None:
    session.limiter.rest_until = 0


def _no_row(session: Session) -> None:
    session.limiter.in_a_row = 0


def _no_budgets(session: Session) -> None:
    session.limiter._budgets = Limiter(session.policy.limits)._budgets


@pytest.mark.parametrize("forget", [_no_events, _no_rest, _no_row, _no_budgets])
def test_it_is_noticed_where_a_resumed_run_forgets(forget, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    load = Session.load_state_dict

    def forgetful(session: Session, state: dict[str, object]) -> None:
        load(session, state)
        forget(session)

    monkeypatch.setattr(Session, "load_state_dict", forgetful)
    check = seed(1)(GENERATED(given(policy=flickers.policies(), run=flickers.runs())(compare)))
    with pytest.raises(AssertionError):
        check()
