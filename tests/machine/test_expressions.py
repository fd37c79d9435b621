"""What expressions mean tick by tick: against the reference evaluator, and fact by fact."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbw_policy.errors import StateError
from lbw_policy.machine.expressions import Evaluator, RiskValues
from lbw_policy.semantics.expressions import (
    BASELINES,
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
from lbw_policy.semantics.policy import Missing, Signal
from tests import strategies
from tests.machine.reference_evaluator import Reference

FALSE, NOT_READY, UNKNOWN, TRUE = Truth
LOSS, GRAD = Reading("loss"), Reading("grad")
Risks = Mapping[str, RiskValues]
Stream = list[tuple[int, dict[str, float | None]]]
Path = tuple[str | int, ...]
NAN, INF = math.nan, math.inf
DECLARED = (Signal("loss", "loss"), Signal("grad", "grad"))


def same(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isnan(one) and math.isnan(other))


def evaluator(
    *numbers: Number, conditions: tuple[Condition, ...] = (), signals: tuple[Signal, ...] = DECLARED
) -> Evaluator:
    return Evaluator(signals, numbers, conditions)


def run(subject: Evaluator, values: Sequence[float | None], quarantined: Collection[int] = ()) -> list[float | None]:
    """Feed losses, one a tick from tick 0, and return what number 0 was at each."""
    seen = []
    for tick, value in enumerate(values):
        subject.read(tick, {"loss": value}, {})
        seen.append(subject.number(0))
        subject.commit(tick in quarantined)
    return seen


def value_of(node: Number, **readings: float | None) -> float | None:
    subject = evaluator(node)
    subject.read(0, readings, {})
    return subject.number(0)


def truth_of(node: Condition, risks: Risks | None = None, **readings: float | None) -> Truth:
    subject = evaluator(conditions=(node,))
    subject.read(0, readings, risks or {})
    return Truth(subject.truth(0))


def resumed(subject: Evaluator, fresh: Evaluator) -> Evaluator:
    """Save through JSON, as a run's state is, and load into a new evaluator."""
    fresh.load_state_dict(json.loads(json.dumps(subject.state_dict())))
    return fresh


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_the_evaluator_agrees_with_the_reference_on_hostile_streams_across_a_resume(data: st.DataObject) -> None:
    signals = data.draw(strategies.declarations())
    numbers = tuple(data.draw(st.lists(strategies.numbers(), max_size=4)))
    conditions = tuple(data.draw(st.lists(strategies.conditions(), max_size=2)))
    stream = data.draw(strategies.streams())
    resume = data.draw(st.integers(0, 60))
    said = data.draw(st.lists(strategies.risk_readings(), min_size=1, max_size=5))
    quarantined = data.draw(st.lists(st.sampled_from((False, False, True)), min_size=1, max_size=7))
    subject, reference = Evaluator(signals, numbers, conditions), Reference(signals)
    for count, (tick, values) in enumerate(stream):
        risks = said[count % len(said)]
        subject.read(tick, values, risks)
        reference.read(tick, values, risks)
        for index, node in enumerate(numbers):
            assert same(subject.number(index), reference.number(node)), (tick, node)
        for index, node in enumerate(conditions):
            assert subject.truth(index) == reference.truth(node), (tick, node)
        subject.commit(quarantined[count % len(quarantined)])
        reference.commit(quarantined[count % len(quarantined)])
        if count == resume:
            subject = resumed(subject, Evaluator(signals, numbers, conditions))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    strategies.declarations(), st.sampled_from([*BASELINES, *TRENDS]), st.integers(1, 40), strategies.streams(most=120)
)
def test_each_statistic_of_a_reading_agrees_with_the_reference_over_long_streams(
    signals: tuple[Signal, ...], name: str, samples: int, stream: Stream
) -> None:
    node = Statistic(name, LOSS, samples, 0.3 if name == "quantile" else None)
    subject, reference = Evaluator(signals, (node, LOSS), ()), Reference(signals)
    for tick, values in stream:
        subject.read(tick, values, {})
        reference.read(tick, values, {})
        assert same(subject.number(0), reference.number(node))
        assert same(subject.reading("loss"), reference.number(LOSS))
        subject.commit(tick % 5 == 0)
        reference.commit(tick % 5 == 0)


