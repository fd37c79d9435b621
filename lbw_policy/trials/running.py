"""Runs a test: its series drive a `Session` tick by tick, as the guard would."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from lbw_policy.machine import RiskValues, Session, Turn
from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.trials.judging import Verdict, judge
from lbw_policy.trials.series import samples
from lbw_policy.trials.trace import Moment, Trace

Given = Mapping[str, list[float | None]]
"""What each series says at every tick, by its title: `loss`, `divergence`, `divergence.alarm`."""


@frozen
class Outcome:
    """A test, the run it made, and one verdict an expectation."""

    trial: t.Trial
    trace: Trace
    verdicts: tuple[Verdict, ...]

    @property
    def passed(self) -> bool:
        """Whether every expectation came true."""
        return all(verdict.passed for verdict in self.verdicts)


def run_trial(policy: p.Policy, trial: t.Trial) -> Outcome:
    """Run one test of a policy and judge its expectations; the same test gives the same outcome."""
    trace = trace_of(policy, trial)
    return Outcome(trial, trace, tuple(judge(one, trace) for one in trial.expectations))


def trace_of(policy: p.Policy, trial: t.Trial) -> Trace:
    """Return the run that a test's series make under a policy; a `halt` ends it."""
    session = Session(policy)
    given = {series.title: samples(series, trial.ticks) for series in trial.given}
    moments: list[Moment] = []
    for tick in range(trial.ticks):
        moments.append(step(session, given, tick))
        if any(grant.request.action == "halt" for grant in moments[-1].grants):
            return Trace(tuple(moments), halted=True)
    return Trace(tuple(moments))


def step(session: Session, given: Given, tick: int) -> Moment:
    """Take a session through one tick of what a test gives, and return what came of it."""
    values, risks = readings(session.policy, given, tick), assessments(session.policy, given, tick)
    session.begin(values)
    norm, largest = (_norm(session.policy, given, tick, source) for source in ("grad_norm", "grad_norm_max"))
    turn = session.decide(risks, norm, layer_norm=largest)
    scale = session.limiter.scale
    session.finish(applied=turn.updates)
    return _moment(turn, values, risks, (scale, session.progress))


def _moment(
    turn: Turn, values: Mapping[str, float | None], risks: Mapping[str, RiskValues], after: tuple[float, int]
) -> Moment:
    return Moment(turn.decision.tick, values, risks, turn.decision, turn.grants, *after)


def readings(policy: p.Policy, given: Given, tick: int) -> dict[str, float | None]:
    """Return the signals due at this tick that the test gives; a signal without a series has no reading."""
    due = [signal.name for signal in policy.signals if signal.name in given and tick % signal.every == 0]
    return {name: given[name][tick] for name in due}


def _norm(policy: p.Policy, given: Given, tick: int, source: str) -> float | None:
    """Return a norm that `clip` works on: what the first signal that reads it is given."""
    names = (one.name for one in policy.signals if one.key == source and not one.observed)
    series = next((given[name] for name in names if name in given), None)
    return series[tick] if series else None


def assessments(policy: p.Policy, given: Given, tick: int) -> dict[str, RiskValues]:
    """Return what each risk says: what it is given while it is trusted, else its fallback and no alarm.

    A risk with a series is trusted unless `RISK.trusted` says otherwise; one without any is not.
    """
    return {risk.name: _assessment(risk, given, tick) for risk in policy.risks}


def _assessment(risk: p.Risk, given: Given, tick: int) -> RiskValues:
    titles = (risk.name, f"{risk.name}.{t.ALARM}", f"{risk.name}.{t.TRUSTED}")
    probability, alarm, trusted = (given.get(title) for title in titles)
    told = trusted[tick] == 1.0 if trusted else bool(probability or alarm)
    if not told:
        return RiskValues(risk.fallback, alarm=False)
    stands = alarm[tick] if alarm else 0.0
    return RiskValues(
        probability[tick] if probability else risk.fallback,
        alarm=None if stands is None else stands == 1.0,
        trusted=True,
    )
