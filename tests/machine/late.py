"""Operations on numbers that the foresight must not look at: plain floats, wrapped, and told at the end only."""

from __future__ import annotations

import math
import operator

from attrs import define, field

from lbw_policy.machine.closures import divide
from lbw_policy.machine.foresight import Bit, Foreseen, Late, LateTruth

_COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_COMBINE = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": divide}


def told(value: Foreseen) -> float | None:
    """Return a number as the host will know it."""
    if isinstance(value, Late):
        assert isinstance(value.held, float)
        return value.held
    return value


def bit(value: Bit) -> bool:
    """Return a bit as the host will know it."""
    found = value.held if isinstance(value, LateTruth) else value
    assert isinstance(found, bool)
    return found


@define
class PlainOperations:
    """Python's own doubles; `count` is how many operations were asked for."""

    count: int = field(default=0)

    def _number(self, value: float) -> Late:
        self.count += 1
        return Late(float(value))

    def _bit(self, value: bool) -> LateTruth:
        self.count += 1
        return LateTruth(value)

    def combine(self, op: str, left: Late | float, right: Late | float) -> Late:
        return self._number(_COMBINE[op](told(left), told(right)))  # type: ignore[arg-type]

    def apply(self, name: str, value: Late) -> Late:
        return self._number(abs(told(value)) if name == "abs" else -told(value))  # type: ignore[arg-type,operator]

    def finite(self, value: Late) -> LateTruth:
        return self._bit(math.isfinite(told(value)))  # type: ignore[arg-type]

    def compare(self, op: str, left: Late | float, right: Late | float) -> LateTruth:
        return self._bit(_COMPARE[op](told(left), told(right)))

    def both(self, left: LateTruth, right: LateTruth) -> LateTruth:
        return self._bit(bit(left) and bit(right))

    def either(self, left: LateTruth, right: LateTruth) -> LateTruth:
        return self._bit(bit(left) or bit(right))

    def invert(self, bit_: LateTruth) -> LateTruth:
        return self._bit(not bit(bit_))

    def choose(self, bit_: LateTruth, yes: Late | float, no: Late | float) -> Late:
        return self._number(told(yes) if bit(bit_) else told(no))  # type: ignore[arg-type]