@given(strategies.conditions(risks=strategies.RISKS), strategies.streams(most=20), strategies.risk_readings())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_negation_is_true_exactly_where_its_condition_is_false(
    condition: Condition, stream: Stream, risks: Risks
) -> None:
    signals = tuple(Signal(name, name) for name in strategies.SIGNALS)
    subject = Evaluator(signals, (), (condition, Not(condition), Not(Not(condition))))
    for tick, values in stream:
        subject.read(tick, values, risks)
        plain, negated, again = (subject.truth(index) for index in range(3))
        assert again == plain
        assert (plain == TRUE) == (negated == FALSE)
        assert (plain == FALSE) == (negated == TRUE)
        subject.commit(False)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "==", "!="])
def test_a_comparison_with_a_value_that_is_not_finite_is_unknown(op: str, value: float) -> None:
    assert truth_of(Comparison(op, LOSS, Constant(1.0)), loss=value) == UNKNOWN
    assert truth_of(Not(Comparison(op, Constant(1.0), LOSS)), loss=value) == UNKNOWN


@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "==", "!="])
@pytest.mark.parametrize("value", [0.0, 1.0, 2.0])
def test_a_negated_comparison_is_its_opposite_on_both_sides_and_at_the_border(op: str, value: float) -> None:
    node = Comparison(op, LOSS, Constant(1.0))
    assert {truth_of(node, loss=value), truth_of(Not(node), loss=value)} == {TRUE, FALSE}


def test_not_ready_beats_unknown_within_one_comparison() -> None:
    assert truth_of(Comparison("<", LOSS, GRAD), loss=NAN) == NOT_READY


def test_and_is_the_least_and_or_the_greatest() -> None:
    tests = {FALSE: Comparison("<", LOSS, Constant(0.0)), TRUE: Comparison(">", LOSS, Constant(0.0))}
    tests |= {UNKNOWN: Comparison("<", LOSS, Constant(NAN)), NOT_READY: Comparison("<", GRAD, Constant(0.0))}
    for one, left in tests.items():
        for other, right in tests.items():
            assert truth_of(Both(left, right), loss=1.0) == min(one, other)
            assert truth_of(Either(left, right), loss=1.0) == max(one, other)


@pytest.mark.parametrize(("value", "truth"), [(1.0, TRUE), (NAN, FALSE), (INF, FALSE), (None, NOT_READY)])
def test_finite_is_never_unknown(value: float | None, truth: Truth) -> None:
    negated = {TRUE: FALSE, FALSE: TRUE, NOT_READY: NOT_READY}[truth]
    assert truth_of(Finite(LOSS), loss=value) == truth
    assert truth_of(Not(Finite(LOSS)), loss=value) == negated


@pytest.mark.parametrize(
    ("left", "right", "quotient"),
    [(1.0, 0.0, INF), (1.0, -0.0, -INF), (-1.0, 0.0, -INF), (0.0, 0.0, NAN), (NAN, 0.0, NAN), (INF, 0.0, INF)],
)
def test_division_by_zero_gives_what_ieee_says(left: float, right: float, quotient: float) -> None:
    assert same(value_of(Arithmetic("/", LOSS, GRAD), loss=left, grad=right), quotient)


@pytest.mark.parametrize(
    ("value", "result"), [(0.0, -INF), (-0.0, -INF), (-1.0, NAN), (NAN, NAN), (INF, INF), (1.0, 0.0)]
)
def test_log_never_raises(value: float, result: float) -> None:
    assert same(value_of(Function("log", LOSS), loss=value), result)


def test_overflow_is_infinite() -> None:
    assert value_of(Arithmetic("*", LOSS, LOSS), loss=-1e300) == INF


READINGS = [
    # every, rule, readings after a value of 7.0 at tick 0 and none since; and before any value
    (1, Missing("skip"), [7.0, None, None], None),
    (1, Missing("unsafe"), [7.0, NAN, NAN], NAN),
    (1, Missing("hold", 2), [7.0, 7.0, 7.0, NAN, NAN], None),
    (1, Missing("hold", 0), [7.0, NAN], None),
    (3, Missing("skip"), [7.0, 7.0, 7.0, None], None),
    (3, Missing("unsafe"), [7.0, 7.0, 7.0, NAN], NAN),
    (3, Missing("hold", 2), [7.0, 7.0, 7.0, 7.0, 7.0, NAN], None),
]


