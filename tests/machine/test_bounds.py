"""No policy, telemetry or risk model gets past the limits: machine and limiter together."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.limits import Grant, Limiter, Outcome, Situation
from lbw_policy.limits.requests import Impossible
from lbw_policy.machine import Decision, RiskValues, StateMachine
from lbw_policy.semantics.policy import Budget, Policy
from tests.limits.test_limiter import events, within
from tests.strategies import anything, risk_readings, streams, unchecked_policies

Tick = tuple[int, dict[str, float | None], Mapping[str, RiskValues], float | None]


class Run:
    """Machine and limiter, driven as the guard drives them, with two snapshots in rotation."""

    def __init__(self, policy: Policy) -> None:
        self.machine = StateMachine(policy)
        self.limiter = Limiter(policy.limits)

    def tick(
        self, tick: int, values: dict[str, float | None], risks: Mapping[str, RiskValues], norm: float | None
    ) -> tuple[Decision, tuple[Grant, ...]]:
        self.machine.begin(tick, values)
        decision = self.machine.decide(risks)
        snapshots = tuple(range(max(0, self.limiter.progress - 8), self.limiter.progress, 4))
        situation = Situation(snapshots, norm, _impossible(tick), self.machine.otherwise)
        grants = self.limiter.rule(tick, decision.requests, situation)
        ending = {g.request.action for g in grants if g.outcome is not Outcome.REFUSED} & {"skip", "rollback", "halt"}
        self.limiter.stepped(applied=not ending)
        return decision, grants


def _impossible(tick: int) -> Impossible:
    """Refuse some actions now and then, as an optimizer would that cannot do them."""
    return lambda request: "not now" if request.action in ("freeze", "skip", "boost") and tick % 3 == 0 else None


@st.composite
def runs(draw: st.DrawFn) -> tuple[Policy, list[Tick]]:
    """A policy, and telemetry of any kind for it."""
    policy, stream = draw(unchecked_policies()), draw(streams())
    risks = draw(st.lists(risk_readings(), min_size=1, max_size=4))
    norm = draw(st.none() | anything)
    return policy, [(tick, values, risks[i % len(risks)], norm) for i, (tick, values) in enumerate(stream)]


@settings(max_examples=150, deadline=None)
@given(runs())
def test_limits_hold_for_any_policy_telemetry_and_risk(case: tuple[Policy, list[Tick]]) -> None:
    policy, ticks = case
    run, found, limits = Run(policy), [], policy.limits
    for tick, values, risks, norm in ticks:
        _, grants = run.tick(tick, values, risks, norm)
        found += [(tick, grant) for grant in grants]
        reach = limits.rollback.distance if limits.rollback else 0

        assert run.limiter.high_water - run.limiter.progress <= reach
        assert run.limiter.in_a_row <= (limits.skip.in_a_row if limits.skip else 0)

    assert within(events(found), limits.intervene)
    if limits.rollback and limits.rollback.spacing:
        assert within(events(found, "rollback"), Budget(1, limits.rollback.spacing))
    for action, limit in (("skip", limits.skip), ("rollback", limits.rollback)):
        assert within(events(found, action), limit.budget if limit else None)
        assert limit or not events(found, action)
    for _, grant in found:
        assert grant.outcome is Outcome.REFUSED or _bounded(policy, grant)


def _bounded(policy: Policy, grant: Grant) -> bool:
    limits, amount = policy.limits, grant.amount
    match grant.request.action:
        case "scale_lr":
            return limits.scale_lr is not None and limits.scale_lr.low <= (amount or 0) <= limits.scale_lr.high
        case "freeze":
            return limits.freeze is not None and 0 < (amount or 0) <= limits.freeze.share
        case "clip":
            return (limits.clip or limits.intervene) is not None and 0 <= (amount or 0) <= 1
        case _:
            return True


@settings(max_examples=60, deadline=None)
@given(runs())
def test_the_same_telemetry_gives_the_same_decisions(case: tuple[Policy, list[Tick]]) -> None:
    policy, ticks = case
    one, other = Run(policy), Run(policy)

    assert repr([one.tick(*t) for t in ticks]) == repr([other.tick(*t) for t in ticks])


@settings(max_examples=60, deadline=None)
@given(runs(), st.integers(0, 60))
def test_a_resumed_machine_decides_as_if_it_had_never_stopped(case: tuple[Policy, list[Tick]], cut: int) -> None:
    policy, ticks = case
    whole, first, second = Run(policy), Run(policy), Run(policy)
    expected = [whole.tick(*t) for t in ticks]
    before = [first.tick(*t) for t in ticks[:cut]]
    second.machine.load_state_dict(json.loads(json.dumps(first.machine.state_dict())))
    second.limiter.load_state_dict(json.loads(json.dumps(first.limiter.state_dict())))

    assert repr(before + [second.tick(*t) for t in ticks[cut:]]) == repr(expected)


@settings(max_examples=60, deadline=None)
@given(runs())
def test_quarantine_is_bounded(case: tuple[Policy, list[Tick]]) -> None:
    policy, ticks = case
    run, in_a_row = Run(policy), 0
    for tick in ticks:
        decision, _ = run.tick(*tick)
        in_a_row = in_a_row + 1 if decision.quarantined else 0

        assert in_a_row <= policy.quarantine
