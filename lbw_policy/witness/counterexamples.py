"""Runs that show what a policy does: that a rule of it can act, or that a promise about it does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from attrs import frozen

from lbw_policy.claims import Claim
from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.trials.trace import Trace
from lbw_policy.witness import goals, ladder_attacks, limit_attacks
from lbw_policy.witness.attack import Attack, Case, Claims
from lbw_policy.witness.blocks import block
from lbw_policy.witness.exhibits import Exhibit, at, ever, first
from lbw_policy.witness.goals import Rungs
from lbw_policy.witness.scripts import Script, ready_after
from lbw_policy.witness.search import Effort, Goal, Search, Standing

__all__ = ["Effort", "Search", "block", "refute", "rules", "witness"]

_ATTACKS: Mapping[str, Callable[[Attack], Iterator[Case]]] = {
    "limits_hold": limit_attacks.limits,
    "progress_guaranteed": limit_attacks.progress,
    "skip_cannot_livelock": limit_attacks.livelock,
    "cooldown_respected": ladder_attacks.cooldown,
    "dwell_bounded": ladder_attacks.dwell,
    "calm_returns": ladder_attacks.calm,
    "no_conflict": ladder_attacks.conflict,
    "oscillation_bounded": ladder_attacks.oscillation,
    "unknown_never_relaxes": ladder_attacks.unknown,
}
_EVERYTHING = "everything_can_fire"


@frozen
class _Rule:
    """Something a policy can do: the goals that lead to it, one after the other, and what shows that it was done.

    `missed` is what may be expected of a run that should have done it.
    """

    name: str
    stages: tuple[Goal, ...]
    done: Claims
    missed: Claims


def rules(policy: p.Policy) -> tuple[str, ...]:
    """Return what a policy can do, each a rule that `witness` knows, in the words of `lbw test --coverage`."""
    return tuple(_rules(policy))


def witness(policy: p.Policy, rule: str, search: Search | None = None) -> t.Trial | None:
    """Return a short test that passes and shows that a rule can act; None if none was found.

    Args:
        policy: the policy.
        rule: one of `rules(policy)`: `reflex spike fires`, `level caution is entered`, `level caution is left`,
            `alert broken speaks`. The verb may be left out; of a level, `is entered` is meant then.
        search: the search to use, which counts its cost; a new one without.

    Raises:
        KeyError: the policy has no such rule.
    """
    return _hunt(search or Search(policy), _rule(policy, rule))[0]


def refute(policy: p.Policy, claim: Claim, search: Search | None = None) -> t.Trial | None:
    """Return a short test that fails because a claim about a policy does not hold; None if none was found.

    None says nothing about the claim. Of `everything_can_fire`, about one of `rules(policy)`, the test is the run that
    came nearest: it shows that the search found no way, not that there is none. Of a `progress_guaranteed` whose bound
    is 0 or less, which promises no progress, it is a run that makes none.
    """
    search = search or Search(policy)
    if claim.promise == _EVERYTHING:
        return _never(search, claim.about)
    attack = _ATTACKS.get(claim.promise)
    found = (exhibit.shown_by(script) for script, exhibit in (attack(Attack(search, claim)) if attack else ()))
    return next((trial for trial in found if trial), None)


def _never(search: Search, about: str) -> t.Trial | None:
    """Return the run that came nearest to letting a rule act; None if one does, or there is no such rule."""
    try:
        rule = _rule(search.policy, about)
    except KeyError:
        return None
    shown, nearest = _hunt(search, rule)
    if shown or nearest is None:
        return None
    return Exhibit(search.policy, rule.name, rule.missed, passes=False).show(nearest)


# Hunting


def _hunt(search: Search, rule: _Rule) -> tuple[t.Trial | None, Script | None]:
    """Return the test that shows a rule, and if there is none, the script that came nearest."""
    exhibit, nearest = Exhibit(search.policy, rule.name, rule.done, passes=True), None
    for start in _starts(search, rule.stages):
        end = _through(search, start, rule.stages)
        trial = exhibit.shown_by(end.script) if end else None
        if trial:
            return trial, None
        nearest = nearest or search.nearest
    return None, nearest


def _starts(search: Search, stages: Sequence[Goal]) -> Iterator[Standing]:
    """Yield healthy beginnings: the plainest one, then a noisy one of every channel."""
    titles = tuple(dict.fromkeys(title for stage in stages for title in stage.titles))
    conditions = [wish.condition for stage in stages for wish in stage.wishes]
    warm = ready_after(search.policy, conditions)
    yield search.begin(titles, warm)
    yield search.begin([one.title for one in search.channels], warm + _MORE, noise=_NOISE)


_MORE = 50
"""How much longer a noisy beginning is, in ticks."""
_NOISE = 0.025
"""The standard deviation of healthy readings, as a share of their level."""


def _through(search: Search, start: Standing, stages: Sequence[Goal]) -> Standing | None:
    """Return the run that reaches one goal after the other."""
    found = search.already(start, stages[0]) or search.reach(start, stages[0])
    for stage in stages[1:]:
        found = search.reach(found, stage) if found else None
    return found


# Rules


def _rule(policy: p.Policy, name: str) -> _Rule:
    known = _rules(policy)
    return known[name if name in known else next((one for one in known if one.startswith(f"{name} ")), name)]()


def _rules(policy: p.Policy) -> Mapping[str, Callable[[], _Rule]]:
    """Return what makes each rule, by its name."""
    found = {f"reflex {one.name} fires": partial(_fires, policy, one) for one in policy.reflexes}
    for level in policy.levels[1:]:
        found[f"level {level.name} is entered"] = partial(_entered, policy, level)
        if level.leave or level.stay:
            found[f"level {level.name} is left"] = partial(_left, policy, level)
    return {**found, **{f"alert {one.name} speaks": partial(_speaks, policy, one) for one in policy.alerts}}


def _fires(policy: p.Policy, reflex: p.Reflex) -> _Rule:
    claims = _always(t.Happens("reflex", reflex.name, 1, None))
    return _Rule(f"reflex {reflex.name} can fire", (goals.fires(policy, reflex),), claims, claims)


def _speaks(policy: p.Policy, alert: p.Alert) -> _Rule:
    claims = _always(t.Happens("alert", alert.name, 1, None))
    return _Rule(f"alert {alert.name} can speak", (goals.speaks(policy, alert),), claims, claims)


def _always(claim: t.Claim) -> Claims:
    return lambda _: (claim,)


def _entered(policy: p.Policy, level: p.Level) -> _Rule:
    rungs, name = Rungs.of(policy), level.name

    def done(trace: Trace) -> Sequence[t.Claim]:
        moment = first(trace, lambda one: rungs.rises(one, name))
        return (at(name, moment.tick),) if moment else ()

    into = goals.enters(policy, level)
    return _Rule(f"level {name} can be entered", (into,), done, lambda trace: (ever(name, trace),))


def _left(policy: p.Policy, level: p.Level) -> _Rule:
    rungs, name = Rungs.of(policy), level.name

    def done(trace: Trace) -> Sequence[t.Claim]:
        entry = first(trace, lambda one: rungs.rises(one, name))
        left = first(trace, lambda one: rungs.falls(one, name), entry.tick) if entry else None
        return (at(name, left.tick - 1), at(left.level, left.tick)) if left else ()

    def missed(trace: Trace) -> Sequence[t.Claim]:
        entry = first(trace, lambda one: rungs.rises(one, name))
        return (ever(rungs.under(name), trace, entry.tick),) if entry else (ever(name, trace),)

    stages = (goals.enters(policy, level), goals.leaves(policy, level))
    return _Rule(f"level {name} can be left", stages, done, missed)
