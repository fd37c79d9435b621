"""Hypothesis strategies shared by all tests; every new construct of the language is added here.

Strategies without state are cached: building a recursive one anew for each draw takes most of a test's time.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import cache

from attrs import evolve
from hypothesis import strategies as st

from lbw_policy.machine.ladder import Ladder
from lbw_policy.machine.readings import RiskValues
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
)
from lbw_policy.semantics.policy import (
    Action,
    Budget,
    Checkpoint,
    Clip,
    Custom,
    CustomLimit,
    Freeze,
    FreezeLimit,
    Halt,
    Level,
    Limits,
    Missing,
    Periodic,
    Place,
    Policy,
    Reflex,
    ResetMoments,
    Rollback,
    RollbackLimit,
    ScaleLimit,
    ScaleLr,
    Signal,
    Skip,
    SkipLimit,
    Trigger,
)

HOSTILE = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    5e-324,
    -2.5e-310,
    1e-12,
    1e16,
    1e300,
    -1e300,
    sys.float_info.max,
    -sys.float_info.max,
    math.inf,
    -math.inf,
    math.nan,
)
"""Values that break careless arithmetic."""

ordinary = st.floats(-8.0, 8.0, width=32)
hostile = st.sampled_from(HOSTILE)
anything = ordinary | hostile | st.floats()
finite_floats = ordinary | hostile.filter(math.isfinite) | st.floats(allow_nan=False, allow_infinity=False)
SIGNALS = ("loss", "grad", "outliers")
RISKS = ("divergence",)


@cache
def missing_rules() -> st.SearchStrategy[Missing]:
    """Draw what an absent reading means."""
    hold = st.integers(0, 6).map(lambda steps: Missing("hold", steps))
    return st.sampled_from((Missing("skip"), Missing("unsafe"))) | hold


@cache
def declarations(names: Sequence[str] = SIGNALS) -> st.SearchStrategy[tuple[Signal, ...]]:
    """Draw declarations of the named signals."""
    return st.tuples(
        *(
            st.builds(Signal, st.just(name), st.just(name), every=st.integers(1, 4), missing=missing_rules())
            for name in names
        )
    )


@cache
def _constants() -> st.SearchStrategy[Number]:
    # A negative zero equals zero, so two expressions with them would share one window.
    return st.builds(
        Constant, st.sampled_from((0.0, 1.0, -1.0, 0.5, 2.0, 1e-3, 1e300)) | ordinary.map(lambda x: x + 0.0)
    )


def _compound(inner: st.SearchStrategy[Number]) -> st.SearchStrategy[Number]:
    samples = st.integers(1, 12) | st.sampled_from((16, 40))
    plain = st.sampled_from([name for name in (*BASELINES, *TRENDS) if name != "quantile"])
    return st.one_of(
        st.builds(Statistic, plain, inner, samples),
        st.builds(Statistic, plain, inner, samples),
        st.builds(Statistic, st.just("quantile"), inner, samples, st.floats(0.0, 1.0)),
        st.builds(Arithmetic, st.sampled_from("+-*/"), inner, inner),
        st.builds(Function, st.sampled_from(("log", "abs", "neg")), inner),
    )


@cache
def numbers(signals: Sequence[str] = SIGNALS, risks: Sequence[str] = RISKS) -> st.SearchStrategy[Number]:
    """Draw a number over the named signals and risk models; units are not looked at."""
    reading = st.builds(Reading, st.sampled_from(tuple(signals)))
    leaves = [reading, reading, _constants()]
    if risks:
        leaves.append(st.builds(RiskReading, st.sampled_from(tuple(risks)), st.just("probability")))
    return st.recursive(st.one_of(leaves), _compound, max_leaves=5)


@cache
def foreseeable_numbers(signals: Sequence[str] = SIGNALS) -> st.SearchStrategy[Number]:
    """Draw a number that can be told before the host has the readings: no logarithm, no slope, no risk."""
    reading = st.builds(Reading, st.sampled_from(tuple(signals)))
    plain = st.sampled_from(("zscore", "median", "mean", "std", "min", "max", "spread", "ewma", "prev"))
    samples = st.integers(1, 9)
    return st.recursive(
        reading,
        lambda inner: st.one_of(
            st.builds(Statistic, plain, inner, samples),
            st.builds(Statistic, st.just("quantile"), inner, samples, st.floats(0.0, 1.0)),
            st.builds(Arithmetic, st.sampled_from("+-*/"), inner, inner | _constants()),
            st.builds(Function, st.sampled_from(("abs", "neg")), inner),
        ),
        max_leaves=4,
    )


@cache
def foreseeable_conditions(signals: Sequence[str] = SIGNALS) -> st.SearchStrategy[Condition]:
    """Draw a condition over such numbers."""
    number = foreseeable_numbers(signals)
    compared = st.builds(Comparison, st.sampled_from(("<", "<=", ">", ">=", "==", "!=")), number, number | _constants())
    return st.recursive(
        compared | st.builds(Finite, number),
        lambda inner: st.builds(Not, inner) | st.builds(Both, inner, inner) | st.builds(Either, inner, inner),
        max_leaves=4,
    )


@cache
def conditions(signals: Sequence[str] = SIGNALS, risks: Sequence[str] = RISKS) -> st.SearchStrategy[Condition]:
    """Draw a condition over the named signals and risk models."""
    number = numbers(signals, risks)
    leaves = [
        st.builds(Comparison, st.sampled_from(("<", "<=", ">", ">=", "==", "!=")), number, number),
        st.builds(Finite, number),
    ]
    if risks:
        leaves.append(st.builds(RiskReading, st.sampled_from(tuple(risks)), st.sampled_from(("alarm", "trusted"))))
    return st.recursive(
        st.one_of(leaves),
        lambda inner: st.builds(Not, inner) | st.builds(Both, inner, inner) | st.builds(Either, inner, inner),
        max_leaves=5,
    )


def risk_values() -> st.SearchStrategy[RiskValues]:
    """Draw what a risk model may say, broken ones included."""
    probability = st.none() | st.floats(0.0, 1.0) | anything
    return st.builds(RiskValues, probability, st.none() | st.booleans(), st.booleans())


def risk_readings(risks: Sequence[str] = RISKS) -> st.SearchStrategy[Mapping[str, RiskValues]]:
    """Draw what the risk models say in a tick; some may be silent."""
    return st.dictionaries(st.sampled_from(tuple(risks)), risk_values(), max_size=len(risks))


@st.composite
def streams(
    draw: st.DrawFn, signals: Sequence[str] = SIGNALS, most: int = 60
) -> list[tuple[int, dict[str, float | None]]]:
    """Draw telemetry: growing ticks, each with the values at hand; hostile values, gaps and absences are common."""
    drawn = draw(st.lists(anything, max_size=4)) + draw(st.lists(ordinary, min_size=1, max_size=8))
    value = st.sampled_from([*drawn, None] if draw(st.booleans()) else drawn)
    moments = st.fixed_dictionaries(dict.fromkeys(signals, value))
    if draw(st.booleans()):
        moments |= st.fixed_dictionaries({}, optional=dict.fromkeys(signals, value))
    count, tick = draw(st.integers(0, most)), draw(st.sampled_from((0, 1, 10**9)))
    ticks = []
    for values in draw(st.lists(moments, min_size=count, max_size=count)):
        tick += draw(st.sampled_from((1, 1, 1, 1, 1, 2, 5)))
        ticks.append((tick, values))
    return ticks


@st.composite
def lively_streams(draw: st.DrawFn, signals: Sequence[str] = SIGNALS) -> list[dict[str, float | None]]:
    """Draw 16 to 50 ticks of telemetry, most of it ordinary: windows warm up, and trouble comes on top."""
    palette = draw(st.lists(st.floats(0.5, 4.0, width=32), min_size=2, max_size=5))
    value = st.sampled_from([*palette * 4, *draw(st.lists(anything, max_size=3)), None, 40.0])
    return draw(st.lists(st.fixed_dictionaries(dict.fromkeys(signals, value)), min_size=16, max_size=50))


@cache
def budgets() -> st.SearchStrategy[Budget]:
    """Small budgets, so that short histories meet their ends."""
    return st.builds(Budget, st.integers(1, 6), st.integers(1, 30))


@st.composite
def limit_sets(draw: st.DrawFn) -> Limits:
    """Any subset of limits, with small numbers."""
    low = draw(st.floats(0.01, 1.0))
    return Limits(
        scale_lr=draw(st.none() | st.builds(ScaleLimit, st.just(low), st.floats(low, 1.0))),
        skip=draw(st.none() | st.builds(SkipLimit, st.integers(1, 4), budgets())),
        clip=draw(st.none() | budgets()),
        rollback=draw(st.none() | st.builds(RollbackLimit, st.integers(1, 30), budgets(), st.integers(0, 12))),
        freeze=draw(st.none() | st.builds(FreezeLimit, st.floats(0.01, 0.9), st.integers(1, 10))),
        reset_moments=draw(st.none() | budgets()),
        checkpoint=draw(st.none() | budgets()),
        intervene=draw(st.none() | budgets()),
        overhead=draw(st.none() | st.sampled_from((0.001, 0.02, 1.0))),
        custom=tuple(draw(st.lists(custom_limits(), max_size=2, unique_by=lambda limit: limit.name))),
    )


@st.composite
def custom_limits(draw: st.DrawFn) -> CustomLimit:
    """The limit of a plugin's action, with an amount or without."""
    low, high = sorted((draw(ordinary), draw(ordinary)))
    bounds = draw(st.sampled_from(((None, None), (low, high))))
    return CustomLimit(draw(st.sampled_from(("boost", "nudge"))), *bounds, draw(budgets()))


