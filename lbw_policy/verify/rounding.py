"""What rounding leaves of arithmetic: how near a result lies to the exact one, and that order is never turned round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations

from attrs import frozen

from lbw_policy.machine.closures import ARITHMETIC
from lbw_policy.semantics import expressions as e
from lbw_policy.verify.measured import constant, finite, value
from lbw_policy.verify.terms import Term, every, term, when

LEAST, _SHARE = Fraction(1, 2**1075), Fraction(1, 2**53)
"""IEEE 754 binary64 to nearest: the rounding error is at most this share of a result, or `LEAST` if that is more."""


@frozen
class Affine:
    """That a number is `factor * base + shift`, rounded once."""

    number: e.Number
    base: e.Number
    factor: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    @classmethod
    def of(cls, number: e.Number) -> Affine | None:
        """Return an arithmetic operation on one measured number; None for anything else."""
        if not isinstance(number, e.Arithmetic):
            return None
        op, left, right = number.op, constant(number.left), constant(number.right)
        known, base = (left, number.right) if right is None else (right, number.left)
        if known is None or not math.isfinite(known) or (op == "/" and (right is None or not right)):
            return None
        exact = Fraction(known)
        if op in "*/":
            return cls(number, base, exact if op == "*" else 1 / exact)
        if op == "+" or right is not None:
            return cls(number, base, shift=exact if op == "+" else -exact)
        return cls(number, base, Fraction(-1), exact)

    def at(self, point: float) -> float:
        """Return the number where the base is `point`, as the machine computes it."""
        assert isinstance(self.number, e.Arithmetic)
        left, right = constant(self.number.left), constant(self.number.right)
        return ARITHMETIC[self.number.op](point if left is None else left, point if right is None else right)


def rounded(number: e.Number, points: Sequence[float]) -> Iterator[Term]:
    """Yield what arithmetic gives: within its rounding error, and on the right side of what it gives at `points`."""
    affine = Affine.of(number)
    if affine is not None and affine.factor:
        yield finite(number).implies(_near(number, value(affine.base) * affine.factor + affine.shift))
        yield from (finite(number).implies(one) for one in _monotone(affine, points))
    elif isinstance(number, e.Arithmetic) and number.op in "+-":
        left, right = value(number.left), value(number.right)
        yield finite(number).implies(_near(number, left + right if number.op == "+" else left - right))
    elif isinstance(number, e.Arithmetic) and number.op == "/":
        yield from (_divided(number, Fraction(point)) for point in points)


def _near(number: e.Number, exact: Term) -> Term:
    error = when(exact >= Fraction(0), exact, term(Fraction(0)) - exact) * _SHARE + LEAST
    return (value(number) <= exact + error) & (value(number) >= exact - error)


def _monotone(affine: Affine, points: Sequence[float]) -> Iterator[Term]:
    # INVARIANT: rounding is monotone, so the order of exact results is never turned round.
    for point in points:
        result, base, number = affine.at(point), value(affine.base), value(affine.number)
        if math.isfinite(result):
            above, below = base >= Fraction(point), base <= Fraction(point)
            more, less = (above, below) if affine.factor > 0 else (below, above)
            yield more.implies(number >= Fraction(result)) & less.implies(number <= Fraction(result))


def _divided(number: e.Arithmetic, point: Fraction) -> Term:
    """Return on which side of a point a quotient lies, by the sign of its divisor."""
    quotient, left, right, zero = value(number), value(number.left), value(number.right), Fraction(0)
    more, less = left >= right * point, left <= right * point
    positive = more.implies(quotient >= point) & less.implies(quotient <= point)
    negative = less.implies(quotient >= point) & more.implies(quotient <= point)
    signed = (right > zero).implies(positive) & (right < zero).implies(negative)
    return (finite(number) & finite(number.right)).implies(signed)


def ordered(numbers: Sequence[e.Number]) -> Iterator[Term]:
    """Yield the order of numbers that are multiples of one measured number, or that number moved."""
    forms = [form for number in numbers if (form := Affine.of(number))]
    families: dict[e.Number, list[Affine]] = {form.base: [Affine(form.base, form.base)] for form in forms}
    for form in forms:
        families[form.base].append(form)
    for family in families.values():
        for one, other in combinations(sorted(family, key=lambda form: (form.factor, form.shift)), 2):
            known = finite(one.number) & finite(other.number)
            yield known.implies(_ordered(one, other))


def _ordered(one: Affine, other: Affine) -> Term:
    lower, upper, base = value(one.number), value(other.number), value(one.base)
    if one.factor == other.factor:
        return lower <= upper
    if one.shift or other.shift:
        return every()
    return (base >= Fraction(0)).implies(lower <= upper) & (base <= Fraction(0)).implies(lower >= upper)