@pytest.mark.parametrize(("every", "rule", "expected", "unseen"), READINGS)
def test_a_value_stands_for_its_ticks_and_then_is_missing_by_the_rule(
    every: int, rule: Missing, expected: list[float | None], unseen: float | None
) -> None:
    subject = evaluator(LOSS, signals=(Signal("loss", "loss", every=every, missing=rule),))
    subject.read(0, {}, {})
    assert same(subject.reading("loss"), unseen)
    seen = run(subject, [7.0, *[None] * (len(expected) - 1)])
    assert all(map(same, seen, expected)), seen


def test_a_nan_that_was_read_is_a_value_and_not_an_absence() -> None:
    subject = evaluator(LOSS, signals=(Signal("loss", "loss", missing=Missing("hold", 1)),))
    assert all(map(same, run(subject, [1.0, NAN, None]), [1.0, NAN, NAN]))


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in ("zscore", "quantile")])
def test_the_present_sample_never_judges_itself(name: str) -> None:
    history = [1.0, 2.0, 3.0, 4.0]
    outcomes = {run(evaluator(Statistic(name, LOSS, 4)), [*history, last])[-1] for last in (0.0, 9.0, 1e300, NAN)}
    assert len(outcomes) == 1


@pytest.mark.parametrize("bad", [1e6, NAN, INF])
def test_a_quarantined_or_broken_sample_teaches_the_baselines_nothing(bad: float) -> None:
    node = Statistic("max", LOSS, 2)
    assert run(evaluator(node), [1.0, 2.0, bad, 1.0], quarantined={2})[-1] == 2.0


def test_a_trend_follows_quarantined_samples_and_its_present_one() -> None:
    node = Statistic("prev", LOSS, 1)
    assert run(evaluator(node), [1.0, 2.0, 3.0], quarantined={0, 1, 2}) == [None, 1.0, 2.0]


def test_a_broken_sample_makes_a_trend_unknown_for_its_tick_only() -> None:
    node = Statistic("ewma", LOSS, 1)
    assert all(map(same, run(evaluator(node), [1.0, NAN, 2.0]), [1.0, NAN, 2.0]))


def test_a_statistic_is_not_ready_before_its_warm_up_whatever_it_reads() -> None:
    for name in ("zscore", "ewma", "slope"):
        assert run(evaluator(Statistic(name, LOSS, 8)), [NAN, 1.0, INF, 2.0]) == [None] * 4


def test_a_held_reading_is_learned_once() -> None:
    signals = (Signal("loss", "loss", every=3), Signal("grad", "grad"))
    trend, baseline = Statistic("prev", LOSS, 1), Statistic("mean", Arithmetic("+", LOSS, GRAD), 2)
    subject = evaluator(trend, baseline, signals=signals)
    for tick, loss in enumerate([1.0, None, None, 5.0, None]):
        subject.read(tick, {"loss": loss, "grad": 10.0}, {})
        values = (subject.number(0), subject.number(1))
        subject.commit(False)
    assert values == (1.0, 13.0)


def test_commit_learns_a_tick_once() -> None:
    subject = evaluator(Statistic("min", LOSS, 2))
    subject.commit(False)
    subject.read(0, {"loss": 1.0}, {})
    subject.commit(False)
    subject.commit(False)
    subject.read(1, {"loss": 2.0}, {})
    assert subject.number(0) is None


def test_what_needs_a_risk_model_is_not_ready_between_begin_and_finish() -> None:
    risk = RiskReading("divergence", "probability")
    trend = Statistic("prev", risk, 1)
    subject = evaluator(risk, trend, LOSS, conditions=(RiskReading("divergence", "alarm"),))
    for tick, probability in enumerate((0.1, 0.2, 0.3)):
        subject.begin(tick, {"loss": 1.0})
        assert (subject.number(0), subject.number(1), subject.number(2), subject.truth(0)) == (
            None,
            None,
            1.0,
            NOT_READY,
        )
        subject.finish({"divergence": RiskValues(probability, alarm=True, trusted=False)})
        subject.commit(False)
    assert (subject.number(0), subject.number(1), subject.truth(0)) == (0.3, 0.2, TRUE)


