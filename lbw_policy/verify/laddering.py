"""What is promised of the levels whatever their triggers say: cooldowns, the length of visits, how fast they repeat.

Each promise is an induction over `rungs.ladder_system` with clocks beside it that watch one level from outside:
they read the level before and after a tick, never how it was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from lbw_policy.claims import Claim
from lbw_policy.semantics.expressions import Truth
from lbw_policy.semantics.policy import Policy
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.rungs import AFTER, NOW, Rung, ladder_system, rungs_of
from lbw_policy.verify.systems import Induction, System
from lbw_policy.verify.terms import BOOL, Term, term, variable, when

_TRUE = int(Truth.TRUE)


def promises(policy: Policy) -> tuple[Promise, ...]:
    """Return what is promised of each level of a policy: cooldown_respected, dwell_bounded, oscillation_bounded."""
    rungs, system = rungs_of(policy.levels), ladder_system(policy.levels)
    found = [cooldown_respected(system, rung) for rung in rungs if rung.level.cooldown]
    found += [dwell_bounded(system, rungs, rung) for rung in rungs]
    found += [oscillation_bounded(system, rungs, rung) for rung in rungs]
    return (*found, fastest_oscillation(found[-len(rungs) :])) if rungs else ()


def watched(system: System, clocks: Mapping[str, Term]) -> System:
    """Return a system with clocks beside it, which start at 0 or false: each one's value after a tick."""
    start = {name: term(False) if after.sort == BOOL else term(0) for name, after in clocks.items()}
    return evolve(system, start={**system.start, **start}, step={**system.step, **clocks})


# Cooldown


def cooldown_respected(system: System, rung: Rung) -> Promise:
    """Return that a level is never entered from below until its cooldown is over."""
    cooldown, name = rung.level.cooldown, rung.level.name
    sentence = f"`{name}` is not entered from below within {ticks(cooldown)} of having been left"
    claim = Claim("cooldown_respected", f"level {name}", sentence, cooldown, "steps")
    return Promise(claim, (_cooldown(system, rung),))


def _cooldown(system: System, rung: Rung) -> Induction:
    left, away = variable("left", BOOL), variable("away")
    leaves = rung.here & (system.step["level"] < rung.place)
    clocks = {left.name: left | leaves, away.name: when(leaves, 0, away + 1)}
    entered = (NOW.level < rung.place) & AFTER.level.same(rung.place)
    return Induction(
        watched(system, clocks),
        (left & entered).implies(away + 1 >= rung.level.cooldown),
        (left.implies(away + rung.own("cooling") >= rung.level.cooldown),),
    )


# Dwell


def dwell_bounded(system: System, rungs: tuple[Rung, ...], rung: Rung) -> Promise:
    """Return how many ticks in a row a level can last; without `stay` there is no bound to be proved."""
    name, stay = rung.level.name, rung.level.stay
    most = longest(rungs, rung)
    if stay is None or most is None:
        sentence = f"`{name}` ends, whatever the signals say; it has no `stay`"
        claim = Claim("dwell_bounded", f"level {name}", sentence)
        return Promise(claim, (Induction(system, ~(rung.here & (NOW.since >= _PATIENCE))),))
    again = f": {ticks(stay)} when it is reached from above, and as many when it is entered again" * (most > stay)
    claim = Claim(
        "dwell_bounded", f"level {name}", f"`{name}` lasts at most {ticks(most)} in a row{again}", most, "steps"
    )
    return Promise(claim, (_dwell(system, rungs, rung),))


_PATIENCE = 1_000
"""A level that can be held for so many ticks without `stay` can be held for ever."""


def longest(rungs: tuple[Rung, ...], rung: Rung) -> int | None:
    """Return the most ticks in a row a level can last, None without `stay`.

    One that is reached from above can be entered again before it ends, if `enter` has the time to hold.
    """
    stay = rung.level.stay
    return stay and (2 * stay if _from_above(rungs, rung) and 0 < rung.count <= stay else stay)


def _above(rungs: tuple[Rung, ...], rung: Rung) -> Rung | None:
    return rungs[rung.place] if rung.place < len(rungs) else None


def _from_above(rungs: tuple[Rung, ...], rung: Rung) -> bool:
    above = _above(rungs, rung)
    return above is not None and above.shortest is not None


def _dwell(system: System, rungs: tuple[Rung, ...], rung: Rung) -> Induction:
    stay, most, stint = rung.level.stay or 0, longest(rungs, rung) or 0, variable("stint")
    clocks = {stint.name: when(system.step["level"].same(rung.place), stint + 1, 0)}
    once = rung.here & ~NOW.armed if most > stay else rung.here
    facts = [
        rung.here.implies(NOW.since < stay),
        (~rung.here).implies(stint <= 0),
        once.implies(stint <= NOW.since + 1),
    ]
    if most > stay:
        facts.append(rung.here.implies(stint <= NOW.since + 1 + stay))
    elif not _from_above(rungs, rung):
        facts.append(rung.here.implies(NOW.armed))
    elif rung.count:
        facts.append(rung.here.implies(rung.own("entering") <= NOW.since))
    return Induction(watched(system, clocks), rung.here.implies(stint <= most), tuple(facts))


# Oscillation


