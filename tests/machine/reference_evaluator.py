"""The meaning of expressions, written to be read: whole histories, everything recomputed from the beginning."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping
from fractions import Fraction

from attrs import define, field

from lbw_policy.machine.readings import RiskValues
from lbw_policy.semantics.expressions import (
    TRENDS,
    Arithmetic,
    Both,
    Comparison,
    Condition,
    Constant,
    Either,
    Finite,
    Function,
    Not,
    Number,
    Reading,
    RiskReading,
    Statistic,
    Truth,
)
from lbw_policy.semantics.policy import Signal

NAN, INF = math.nan, math.inf
Sample = tuple[int, float]


@define
class Row:
    """One tick as it was."""

    tick: int
    values: Mapping[str, float | None]
    risks: Mapping[str, RiskValues]
    accepted: bool = False


@define
class Reference:
    """Answers for the present tick, which is the last row."""

    signals: tuple[Signal, ...]
    rows: list[Row] = field(factory=list)
    known: dict[tuple[Number, int], float | None] = field(factory=dict)

    def read(self, tick: int, values: Mapping[str, float | None], risks: Mapping[str, RiskValues]) -> None:
        self.rows.append(Row(tick, values, risks))

    def commit(self, quarantined: bool) -> None:
        self.rows[-1].accepted = not quarantined

    def number(self, node: Number) -> float | None:
        return self.at(node, len(self.rows) - 1)

    def truth(self, node: Condition) -> Truth:
        return self.judge(push_in(node, negate=False))

    # conditions

    def judge(self, node: Condition) -> Truth:
        match node:
            case Both(left, right):
                return min(self.judge(left), self.judge(right))
            case Either(left, right):
                return max(self.judge(left), self.judge(right))
            case Comparison():
                return self.compare(node)
        negated = isinstance(node, Not)
        leaf = node.operand if isinstance(node, Not) else node
        said = self.finite(leaf) if isinstance(leaf, Finite) else self.says(leaf)
        if said is None:
            return Truth.NOT_READY
        return Truth.TRUE if said != negated else Truth.FALSE

    def compare(self, node: Comparison) -> Truth:
        left, right = self.number(node.left), self.number(node.right)
        if left is None or right is None:
            return Truth.NOT_READY
        if not math.isfinite(left) or not math.isfinite(right):
            return Truth.UNKNOWN
        holds = {
            "<": left < right,
            "<=": left <= right,
            ">": left > right,
            ">=": left >= right,
            "==": left == right,
            "!=": left != right,
        }
        return Truth.TRUE if holds[node.op] else Truth.FALSE

    def finite(self, node: Finite) -> bool | None:
        value = self.number(node.argument)
        return None if value is None else math.isfinite(value)

    def says(self, node: RiskReading) -> bool | None:
        values = self.rows[-1].risks.get(node.risk)
        return None if values is None else {"alarm": values.alarm, "trusted": values.trusted}[node.field]

    # numbers

    def at(self, node: Number, row: int) -> float | None:
        if (node, row) not in self.known:
            self.known[node, row] = self.compute(node, row)
        return self.known[node, row]

    def compute(self, node: Number, row: int) -> float | None:
        match node:
            case Constant(value):
                return value
            case Reading(name):
                return self.signal(name, row)
            case RiskReading(name, _):
                values = self.rows[row].risks.get(name)
                return None if values is None else values.probability
            case Function(name, argument):
                value = self.at(argument, row)
                return None if value is None else function(name, value)
            case Arithmetic(op, left, right):
                one, other = self.at(left, row), self.at(right, row)
                return None if one is None or other is None else arithmetic(op, one, other)
            case Statistic():
                return self.trend(node, row) if node.name in TRENDS else self.baseline(node, row)

    def signal(self, name: str, row: int) -> float | None:
        (signal,) = (signal for signal in self.signals if signal.name == name)
        rule, tick = signal.missing, self.rows[row].tick
        seen = [past for past in self.rows[: row + 1] if past.values.get(name) is not None]
        if not seen:
            return NAN if rule.kind == "unsafe" else None
        age, last = tick - seen[-1].tick, seen[-1].values[name]
        if age < signal.every:
            return last
        if rule.kind == "hold" and age < signal.every + rule.steps:
            return last
        return None if rule.kind == "skip" else NAN

    def fresh(self, node: Number, row: int) -> bool:
        match node:
            case Reading(name):
                return self.rows[row].values.get(name) is not None
            case Statistic() | Function():
                return self.fresh(node.argument, row)
            case Arithmetic():
                return self.fresh(node.left, row) and self.fresh(node.right, row)
        return True

    def samples(self, node: Number, rows: range, *, accepted: bool) -> list[Sample]:
        """Return all fresh finite values of the number in the given rows, with their ticks."""
        found = []
        for row in rows:
            value = self.at(node, row)
            learnable = value is not None and math.isfinite(value) and self.fresh(node, row)
            if learnable and (self.rows[row].accepted or not accepted):
                found.append((self.rows[row].tick, value))
        return found

    def baseline(self, node: Statistic, row: int) -> float | None:
        value = self.at(node.argument, row)
        history = self.samples(node.argument, range(row), accepted=True)[-node.samples :]
        window = sorted(sample + 0.0 for _, sample in history)
        if len(window) < warm_up(node.samples):
            return None
        if node.name == "zscore":
            return None if value is None else zscore(value, window)
        if node.name == "quantile":
            return quantile(window, node.share)
        return BASELINE[node.name](window)

    def trend(self, node: Statistic, row: int) -> float | None:
        value = self.at(node.argument, row)
        followed = self.samples(node.argument, range(row + 1), accepted=False)
        result = TREND[node.name](followed, node.samples)
        if result is not None and value is not None and not math.isfinite(value):
            return NAN
        return result


def push_in(node: Condition, *, negate: bool) -> Condition:
    """Move negations inward; what is left of them stands before `finite` and risk readings only."""
    opposite = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
    match node:
        case Not(operand):
            return push_in(operand, negate=not negate)
        case Both(left, right):
            kind = Either if negate else Both
            return kind(push_in(left, negate=negate), push_in(right, negate=negate))
        case Either(left, right):
            kind = Both if negate else Either
            return kind(push_in(left, negate=negate), push_in(right, negate=negate))
        case Comparison(op, left, right):
            return Comparison(opposite[op] if negate else op, left, right)
    return Not(node) if negate else node


def warm_up(samples: int) -> int:
    return min(samples, max(8, samples // 4))


def function(name: str, value: float) -> float:
    if name == "neg":
        return -value
    if name == "abs":
        return abs(value)
    if value == 0:
        return -INF
    return NAN if value < 0 or math.isnan(value) else math.log(value)


def arithmetic(op: str, left: float, right: float) -> float:
    if op == "/" and right == 0:
        if left == 0 or math.isnan(left):
            return NAN
        return INF if math.copysign(1, left) == math.copysign(1, right) else -INF
    return {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right, "/": lambda: left / right}[
        op
    ]()


def median(values: list[float]) -> float:
    """Return the median; the middle of two finite values is exact and then rounded."""
    low, high = statistics.median_low(values), statistics.median_high(values)
    if not math.isfinite(low) or not math.isfinite(high):
        return high
    return float((Fraction(low) + Fraction(high)) / 2) + 0.0


def zscore(value: float, window: list[float]) -> float:
    if not math.isfinite(value):
        return NAN
    middle = median(window)
    spread = median([abs(sample - middle) for sample in window])
    return (value - middle) / max(1.4826 * spread, 1e-3 * abs(middle), 1e-12)


def quantile(window: list[float], share: float) -> float:
    rank = share * (len(window) - 1)
    low, high, part = window[math.floor(rank)], window[math.ceil(rank)], rank - math.floor(rank)
    if math.isfinite(high - low):
        return min(high, low + (high - low) * part)
    return low * (1 - part) + high * part


def ewma(followed: list[Sample], samples: int) -> float | None:
    if len(followed) < warm_up(samples):
        return None
    mean, weight = followed[0][1], 2 / (samples + 1)
    for _, sample in followed[1:]:
        moved = mean + (sample - mean) * weight
        if not math.isfinite(moved):
            moved = max(-sys.float_info.max, min(sys.float_info.max, mean * (1 - weight) + sample * weight))
        mean = moved
    return mean


def slope(followed: list[Sample], samples: int) -> float | None:
    points = [(Fraction(tick), Fraction(sample)) for tick, sample in followed[-samples:]]
    if len(points) < max(2, warm_up(samples)):
        return None
    center = sum(tick for tick, _ in points) / len(points)
    level = sum(sample for _, sample in points) / len(points)
    rise = sum((tick - center) * (sample - level) for tick, sample in points)
    run = sum((tick - center) ** 2 for tick, _ in points)
    try:
        return float(rise / run)
    except OverflowError:
        return INF if rise > 0 else -INF


def prev(followed: list[Sample], samples: int) -> float | None:
    return followed[-1 - samples][1] if len(followed) > samples else None


def spread(window: list[float]) -> float:
    return (max(window) - min(window)) / max(abs(median(window)), 1e-12)


def rate(followed: list[Sample], samples: int) -> float | None:
    if not followed:
        return None
    try:
        return float(sum(Fraction(value) for _, value in followed[-samples:]))
    except OverflowError:
        return INF


BASELINE = {
    "median": median,
    "mean": statistics.mean,
    "std": statistics.pstdev,
    "min": min,
    "max": max,
    "spread": spread,
}
TREND = {"ewma": ewma, "slope": slope, "prev": prev, "rate": rate}
