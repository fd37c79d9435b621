"""The limiter's amounts, in the floating point it runs on: nothing that is asked for leaves its range.

Every number asked for is any 64-bit float at all: NaN, infinities, denormal numbers and both zeros.
"""

from __future__ import annotations

from lbw_policy.verify.systems import Induction, Obligation, System
from lbw_policy.verify.terms import BOOL, FLOAT, Term, every, term, variable, when


def clamped(value: Term, low: float, high: float) -> Term:
    """Return `limits.budget.clamp` as a term."""
    return when((term(low) <= value) & (value <= high), value, when(value > high, high, low))


def held(value: Term, low: float, high: float) -> Term:
    """Return the term that tells whether a float lies in a range; NaN does not."""
    return (term(low) <= value) & (value <= high)


def stays_within(name: str, low: float, high: float) -> Obligation:
    """Return that clamping any float gives one within the range."""
    return Obligation(f"{name}: clamp", (~held(clamped(variable("amount", FLOAT), low, high), low, high),))


def scaling(low: float, high: float) -> System:
    """Return the lr factor as a system: `scale` is the limiter's, `granted` tells whether a factor was granted.

    Inputs: `asked`, `amount`, and `paid`, whether the budgets can pay for a factor that falls.
    """
    scale, amount = variable("scale", FLOAT), variable("amount", FLOAT)
    asked, paid = variable("asked", BOOL), variable("paid", BOOL)
    factor = clamped(amount, low, high)
    pays = ~(factor < scale) | paid
    keeps = ~pays & (scale < 1.0)
    step = {
        "scale": when(asked & pays, factor, when(asked & keeps, scale, 1.0)),
        "granted": asked & (pays | keeps),
    }
    return System("lr factor", {"scale": term(1.0), "granted": term(False)}, step)


def factor_in_range(low: float, high: float, system: System | None = None) -> Induction:
    """Return that every lr factor granted lies in [low, high], and that it is 1 where none is."""
    scale, granted = variable("scale", FLOAT), variable("granted", BOOL)
    goal = when(granted, held(scale, low, high), scale.same(1.0))
    return Induction(system or scaling(low, high), goal, (goal,))


def clip_shrinks() -> Obligation:
    """Return that the factor for the gradients lies in [0, 1], whatever the norm and the norm asked for are."""
    norm, to, quotient = (variable(one, FLOAT) for one in ("norm", "to", "quotient"))
    largest = term(1.7976931348623157e308)
    finite = every(*((one <= largest) & (largest * -1.0 <= one) for one in (norm, to)))
    granted = finite & ~(to < 0.0)
    # The quotient `to / norm` may be any float here: the clamp does not rely on it.
    factor = when(norm <= to, 1.0, clamped(quotient, 0.0, 1.0))
    return Obligation("clip: factor", (granted, ~held(factor, 0.0, 1.0)))
