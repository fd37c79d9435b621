"""The variables that stand for one number of one tick: its value, whether it is ready, whether it is finite."""

from __future__ import annotations

import math
from fractions import Fraction

from lbw_policy.machine.closures import ARITHMETIC, FUNCTIONS
from lbw_policy.semantics import expressions as e
from lbw_policy.semantics.spelling import spell
from lbw_policy.verify.terms import BOOL, REAL, Term, term, variable


def value(number: e.Number) -> Term:
    """Return the value of a number where it is finite."""
    known = constant(number)
    if known is None:
        return variable(spell(number), REAL)
    return term(Fraction(known) if math.isfinite(known) else Fraction(0))


def ready(number: e.Number) -> Term:
    """Return that a number is ready."""
    return variable(f"{spell(number)} ready", BOOL) if constant(number) is None else term(True)


def finite(number: e.Number) -> Term:
    """Return that a number is ready, and neither NaN nor infinite."""
    known = constant(number)
    return variable(f"{spell(number)} finite", BOOL) if known is None else term(math.isfinite(known))


def constant(number: e.Number) -> float | None:
    """Return the value of a number made of constants only."""
    match number:
        case e.Constant(known):
            return known
        case e.Arithmetic(op, left, right):
            one, other = constant(left), constant(right)
            return None if one is None or other is None else ARITHMETIC[op](one, other)
        case e.Function(name, argument) if name in FUNCTIONS:
            inner = constant(argument)
            return None if inner is None else FUNCTIONS[name](inner)
        case _:
            return None
