"""That calm leads back to normal: after how many ticks the ladder is down, and every lr factor whole again.

A tick is calm if every `enter` is false and the present level's `leave` is true. What remains to be waited for
falls by one in each calm tick; only an `enter` whose window still remembers trouble can raise it, and not for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from attrs import evolve

from lbw_policy.claims import Claim
from lbw_policy.machine.ladder import Ladder
from lbw_policy.semantics.ceilings import SCALE_FLOOR
from lbw_policy.semantics.expressions import Truth
from lbw_policy.semantics.policy import Level, Policy, ScaleLr
from lbw_policy.verify.laddering import ticks, watched
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.rungs import NOW, Rung, ladder_system, rungs_of
from lbw_policy.verify.systems import Induction, System
from lbw_policy.verify.terms import BOOL, REAL, Term, either, every, least, term, variable, when

_CALM, _FALSE, _TRUE = "calm ticks", int(Truth.FALSE), int(Truth.TRUE)
_HALF = Fraction(1, 2**54)
"""What rounding can take from a sum of less than 1 (IEEE 754 binary64): half the distance to the next float."""


def promises(policy: Policy) -> tuple[Promise, ...]:
    """Return calm_returns of the level, and of the lr factor where levels scale it; nothing without levels."""
    rungs = rungs_of(policy.levels)
    if not rungs:
        return ()
    returns = back_to_normal(ladder_system(policy.levels), policy.levels[0].name, rungs)
    restores = restores_of(policy.levels)
    if returns.claim.bound is None or not restores:
        return (returns,)
    return returns, whole_again(returns, restores)


def ticks_to_normal(rungs: Sequence[Rung]) -> int | None:
    """Return after how many calm ticks at most the calm level is reached; None if some level cannot be left.

    A level can still be entered in the first `window - count` calm ticks; from then on every rung
    takes as many ticks as `stay` or `leave` do, whichever is over first.
    """
    most, down = 0, 0
    for rung in rungs:
        if rung.shortest is None:
            return None
        enter = rung.level.enter
        down += rung.shortest
        most = max(most, down + (enter.window - enter.count if enter else 0))
    return most


def back_to_normal(system: System, normal: str, rungs: tuple[Rung, ...]) -> Promise:
    """Return that so many calm ticks in a row lead to the calm level, with nothing held."""
    bound = ticks_to_normal(rungs)
    if bound is None:
        stuck = next(rung for rung in rungs if rung.shortest is None)
        sentence = f"calm leads back to `{normal}`; `{stuck.level.name}` has neither `leave` nor `stay`"
        return Promise(Claim("calm_returns", "", sentence), (Induction(system, ~stuck.here),))
    sentence = f"at most {ticks(bound)} of calm lead back to `{normal}`"
    return Promise(Claim("calm_returns", "", sentence, bound, "steps"), (_returns(system, rungs, bound),))


def _returns(system: System, rungs: tuple[Rung, ...], bound: int) -> Induction:
    calm, passed = variable("calm", BOOL), variable(_CALM)
    quiet = [rung.own("enter").same(_FALSE) for rung in rungs if rung.level.enter]
    watching = watched(system, {passed.name: when(calm, passed + 1, 0)})
    allowed = system.allowed & calm.implies(every(NOW.leave.same(_TRUE), *quiet))
    held = either(*(rung.own("holding", BOOL) for rung in rungs))
    goal = (passed >= bound).implies(NOW.level.same(0) & ~held)
    return Induction(evolve(watching, allowed=allowed), goal, (*_ranges(rungs, passed), *_ranks(rungs, passed, bound)))


def _ranges(rungs: tuple[Rung, ...], passed: Term) -> list[Term]:
    found = [NOW.level >= 0, NOW.level <= len(rungs), passed >= 0]
    for rung in rungs:
        found.append(rung.own("holding", BOOL).implies(NOW.level >= rung.place))
        enter = rung.level.enter
        if enter:
            found.append(rung.own("quiet") >= least(passed, enter.window))
    return found


def _ranks(rungs: tuple[Rung, ...], passed: Term, bound: int) -> list[Term]:
    """Return that in each level the calm ticks so far and those it still takes stay within the bound."""
    found, below = [], 0
    for rung in rungs:
        stay, leave = rung.level.stay, rung.level.leave
        left = [] if stay is None else [term(stay) - NOW.since]
        left += [term(leave.count) - NOW.run] if leave else []
        found += [rung.here.implies(one >= 1) for one in left]
        if stay is not None and leave and stay < leave.count:
            found.append(rung.here.implies(NOW.since >= 0))
        found.append(rung.here.implies(passed + below + (least(*left) if left[1:] else left[0]) <= bound))
        below += rung.shortest or 0
    return found


# The lr factor


def restores_of(levels: Sequence[Level]) -> tuple[int, ...]:
    """Return over how many ticks the lr factors of levels come back to 1, each length once."""
    ladder = Ladder(tuple(levels))
    scaled = zip(ladder.restore, ladder.lasting, strict=True)
    return tuple(sorted({over for over, lasting in scaled if any(isinstance(one, ScaleLr) for one in lasting)}))


def whole_again(returns: Promise, restores: tuple[int, ...]) -> Promise:
    """Return that calm also brings every lr factor back to 1: `restore` and one tick after its level is left."""
    bound = int(returns.claim.bound or 0) + max(restores) + 1
    sentence = f"at most {ticks(bound)} of calm bring the lr factor back to 1"
    claim = Claim("calm_returns", "lr factor", sentence, bound, "steps")
    return Promise(claim, (*returns.inductions, *(restored(over) for over in restores)))


def restored(over: int) -> Induction:
    """Return that an lr factor let go of is 1 after `over` ticks and one more, which makes up for rounding.

    `Ladder.advance` adds the same float each tick, and no sum passes 1. The speed is what the ladder
    computes: a quotient of a difference, each rounded once, and never less than 2**-51 for each tick.
    """
    one, zero = term(Fraction(1)), term(Fraction(0))
    factor, passed, rounding = (variable(name, REAL) for name in ("factor", "passed", "rounding"))
    held, speed = variable("held", REAL), variable("speed", REAL)
    gained = factor + speed - rounding
    system = System(
        f"restore over {over}",
        {"factor": held, "passed": zero},
        {"factor": when(gained >= one, one, gained), "passed": passed + one},
        allowed=(rounding <= _HALF) & (rounding >= -_HALF),
        given=every(held >= Fraction(SCALE_FLOOR), held <= one, *_speeds(speed, held, over)),
    )
    gains = factor.same(one) | (factor >= held + passed * (speed - _HALF))
    goal = (passed >= Fraction(over + 1)).implies(factor.same(one))
    return Induction(system, goal, (factor <= one, gains))


def _speeds(speed: Term, held: Term, over: int) -> tuple[Term, Term]:
    exact = term(Fraction(1)) - held
    return speed * Fraction(over) >= exact - 4 * _HALF, speed >= 8 * over * _HALF
