"""What a policy's tests made it do, and what they never did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from lbw_policy.limits import Outcome
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.walk import actions_of, chain, first_actions
from lbw_policy.trials.trace import Moment, Trace

_LIMITS = ("scale_lr", "skip", "clip", "rollback", "freeze", "reset_moments", "checkpoint", "intervene")

_FREE = ("halt", "checkpoint")
"""What changes nothing in the run, and so takes nothing from the budget of all interventions."""


@frozen
class Coverage:
    """What can be exercised in a policy, and what of it was: `reflex spike fires`, `limit skip refuses`, ..."""

    everything: tuple[str, ...]
    exercised: frozenset[str]

    @property
    def never(self) -> tuple[str, ...]:
        """What no test made happen, in the order of the policy."""
        return tuple(one for one in self.everything if one not in self.exercised)

    @property
    def percent(self) -> float:
        """The share exercised, in percent; 100 where there is nothing to exercise."""
        done = len(self.everything) - len(self.never)
        return 100.0 * done / len(self.everything) if self.everything else 100.0


def covered(policy: p.Policy, traces: Iterable[Trace]) -> Coverage:
    """Return what runs exercised: reflexes fired, levels entered and left, alerts, limits that held back, fallbacks."""
    everything = tuple(_everything(policy))
    seen = {one for trace in traces for one in _exercised(policy, trace)}
    return Coverage(everything, frozenset(seen) & frozenset(everything))


def _everything(policy: p.Policy) -> Iterator[str]:
    yield from (f"reflex {reflex.name} fires" for reflex in policy.reflexes)
    for level in policy.levels[1:]:
        yield f"level {level.name} is entered"
        if level.leave or level.stay:
            yield f"level {level.name} is left"
    yield from (f"alert {alert.name} speaks" for alert in policy.alerts)
    asked = {p.name_of(action) for action in actions_of(policy)} | {"intervene"}
    named = [
        *(name for name in _LIMITS if getattr(policy.limits, name)),
        *(limit.name for limit in policy.limits.custom),
    ]
    # A limit that no rule of this policy needs is there for its children: no test can reach it.
    yield from (_holds_back(name) for name in named if name in asked)
    for rule in _acting(policy):
        done = [one for action in first_actions(rule) for one in chain(action) if one is not action]
        yield from (_falls_back(rule, name) for name in dict.fromkeys(p.name_of(one) for one in done))


def _acting(policy: p.Policy) -> tuple[p.Reflex | p.Level, ...]:
    return *policy.reflexes, *policy.levels


def _falls_back(rule: p.Reflex | p.Level, action: str) -> str:
    kind = "reflex" if isinstance(rule, p.Reflex) else "level"
    return f"{kind} {rule.name} falls back to {action}"


def _holds_back(limit: str) -> str:
    return f"limit {limit} holds back"


def _exercised(policy: p.Policy, trace: Trace) -> Iterator[str]:
    begun: list[int] = []
    levels = {level.name: rung for rung, level in enumerate(policy.levels)}
    rules = {rule.rule: rule for rule in _acting(policy)}
    for moment in trace.moments:
        yield from _rules(moment, levels)
        for grant in moment.grants:
            counts = grant.request.action not in _FREE
            for name in grant.fallback.split(", ") if grant.fallback else ():
                yield _falls_back(rules[grant.request.rule], name)
            if grant.outcome is not Outcome.GRANTED:
                yield _holds_back(grant.request.action)
                if counts and grant.left == 0 and _spent(policy.limits.intervene, moment.tick, begun):
                    yield _holds_back("intervene")
            if counts and moment.begins(grant.request.action):
                begun.append(moment.tick)


def _rules(moment: Moment, levels: Mapping[str, int]) -> Iterator[str]:
    yield from (f"reflex {name} fires" for name in moment.decision.fired)
    yield from (f"alert {message.alert} speaks" for message in moment.decision.messages)
    before, now = moment.decision.previous, moment.decision.level
    if levels[now] > levels[before]:
        yield f"level {now} is entered"
    elif levels[now] < levels[before]:
        yield f"level {before} is left"


def _spent(budget: p.Budget | None, tick: int, begun: list[int]) -> bool:
    """Tell whether the budget of all interventions is used up at this tick."""
    if budget is None or len(begun) < budget.count:
        return False
    return begun[-budget.count] > tick - budget.window
