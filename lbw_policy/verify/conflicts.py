"""That no level is pulled both ways on one tick, and which rules can never act at all."""

from __future__ import annotations

from collections.abc import Iterator

from lbw_policy.claims import Claim
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Condition, Truth
from lbw_policy.verify import solver
from lbw_policy.verify.numbers import facts
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.systems import Obligation
from lbw_policy.verify.truths import holds

LARGEST = 1e100
"""No training gives a larger finite reading; with one, `2 * x` may be infinite, and almost any rules would conflict."""


def promises(policy: p.Policy) -> tuple[Promise, ...]:
    """Return no_conflict of each level that has both `enter` and `leave`."""
    return tuple(no_conflict(policy, level) for level in policy.levels[1:] if level.enter and level.leave)


def no_conflict(policy: p.Policy, level: p.Level) -> Promise:
    """Return that no tick counts both towards `enter` (true or unknown) and towards `leave` (true) of a level.

    Where it does, the level can be left and entered again on the very same readings, for ever.
    """
    assert level.enter
    assert level.leave
    enter, leave = level.enter.condition, level.leave.condition
    both = (holds(enter, Truth.UNKNOWN), holds(leave, Truth.TRUE))
    sentence = f"no readings (finite ones up to 1e100) count towards both `enter` and `leave` of `{level.name}`"
    claim = Claim("no_conflict", f"level {level.name}", sentence)
    known = facts(policy, enter, leave, largest=LARGEST)
    return Promise(claim, obligations=(Obligation("enter and leave", (*known, *both)),))


# Rules that cannot act


def impossible(policy: p.Policy) -> dict[str, Obligation]:
    """Return, for each thing a policy can do, what proves that it never does it.

    Keys are those of `coverage`: `reflex NAME fires`, `level NAME is entered` (and `is left`), `alert NAME speaks`.
    """
    return {name: _never(policy, condition, least) for name, condition, least in _happenings(policy)}


def never(policy: p.Policy, seconds: float = 1.0) -> list[str]:
    """Return what a policy can be proved never to do, by its conditions alone; nothing where no solver is installed."""
    if not solver.available():
        return []
    found = impossible(policy).items()
    return [name for name, one in found if solver.check(one.script, seconds).verdict == solver.UNSAT]


def _never(policy: p.Policy, condition: Condition, least: Truth) -> Obligation:
    return Obligation("never", (*facts(policy, condition), holds(condition, least)))


def _happenings(policy: p.Policy) -> Iterator[tuple[str, Condition, Truth]]:
    for reflex in policy.reflexes:
        yield f"reflex {reflex.name} fires", reflex.condition, Truth.UNKNOWN
    for level in policy.levels[1:]:
        if level.enter:
            yield f"level {level.name} is entered", level.enter.condition, Truth.UNKNOWN
        if level.leave and level.stay is None:
            yield f"level {level.name} is left", level.leave.condition, Truth.TRUE
    for alert in policy.alerts:
        yield f"alert {alert.name} speaks", alert.trigger.condition, Truth.UNKNOWN