@cache
def triggers() -> st.SearchStrategy[Trigger]:
    """A trigger on any condition with a short hold."""
    holds = st.integers(1, 5).flatmap(lambda window: st.tuples(st.integers(1, window), st.just(window)))
    return holds.map(lambda hold: Trigger(Finite(Reading("loss")), *hold))


@st.composite
def _rungs(draw: st.DrawFn, index: int) -> Level:
    leave = draw(st.none() | triggers())
    return Level(
        name=f"level{index}",
        enter=draw(triggers()),
        leave=leave,
        stay=draw(st.integers(1, 12) if leave is None else st.none() | st.integers(1, 12)),
        settles=draw(st.none() | st.integers(1, 6)),
        cooldown=draw(st.integers(0, 8)),
    )


@st.composite
def ladders(draw: st.DrawFn) -> Ladder:
    """A ladder of up to three levels above the calm one, each with a way back."""
    count = draw(st.integers(0, 3))
    return Ladder((Level("normal"), *(draw(_rungs(index)) for index in range(count))))


@cache
def _single_actions() -> st.SearchStrategy[Action]:
    return st.one_of(
        st.sampled_from((Skip(), Skip(), Halt(), Checkpoint(), ResetMoments())),
        st.builds(Clip, numbers(), st.booleans()),
        st.builds(ScaleLr, numbers(), st.integers(1, 6)),
        st.builds(Rollback, st.integers(1, 100)),
        st.builds(Freeze, st.floats(0.0, 1.0), st.just("grad_norm")),
        st.builds(Custom, st.sampled_from(("boost", "nudge", "unlimited")), st.none() | numbers()),
    )


