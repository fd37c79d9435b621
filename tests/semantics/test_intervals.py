"""Ranges and implications are sound: no value and no truth ever contradicts what they claim."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Truth
from lbw_policy.semantics.implication import MOST_PARTS, implies, normal, opposite, small
from lbw_policy.semantics.intervals import Interval, Ranges

SIGNALS = {
    "loss": (p.Signal("loss", "loss"), st.floats(-10, 10)),
    "grad": (p.Signal("grad", "grad_norm"), st.floats(0, 10)),
    "share": (p.Signal("share", "activation_outliers"), st.floats(0, 1)),
    "mine": (p.Signal("mine", "grad_norm", observed=True), st.floats(-10, 10)),
    "lr_factor": (p.Signal("lr_factor", "lr_factor"), st.floats(0.01, 1)),
}
RANGES = Ranges({name: signal for name, (signal, _) in SIGNALS.items()})
READINGS = st.fixed_dictionaries({name: values for name, (_, values) in SIGNALS.items()})
LEAVES = st.sampled_from([e.Reading(name) for name in SIGNALS]) | st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0]).map(
    e.Constant
)
NUMBERS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(e.Arithmetic, st.sampled_from("+-*/"), inner, inner)
        | st.builds(e.Function, st.sampled_from(["log", "abs", "neg"]), inner)
    ),
    max_leaves=6,
)
OPS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])
SIMPLE = st.builds(e.Comparison, OPS, LEAVES, LEAVES) | st.builds(e.Finite, LEAVES)
CONDITIONS = st.recursive(
    SIMPLE,
    lambda inner: st.builds(e.Both, inner, inner) | st.builds(e.Either, inner, inner) | st.builds(e.Not, inner),
    max_leaves=5,
)
ODD = st.fixed_dictionaries({name: values | st.just(math.nan) for name, (_, values) in SIGNALS.items()})


def value(node: e.Number, now: dict[str, float]) -> float:
    match node:
        case e.Constant(constant):
            return constant
        case e.Reading(name):
            return now[name]
        case e.Function("log", argument):
            x = value(argument, now)
            return math.log(x) if x > 0 else math.nan
        case e.Function(name, argument):
            return abs(value(argument, now)) if name == "abs" else -value(argument, now)
        case e.Arithmetic(op, left, right):
            a, b = value(left, now), value(right, now)
            return {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else math.nan}[op]
    raise AssertionError(node)


def truth(node: e.Condition, now: dict[str, float], *, turned: bool = False) -> Truth:
    """Return a condition's truth, as the reference of the language says it."""
    match node:
        case e.Not(operand):
            return truth(operand, now, turned=not turned)
        case e.Both(left, right) | e.Either(left, right):
            least = isinstance(node, e.Both) != turned
            return (min if least else max)(truth(left, now, turned=turned), truth(right, now, turned=turned))
        case e.Finite(argument):
            return Truth.TRUE if math.isfinite(value(argument, now)) != turned else Truth.FALSE
        case e.Comparison(op, left, right):
            a, b = value(left, now), value(right, now)
            if not (math.isfinite(a) and math.isfinite(b)):
                return Truth.UNKNOWN
            holds = {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "==": a == b, "!=": a != b}[op]
            return Truth.TRUE if holds != turned else Truth.FALSE
    raise AssertionError(node)


@settings(max_examples=150)
@given(NUMBERS, READINGS)
def test_a_finite_value_lies_in_its_range(number: e.Number, now: dict[str, float]) -> None:
    found, known = value(number, now), RANGES.find(number)

    assert not math.isfinite(found) or known.low <= found <= known.high


@settings(max_examples=150)
@given(OPS, NUMBERS, NUMBERS, READINGS)
def test_a_decided_comparison_is_never_otherwise(
    op: str, left: e.Number, right: e.Number, now: dict[str, float]
) -> None:
    comparison = e.Comparison(op, left, right)
    decided, found = RANGES.decide(comparison), truth(comparison, now)

    assert decided is None or found in (Truth.UNKNOWN, Truth.TRUE if decided else Truth.FALSE)


@settings(max_examples=150)
@given(CONDITIONS, CONDITIONS, ODD)
def test_what_follows_is_at_least_as_true(one: e.Condition, other: e.Condition, now: dict[str, float]) -> None:
    weaker = e.Either(one, other)

    assert implies(normal(one), normal(weaker))
    assert not implies(normal(one), normal(other)) or truth(other, now) >= truth(one, now)


@settings(max_examples=150)
@given(CONDITIONS, ODD)
def test_normal_and_opposite_keep_the_meaning(one: e.Condition, now: dict[str, float]) -> None:
    assert truth(normal(one), now) == truth(one, now)
    assert truth(opposite(one), now) == truth(e.Not(one), now)


@pytest.mark.parametrize(
    ("one", "other", "follows"),
    [((">", 5), (">", 3), True), ((">", 5), (">=", 5), True), ((">=", 5), (">", 5), False), (("<", 3), ("<=", 3), True),
     ((">", 3), (">", 5), False), ((">", 5), ("<", 9), False), (("==", 5), (">", 3), False)],
)  # fmt: skip
def test_a_threshold_follows_from_a_harder_one(one: tuple[str, float], other: tuple[str, float], follows: bool) -> None:
    loss = e.Reading("loss")
    first, second = (e.Comparison(op, loss, e.Constant(limit)) for op, limit in (one, other))

    assert implies(first, second) is follows


def test_a_window_orders_its_least_median_and_greatest() -> None:
    least, middle, greatest = (e.Statistic(name, e.Reading("loss"), 64) for name in ("min", "median", "max"))

    assert RANGES.decide(e.Comparison("<=", least, middle)) is True
    assert RANGES.decide(e.Comparison("<", greatest, middle)) is False
    assert RANGES.decide(e.Comparison("<", least, greatest)) is None
    assert RANGES.decide(e.Comparison("<=", least, e.Statistic("max", e.Reading("loss"), 32))) is None


def test_large_conditions_are_not_compared() -> None:
    condition: e.Condition = e.Finite(e.Reading("loss"))
    for _ in range(MOST_PARTS):
        condition = e.Both(condition, condition)

    assert not small(condition)


@pytest.mark.parametrize(
    ("interval", "words"),
    [(Interval(0), "at least 0"), (Interval(0, 1), "between 0 and 1"), (Interval(high=2), "at most 2"),
     (Interval(6, 6), "always 6"), (Interval(), "any number")],
)  # fmt: skip
def test_a_range_is_told_in_words(interval: Interval, words: str) -> None:
    assert str(interval) == words
