"""How near a condition is to coming true: a smooth score where a truth value is a cliff, so that a search can climb."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

from attrs import frozen

from lbw_policy.machine import RiskValues, StateMachine
from lbw_policy.semantics import expressions as e
from lbw_policy.semantics.expressions import Truth
from lbw_policy.semantics.implication import normal
from lbw_policy.trials.trace import Moment

_ALMOST = 0.9
"""What comes near without coming true scores at most this."""
_UNKNOWN = 0.05
"""What an unknown condition scores where only true will do."""


@frozen
class Wish:
    """A condition that should be at least so true in `count` of `window` ticks; it has its negations inside."""

    condition: e.Condition
    least: Truth = Truth.UNKNOWN
    count: int = 1
    window: int = 1

    @classmethod
    def of(cls, condition: e.Condition, least: Truth = Truth.UNKNOWN, count: int = 1, window: int = 1) -> Wish:
        """Return the wish for any condition."""
        return cls(normal(condition), least, count, window)

    def score(self, near: Sequence[float]) -> float:
        """Return how near the wish came in a run, from how near its condition was at each tick; 1 if it came true."""
        sums, ones, best = [0.0, *accumulate(near)], [0, *accumulate(one >= 1.0 for one in near)], 0.0
        for end in range(1, len(near) + 1):
            start = max(0, end - self.window)
            come, mean = ones[end] - ones[start], (sums[end] - sums[start]) / (end - start)
            best = max(best, min(1.0, (come + max(0, self.count - come) * _ALMOST * mean) / self.count))
        return best


@frozen
class Look:
    """What can be seen of numbers and risks at one moment; None is not ready."""

    number: Callable[[e.Number], float | None]
    says: Callable[[e.RiskReading], bool | None]

    def near(self, wish: Wish) -> float:
        """Return how near the wish's condition is to the truth it needs, from 0 to 1."""
        return self._near(wish.condition, wish.least)

    def _near(self, node: e.Condition, least: Truth) -> float:
        match node:
            case e.Both(left, right):
                pair = self._near(left, least), self._near(right, least)
                return 0.5 * min(pair) + 0.25 * sum(pair)
            case e.Either(left, right):
                return max(self._near(left, least), self._near(right, least))
            case e.Comparison(op, one, other):
                return _comparison(op, self.number(one), self.number(other), least)
            case e.Not(operand):
                return self._leaf(operand, wanted=False)
            case _:
                return self._leaf(node, wanted=True)

    def _leaf(self, node: e.Condition, *, wanted: bool) -> float:
        if isinstance(node, e.RiskReading):
            said = self.says(node)
            return float(said is not None and said == wanted)
        value = self.number(node.argument) if isinstance(node, e.Finite) else None
        return 0.0 if value is None else float(math.isfinite(value) == wanted)


def look(machine: StateMachine, moment: Moment) -> Look:
    """Return what a tick that a machine has just decided shows."""
    place, read, risks = machine.program.number_index, machine.evaluator.number, moment.risks
    return Look(lambda node: read(place[node]), lambda node: _said(risks, node))


def _said(risks: Mapping[str, RiskValues], node: e.RiskReading) -> bool | None:
    values = risks.get(node.risk)
    return None if values is None else getattr(values, node.field)


def _comparison(op: str, left: float | None, right: float | None, least: Truth) -> float:
    if left is None or right is None:
        return 0.0
    if not (math.isfinite(left) and math.isfinite(right)):
        return 1.0 if least <= Truth.UNKNOWN else _UNKNOWN
    if op in ("==", "!="):
        short, come = abs(left - right), (left == right) == (op == "==")
    else:
        short = right - left if op[0] == ">" else left - right
        come = short < 0 or (short == 0 and len(op) > 1)
    return 1.0 if come else _closeness(short, abs(left) + abs(right))


def _closeness(short: float, size: float) -> float:
    """Return how little two numbers fall short of a comparison: relative to their size, or where one is 0, at all."""
    if not math.isfinite(short) or not math.isfinite(size):
        return 0.0
    relative = 1.0 - short / size if size else 1.0
    return _ALMOST * max(relative, 0.5 / (1.0 + short))