def _chained(found: Sequence[Action]) -> Action:
    """Return the first action, with the others as its fallbacks."""
    first, *rest = found
    return evolve(first, otherwise=_chained(rest)) if rest else first


@cache
def actions() -> st.SearchStrategy[Action]:
    """Any action, half of them with fallbacks; amounts far beyond what limits allow are among the likely ones."""
    chains = st.lists(_single_actions(), min_size=2, max_size=4).map(_chained)
    return _single_actions() | chains


@st.composite
def _acting(draw: st.DrawFn, level: Level) -> Level:
    return evolve(
        level,
        enter=evolve(level.enter, condition=draw(conditions())) if level.enter else None,
        leave=evolve(level.leave, condition=draw(conditions())) if level.leave else None,
        actions=tuple(draw(st.lists(actions(), max_size=3))),
        periodic=tuple(draw(st.lists(st.builds(Periodic, st.integers(1, 4), actions()), max_size=1))),
    )


@st.composite
def unchecked_policies(draw: st.DrawFn) -> Policy:
    """A policy no checker has seen: its rules may ask for anything, allowed or not."""
    place = Place("p.lbw", 1)
    rungs = draw(ladders()).levels
    reflex = st.builds(Reflex, st.just("r"), conditions(), st.lists(actions(), max_size=2).map(tuple), st.just(place))
    return Policy(
        name="p",
        doc="",
        digest="0",
        params=(),
        signals=draw(declarations()),
        risks=(),
        reflexes=tuple(draw(st.lists(reflex, max_size=3))),
        levels=(rungs[0], *(draw(_acting(level)) for level in rungs[1:])),
        alerts=(),
        limits=draw(limit_sets()),
        quarantine=draw(st.integers(1, 20)),
    )
