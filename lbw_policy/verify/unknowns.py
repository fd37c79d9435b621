"""That what is unknown never relaxes a level: neither a tick's truth, nor readings that are all NaN or infinite."""

from __future__ import annotations

from lbw_policy.claims import Claim
from lbw_policy.semantics import expressions as e
from lbw_policy.semantics.policy import Level, Policy
from lbw_policy.semantics.walk import parts
from lbw_policy.verify.laddering import never_released_by_doubt
from lbw_policy.verify.measured import finite, ready
from lbw_policy.verify.numbers import facts
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.rungs import ladder_system, rungs_of
from lbw_policy.verify.systems import Obligation
from lbw_policy.verify.terms import Term
from lbw_policy.verify.truths import holds


def promises(policy: Policy) -> tuple[Promise, ...]:
    """Return unknown_never_relaxes of each level that has a `leave`."""
    system = ladder_system(policy.levels)
    found = []
    for rung in rungs_of(policy.levels):
        if rung.level.leave:
            name = rung.level.name
            sentence = f"`{name}` is left by `leave` only where it is true, never while all its signals are unknown"
            claim = Claim("unknown_never_relaxes", f"level {name}", sentence)
            found.append(Promise(claim, (never_released_by_doubt(system, rung),), (blind(policy, rung.level),)))
    return tuple(found)


def blind(policy: Policy, level: Level) -> Obligation:
    """Return what proves that `leave` is not true while every signal it reads is NaN or infinite.

    It fails for a `leave` that reads no signal, only the past (`median(loss, 128 steps) < 3`), or that asks for the
    unknown (`not finite(loss)`), and for one that divides by a reading, because x / inf is 0.
    """
    assert level.leave
    condition = level.leave.condition
    readings = [part for part in parts(condition) if isinstance(part, e.Reading)]
    return Obligation("blind", (*facts(policy, condition), *(_unknown(one) for one in readings), holds(condition)))


def _unknown(reading: e.Reading) -> Term:
    return ready(reading) & ~finite(reading)