def test_a_tick_that_was_never_finished_teaches_nothing_about_a_risk() -> None:
    subject = evaluator(Statistic("max", RiskReading("divergence", "probability"), 2))
    subject.read(0, {}, {"divergence": RiskValues(0.5)})
    subject.commit(False)
    subject.begin(1, {})
    subject.commit(False)
    subject.read(2, {}, {"divergence": RiskValues(0.1)})
    assert subject.number(0) is None


@pytest.mark.parametrize(("said", "truth"), [(True, TRUE), (False, FALSE), (None, NOT_READY)])
def test_an_alarm_is_as_the_model_says(said: bool | None, truth: Truth) -> None:
    risks = {"divergence": RiskValues(0.5, alarm=said, trusted=True)}
    assert truth_of(RiskReading("divergence", "alarm"), risks) == truth
    assert truth_of(RiskReading("divergence", "trusted"), risks) == TRUE
    assert truth_of(RiskReading("other", "trusted"), risks) == NOT_READY


def test_equal_windows_are_shared() -> None:
    names = ("zscore", "median", "min", "max")
    alone = evaluator(Statistic("median", LOSS, 128)).memory
    assert evaluator(*(Statistic(name, LOSS, 128) for name in names)).memory == alone
    twice = Arithmetic("+", Statistic("mean", LOSS, 64), Statistic("std", Reading("loss"), 64))
    assert evaluator(twice).memory == evaluator(Statistic("mean", LOSS, 64)).memory
    assert evaluator(Statistic("median", LOSS, 64), Statistic("median", LOSS, 128)).memory > alone


def test_memory_is_reached_and_never_passed() -> None:
    nodes = [Statistic(name, LOSS, 16, 0.5) for name in (*BASELINES, *TRENDS)]
    subject = evaluator(*nodes)
    sizes = {len(json.dumps(subject.state_dict())) for _ in range(3) if run(subject, [1.5] * 100)}
    assert len(sizes) == 1
    # ranked keeps two copies, summed and rate one, slope pairs, prev one more than its window, ewma one; two signals
    assert subject.memory == 2 * 16 + 2 * 16 + 2 * 16 + 17 + 1 + 2


def saved_state() -> tuple[Evaluator, tuple[Number, ...]]:
    nodes = (*(Statistic(name, LOSS, 4, 0.5) for name in (*BASELINES, *TRENDS)), GRAD)
    subject = evaluator(*nodes)
    run(subject, [1.0, 2.0, NAN, 3.0, 5.0, 4.0, 2.0, 1.0, 7.0])
    return subject, nodes


def paths(node: object, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from paths(inner, (*path, key))


def plant(state: dict[str, Any], path: Path, junk: object) -> object:
    """Put `junk` into the state at the path, and return what is then the state."""
    if not path:
        return junk
    inner: Any = state
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = junk
    return state


@given(st.data())
def test_any_damage_is_refused_whole_or_harmless(data: st.DataObject) -> None:
    """Junk anywhere in a state is a StateError that changes nothing, or it fits and the evaluator works."""
    subject, _ = saved_state()
    before = subject.state_dict()
    path = data.draw(st.sampled_from(list(paths(before))))
    junk = st.sampled_from([None, "x", True, -1, 0.5, NAN, INF, 10**400, [], [1.0] * 50, {}, {"loss": 1}, [[]]])
    try:
        subject.load_state_dict(plant(subject.state_dict(), path, data.draw(junk)))
    except StateError:
        assert json.dumps(subject.state_dict()) == json.dumps(before)
    assert len(run(subject, [1.0, NAN, 2.0])) == 3


def test_a_state_of_other_windows_is_refused() -> None:
    subject, nodes = saved_state()
    for other in (evaluator(), evaluator(LOSS), evaluator(*nodes, Statistic("max", GRAD, 4))):
        with pytest.raises(StateError):
            other.load_state_dict(subject.state_dict())
