"""What the proof says of numbers and conditions holds in every tick of the running evaluator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import cache

from hypothesis import event, given, settings
from hypothesis import strategies as st

from lbw_policy.machine.expressions import Evaluator, RiskValues
from lbw_policy.semantics import expressions as e
from lbw_policy.semantics.expressions import Truth
from lbw_policy.semantics.policy import Limits, Missing, Policy, Signal
from lbw_policy.semantics.walk import parts
from lbw_policy.verify.measured import finite, ready, value
from lbw_policy.verify.numbers import facts
from lbw_policy.verify.terms import Term, Value, evaluate
from lbw_policy.verify.truths import holds, said, says
from tests.strategies import conditions, hostile, ordinary

NAMES = ("loss", "grad", "weights")
SIGNALS = tuple(
    Signal(name, source, missing=missing)
    for name, source, missing in (
        ("loss", "loss", Missing("unsafe")),
        ("grad", "grad_norm", Missing("skip")),
        ("weights", "nonfinite_params", Missing("hold", 1)),
    )
)
POLICY = Policy("p", "", "0", (), SIGNALS, (), (), (), (), Limits())
EXACT = (0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 0.1, 1 / 3, -2.5, 1e300, 1e-300, 5e-324, 1e16)

probabilities = st.none() | st.just(math.nan) | st.floats(0.0, 1.0)
risks = st.builds(RiskValues, probabilities, st.none() | st.booleans(), st.booleans())
readings = st.sampled_from(EXACT) | hostile | ordinary | st.none()


@cache
def simple_numbers() -> st.SearchStrategy[e.Number]:
    """Numbers of the kind policies compare: affine in a reading, quotients, statistics of short windows."""
    reading = st.builds(e.Reading, st.sampled_from(NAMES))
    constant = st.builds(e.Constant, st.sampled_from(EXACT))
    names = st.sampled_from([name for name in (*e.BASELINES, *e.TRENDS) if name != "quantile"])
    statistic = st.builds(e.Statistic, names, reading, st.integers(1, 3))
    quantile = st.builds(e.Statistic, st.just("quantile"), reading, st.integers(1, 3), st.floats(0.0, 1.0))
    measured = reading | statistic | quantile | st.builds(e.RiskReading, st.just("divergence"), st.just("probability"))
    op = st.sampled_from("+-*/")
    moved = st.builds(e.Arithmetic, op, measured, constant)
    return (
        measured
        | moved
        | st.builds(e.Arithmetic, op, measured, measured | moved)
        | st.builds(e.Arithmetic, op, constant, moved)
        | st.builds(e.Arithmetic, op, constant, measured)
        | st.builds(e.Function, st.sampled_from(("log", "abs", "neg")), measured)
    )


@cache
def simple_conditions() -> st.SearchStrategy[e.Condition]:
    """Two comparisons of such numbers with constants and with each other."""
    number = simple_numbers()
    side = number | st.builds(e.Constant, st.sampled_from(EXACT))
    one = st.builds(e.Comparison, st.sampled_from(("<", "<=", ">", ">=", "==", "!=")), number, side)
    return st.builds(e.Both, one, one) | st.builds(e.Either, one, st.builds(e.Not, one))


def told(condition: e.Condition, risk: RiskValues) -> dict[str, Value]:
    """Return the variables of what the risk model says."""
    found: dict[str, Value] = {}
    for one in parts(condition):
        if isinstance(one, e.RiskReading) and one.field != "probability":
            answer = getattr(risk, one.field)
            found |= {said(one).name: answer is not None, says(one).name: bool(answer)}
    return found


def standing(numbers: Mapping[e.Number, float | None], hidden: Fraction) -> dict[str, Value]:
    """Return the variables of numbers; where one is not finite, its value may be anything."""
    found: dict[Term, Value] = {}
    for number, seen in numbers.items():
        known = seen is not None and math.isfinite(seen)
        found |= {ready(number): seen is not None, finite(number): known}
        found[value(number)] = Fraction(seen) if known and seen is not None else hidden
    return {one.name: it for one, it in found.items() if one.op == "variable"}


def in_range(tick: tuple[float | None, ...], largest: float) -> dict[str, float | None]:
    """Return what signals read, with norms and counts as they can be."""
    loss, grad, weights = (
        math.copysign(largest, one) if one is not None and math.isfinite(one) and abs(one) > largest else one
        for one in tick
    )
    whole = None if weights is None else abs(weights) if not math.isfinite(weights) else float(round(abs(weights)))
    return {"loss": loss, "grad": None if grad is None else abs(grad), "weights": whole}


@settings(deadline=None, max_examples=180)
@given(
    simple_conditions() | conditions(NAMES),
    st.lists(st.tuples(readings, readings, readings), min_size=1, max_size=8),
    st.lists(risks, min_size=1, max_size=4),
    st.sampled_from((Fraction(0), Fraction(-7), Fraction(9, 2))),
    st.sampled_from((math.inf, 1e100)),
)
def test_no_tick_of_the_evaluator_lies_outside_of_what_the_proof_allows(
    condition: e.Condition,
    ticks: list[tuple[float | None, ...]],
    models: list[RiskValues],
    hidden: Fraction,
    largest: float,
) -> None:
    numbers = [one for one in parts(condition) if isinstance(one, e.Number)]
    numbers = [one for one in numbers if not (isinstance(one, e.RiskReading) and one.field != "probability")]
    evaluator = Evaluator(SIGNALS, tuple(numbers), (condition,))
    known = facts(POLICY, condition, largest=largest)
    for tick, values in enumerate(ticks):
        risk = models[tick % len(models)]
        evaluator.read(tick, in_range(values, largest), {"divergence": risk})
        seen = {one: evaluator.number(index) for index, one in enumerate(numbers)}
        now = {**standing(seen, hidden), **told(condition, risk)}
        for fact in known:
            assert evaluate(fact, now), fact
        truth = Truth(evaluator.truth(0))
        event(truth.name)
        assert evaluate(holds(condition, Truth.UNKNOWN), now) == (truth >= Truth.UNKNOWN)
        assert evaluate(holds(condition), now) == (truth == Truth.TRUE)
        evaluator.commit(quarantined=tick % 5 == 4)