def spacing(rungs: tuple[Rung, ...], rung: Rung) -> int | None:
    """Return the fewest ticks between two entries of a level that run its actions; None if there is one at most.

    Between them the run was below it, or came back to it from above. Below takes the shortest visit
    and the cooldown, at least a tick; above takes a tick, the shortest visit to the next level, and
    then all the ticks of `enter`, which counts anew whenever the level is reached.
    """
    above, count = _above(rungs, rung), rung.count
    ways = [] if rung.shortest is None else [rung.shortest + max(rung.level.cooldown, 1)]
    if above is not None and above.shortest is not None:
        ways.append(above.shortest + 1 + count)
    return max(min(ways), count) if ways else None


def oscillation_bounded(system: System, rungs: tuple[Rung, ...], rung: Rung) -> Promise:
    """Return that a level's actions do not start twice within a number of ticks."""
    name, bound = rung.level.name, spacing(rungs, rung)
    sentence = f"`{name}` is entered at most once in {ticks(bound)}" if bound else f"`{name}` is entered at most once"
    claim = Claim("oscillation_bounded", f"level {name}", sentence, bound, "steps" if bound else "")
    return Promise(claim, (_oscillation(system, rungs, rung, bound),))


def fastest_oscillation(each: list[Promise]) -> Promise:
    """Return the bound of the whole ladder: that of its fastest level."""
    bounds = [one.claim.bound for one in each if one.claim.bound is not None]
    least = min(bounds, default=None)
    sentence = f"no level is entered twice within {ticks(int(least))}" if least else "no level is entered twice"
    claim = Claim("oscillation_bounded", "", sentence, least, "steps" if least else "")
    return Promise(claim, tuple(induction for one in each for induction in one.inductions))


def entered(system: System, rung: Rung) -> Term:
    """Return that this tick enters a level with its actions, from what stands after it."""
    after = system.step
    return after["level"].same(rung.place) & after["armed"] & after["since"].same(0)


def _oscillation(system: System, rungs: tuple[Rung, ...], rung: Rung, bound: int | None) -> Induction:
    seen, age = variable("seen", BOOL), variable("age")
    enters = entered(system, rung)
    clocks = {seen.name: seen | enters, age.name: when(enters, 0, age + 1)}
    again = seen & AFTER.level.same(rung.place) & AFTER.armed & AFTER.since.same(0)
    goal = ~again if bound is None else again.implies(age + 1 >= bound)
    facts = _counting(rung, seen, age) if bound == rung.count else _ages(rungs, rung, seen, age)
    return Induction(watched(system, clocks), goal, facts)


def _counting(rung: Rung, seen: Term, age: Term) -> tuple[Term, ...]:
    """Return what is enough where the ticks of `enter` alone keep entries apart."""
    return seen.implies(rung.own("entering") <= age), rung.here.implies(NOW.since >= 0)


def _ages(rungs: tuple[Rung, ...], rung: Rung, seen: Term, age: Term) -> tuple[Term, ...]:
    """Return how long ago the last entry is, by where the run stands now."""
    visit = (NOW.level >= rung.place).implies(NOW.leaving <= NOW.since)
    return (*_below(rung, seen, age), *_above_again(_above(rungs, rung), rung, seen, age), visit)


def _below(rung: Rung, seen: Term, age: Term) -> tuple[Term, ...]:
    shortest, cooldown = rung.shortest, rung.level.cooldown
    if shortest is None:
        return ((NOW.level < rung.place).implies(~seen),)
    below = (seen & (NOW.level < rung.place)).implies(age + rung.own("cooling") >= shortest + cooldown)
    facts = ((seen & rung.here).implies(age >= NOW.since), below)
    return facts if cooldown else (*facts, rung.own("cooling") <= 0)


def _above_again(above: Rung | None, rung: Rung, seen: Term, age: Term) -> tuple[Term, ...]:
    if above is None or above.shortest is None:
        return (rung.here.implies(NOW.armed),)
    higher = (seen & (NOW.level > rung.place)).implies(age >= NOW.since + 1)
    back = (seen & rung.here & ~NOW.armed).implies(age >= NOW.since + above.shortest + 1)
    return (higher, back, rung.here.implies(rung.own("entering") <= NOW.since), age >= 0)


# Unknown


def never_released_by_doubt(system: System, rung: Rung) -> Induction:
    """Return that `leave` lets a level go only on a tick on which it is true, the last of enough such ticks."""
    leave, stay = rung.level.leave, rung.level.stay
    count, trues = leave.count if leave else 0, variable("true ticks")
    holds = NOW.leave.same(_TRUE)
    moved = ~system.step["level"].same(NOW.level) | system.step["since"].same(0)
    clocks = {trues.name: when(moved, 0, trues + when(holds, 1, 0))}
    released = rung.here & (AFTER.level < rung.place)
    if stay is not None:
        released &= NOW.since + 1 < stay
    enough = (trues + 1 >= count) & (NOW.leaving - NOW.lost + 1 >= count)
    facts = (
        rung.here.implies(NOW.leaving < count),
        rung.here.implies(trues >= NOW.leaving),
        rung.here.implies(NOW.since >= 0),
    )
    return Induction(watched(system, clocks), released.implies(holds & enough), facts)


def ticks(count: int) -> str:
    """Return a number of ticks in words."""
    return f"{count:_} step{'s' * (count != 1)}"
