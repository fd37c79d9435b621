"""What is foreseen comes true: every bit and number as the evaluator has it, every ruling as the limiter grants it."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lbw_policy as lbw
from lbw_policy.limits import Outcome
from lbw_policy.machine import Evaluator, Session, Turn
from lbw_policy.machine.ahead import Ruling
from lbw_policy.machine.foresight import Foreseen, Foresight, Late, UnforeseenError
from lbw_policy.machine.session import Present
from lbw_policy.semantics.expressions import (
    Arithmetic,
    Condition,
    Constant,
    Number,
    Reading,
    Statistic,
    Truth,
)
from lbw_policy.semantics.policy import (
    Budget,
    Clip,
    Freeze,
    Level,
    Missing,
    Periodic,
    Place,
    Policy,
    Reflex,
    ScaleLimit,
    ScaleLr,
    Signal,
    Skip,
    SkipLimit,
)
from tests.machine import busy
from tests.machine.late import PlainOperations, bit, told
from tests.machine.reference_session import Heard
from tests.strategies import (
    SIGNALS,
    anything,
    conditions,
    declarations,
    foreseeable_conditions,
    foreseeable_numbers,
    lively_streams,
    numbers,
    unchecked_policies,
)

RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
Stream = list[dict[str, float | None]]


def due(signals: tuple[Signal, ...], tick: int, values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {signal.name: values.get(signal.name) for signal in signals if not tick % signal.every}


def hidden(values: Mapping[str, float | None], late: frozenset[str]) -> dict[str, Foreseen]:
    """Return the readings with those of some signals where the host does not see them."""
    return {name: Late(value) if name in late and value is not None else value for name, value in values.items()}


def alike(one: float | None, other: float | None) -> bool:
    return repr(one) == repr(other)


late_signals = st.sampled_from((SIGNALS, SIGNALS, SIGNALS[:2], SIGNALS[1:2], ())).map(frozenset)


def test_every_number_and_every_condition_comes_out_as_foreseen() -> None:
    seen = Counter[str]()

    @RELAXED
    @given(
        signals=declarations(),
        number=foreseeable_numbers() | numbers(SIGNALS, ()),
        condition=foreseeable_conditions() | conditions(SIGNALS, ()),
        stream=lively_streams(),
        late=late_signals,
    )
    def check(
        signals: tuple[Signal, ...], number: Number, condition: Condition, stream: Stream, late: frozenset[str]
    ) -> None:
        evaluator = Evaluator(signals, (number,), (condition,))
        for tick, values in enumerate(stream):
            given_now = due(signals, tick, values)
            foresight = Foresight(evaluator.compiled, PlainOperations(), tick, hidden(given_now, late))
            found = _foreseen(foresight, number), _fires(foresight, condition)
            evaluator.read(tick, given_now, {})
            _agree(found, evaluator, seen)
            evaluator.commit(quarantined=tick % 7 == 3)

    check()
    assert seen["number late"] > 100
    assert seen["bit late"] > 100
    assert seen["unforeseen"] < seen["number late"] + seen["number known"]


def _foreseen(foresight: Foresight, number: Number) -> Foreseen | UnforeseenError:
    try:
        return foresight.number(number)
    except UnforeseenError as error:
        return error


def _fires(foresight: Foresight, condition: Condition) -> object:
    try:
        return foresight.fires(condition)
    except UnforeseenError as error:
        return error


def _agree(found: tuple[object, object], evaluator: Evaluator, seen: Counter[str]) -> None:
    number, fires = found
    if isinstance(number, UnforeseenError):
        seen["unforeseen"] += 1
    else:
        assert alike(told(number), evaluator.number(0))  # type: ignore[arg-type]
        seen["number late" if isinstance(number, Late) else "number known"] += 1
    if not isinstance(fires, UnforeseenError):
        assert bit(fires) == (evaluator.truth(0) >= Truth.UNKNOWN)  # type: ignore[arg-type]
        seen["bit known" if isinstance(fires, bool) else "bit late"] += 1


MOST = sys.float_info.max
LOSS = Reading("loss")
TRENDS = (
    *(Statistic("ewma", LOSS, samples) for samples in (1, 2, 3, 40)),
    *(Statistic("prev", LOSS, samples) for samples in (1, 2, 5)),
    Statistic("zscore", Statistic("ewma", LOSS, 3), 8),
    Arithmetic("/", Constant(1.0), Statistic("zscore", LOSS, 8)),
    Statistic("ewma", Arithmetic("-", LOSS, Statistic("prev", LOSS, 1)), 2),
)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.lists(
        st.sampled_from((1.0, 2.5, 2.5, 0.3, -4.0, math.nan, math.inf, MOST, -MOST, None)), min_size=12, max_size=30
    ),
    missing=st.sampled_from((Missing("skip"), Missing("hold", 2), Missing("unsafe"))),
)
def test_trends_follow_samples_that_nobody_has_seen_by_the_very_numbers(
    samples: list[float | None], missing: Missing
) -> None:
    """The one tick in which a trend becomes ready, if its sample is finite, is the only one that cannot be told."""
    evaluator = Evaluator((Signal("loss", "loss", missing=missing),), TRENDS, ())
    told_before = [False] * len(TRENDS)
    for tick, sample in enumerate(samples):
        values = {"loss": sample}
        foresight = Foresight(evaluator.compiled, PlainOperations(), tick, hidden(values, frozenset(("loss",))))
        found = [_foreseen(foresight, node) for node in TRENDS]
        evaluator.read(tick, values, {})
        for place, one in enumerate(found):
            if isinstance(one, UnforeseenError):
                assert not told_before[place]
            else:
                assert alike(told(one), evaluator.number(place))
            told_before[place] = told_before[place] or evaluator.number(place) is not None
        evaluator.commit(quarantined=False)


def test_what_only_the_host_can_read_is_unforeseen_wherever_it_counts() -> None:
    signals = (Signal("loss", "loss"), Signal("far", "far"))
    far, steady = Reading("far"), Statistic("median", Reading("far"), 1)
    nodes = (LOSS, far, steady, Statistic("ewma", Arithmetic("/", LOSS, steady), 1))
    evaluator = Evaluator(signals, nodes, ())
    evaluator.read(0, {"loss": 1.0, "far": 2.0}, {})
    evaluator.commit(quarantined=False)
    foresight = Foresight(evaluator.compiled, PlainOperations(), 1, {"loss": Late(3.0)}, frozenset(("far",)))
    found = [_foreseen(foresight, node) for node in nodes]
    assert [isinstance(one, UnforeseenError) for one in found] == [False, True, False, True]
    assert found[2] == 2.0


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies whose reflexes only skip, clip and scale, over levels that may ask for anything."""
    amount = foreseeable_numbers() | numbers(SIGNALS, ())
    clip = st.builds(Clip, amount | st.sampled_from((1.0, 5.0)).map(Constant))
    action = st.just(Skip()) | clip | clip | st.builds(ScaleLr, amount)
    actions = st.lists(action, min_size=1, max_size=3).map(tuple)
    reflex = st.builds(Reflex, st.just("r"), foreseeable_conditions(), actions, st.just(Place("p.lbw", 1)))
    drawn = draw(unchecked_policies())
    levels = drawn.levels if draw(st.booleans()) else drawn.levels[:1]
    budget = st.builds(Budget, st.integers(1, 6), st.integers(1, 12))
    roomy = evolve(
        drawn.limits,
        skip=SkipLimit(draw(st.integers(1, 4)), draw(budget)),
        clip=draw(budget),
        scale_lr=ScaleLimit(draw(st.sampled_from((0.01, 0.3))), draw(st.sampled_from((0.9, 1.0)))),
        intervene=draw(st.none() | budget),
    )
    limits = draw(st.sampled_from((roomy, roomy, roomy, drawn.limits)))
    return evolve(drawn, reflexes=tuple(draw(st.lists(reflex, min_size=1, max_size=3))), levels=levels, limits=limits)


def granted(turn: Turn) -> tuple[bool, float | None, float | None]:
    """Return what a turn does to its update: whether it skips, the factors of gradients and learning rate."""
    found = {grant.request.action: grant.amount for grant in turn.grants if grant.outcome is not Outcome.REFUSED}
    return "skip" in found, found.get("clip", 1.0), found.get("scale_lr", 1.0)


def settled(ruling: Ruling) -> tuple[bool, float | None, float | None]:
    return bit(ruling.skip), told(ruling.clip), told(ruling.scale)


def test_the_limiter_grants_what_was_foreseen_and_levels_wait_where_it_takes_more() -> None:
    seen = Counter[str]()

    @settings(RELAXED, max_examples=300)
    @given(
        policy=policies(),
        stream=lively_streams(),
        late=late_signals,
        norms=st.lists(st.none() | anything | st.floats(10.0, 1e4), min_size=1, max_size=5),
        failing=st.sampled_from((4, 10**9)),
    )
    def check(policy: Policy, stream: Stream, late: frozenset[str], norms: list[float | None], failing: int) -> None:
        session = Session(policy, lagged=True)
        for tick, values in enumerate(stream):
            given_now, norm = due(policy.signals, tick, values), norms[tick % len(norms)]
            hides = "grad" in late and norm is not None
            ruling = _ruling(session, hidden(given_now, late), Late(norm) if hides else norm)
            session.begin(given_now)
            turn = session.decide({}, norm)
            if ruling is None:
                seen["waits"] += 1
            else:
                assert repr(settled(ruling)) == repr(granted(turn))
                assert {grant.request.action for grant in turn.grants} <= {"skip", "clip", "scale_lr"}
                seen.update(_met(ruling, turn))
            session.finish(applied=turn.updates and bool((tick + 1) % failing))

    check()
    assert not {"skip", "clip", "scale_lr"} - {name for name, count in seen.items() if count > 3}, seen
    assert not {"skip late", "clip late", "scale_lr late", "refused"} - set(seen), seen


def _ruling(session: Session, values: Mapping[str, Foreseen], norm: Foreseen) -> Ruling | None:
    try:
        return session.foresee(Present(values), PlainOperations(), norm)
    except UnforeseenError:
        return None


def _met(ruling: Ruling, turn: Turn) -> list[str]:
    parts = {"skip": ruling.skip, "clip": ruling.clip, "scale_lr": ruling.scale}
    found = [grant.request.action for grant in turn.grants if grant.outcome is not Outcome.REFUSED and grant.starts]
    late = [f"{name} late" for name in found if not isinstance(parts[name], float | bool)]
    return found + late + ["refused"] * any(grant.outcome is Outcome.REFUSED for grant in turn.grants)


HELD = (
    Skip(),
    Clip(Constant(1.0)),
    Clip(Constant(0.02)),
    ScaleLr(Constant(0.5)),
    ScaleLr(Constant(0.7), restore=3),
    Skip(otherwise=ScaleLr(Constant(0.3))),
    Freeze(0.3, "grad_norm"),
)


@st.composite
def _level(draw: st.DrawFn, index: int) -> Level:
    periodic = st.builds(Periodic, st.integers(1, 3), st.sampled_from((Skip(), ScaleLr(Constant(0.5)))))
    return Level(
        name=f"level{index}",
        enter=draw(busy.triggers()),
        leave=draw(st.none() | busy.triggers()),
        stay=draw(st.integers(2, 8)),
        actions=tuple(draw(st.lists(st.sampled_from((*HELD[:5] * 3, *HELD[5:])), min_size=1, max_size=2))),
        periodic=tuple(draw(st.lists(periodic, max_size=1))),
    )


@st.composite
def holding(draw: st.DrawFn) -> Policy:
    """Policies whose levels do what can be foreseen, most of the time, beside a reflex that does the like."""
    action = st.sampled_from((Skip(), Clip(Constant(3.0)), ScaleLr(Constant(0.5))))
    reflex = st.builds(Reflex, st.just("r"), busy.conditions(), st.tuples(action), st.just(Place("p.lbw", 1)))
    levels = [draw(_level(index)) for index in range(draw(st.integers(1, 2)))]
    reflexes = tuple(draw(st.lists(reflex, max_size=1)))
    return evolve(draw(busy.policies()), levels=(Level("normal"), *levels), reflexes=reflexes)


def test_what_levels_ask_for_is_foreseen_beside_what_reflexes_do() -> None:
    """Where only levels ask, their rulings are known; where they ask for more, or have an `else`, the tick waits."""
    seen = Counter[str]()

    @settings(RELAXED, max_examples=300)
    @given(policy=holding(), run=busy.runs())
    def check(policy: Policy, run: list[Heard]) -> None:
        session = Session(policy, lagged=True)
        for heard in run:
            values = {name: None if value is None else Late(value) for name, value in heard.values.items()}
            ruling = _ruling(session, values, heard.norm if heard.norm is None else Late(heard.norm))
            session.begin(heard.values)
            turn = session.decide({}, heard.norm)
            asked = {request.action for request in turn.decision.requests}
            if ruling is None:
                assert "freeze" in asked or any(grant.fallback for grant in turn.grants) or _may_fall_back(policy)
                seen["waits"] += 1
            else:
                assert repr(settled(ruling)) == repr(granted(turn))
                assert asked <= {"skip", "clip", "scale_lr"}
                assert not any(grant.fallback for grant in turn.grants)
                seen.update(_met(ruling, turn) if not turn.decision.fired else [])
            session.finish(applied=turn.updates)

    check()
    assert not {"skip", "clip", "scale_lr", "refused", "waits"} - set(seen), seen


def _may_fall_back(policy: Policy) -> bool:
    return any(action.otherwise is not None for level in policy.levels for action in level.actions)


def test_a_session_that_looks_ahead_is_left_as_it_was() -> None:
    @settings(RELAXED, max_examples=40)
    @given(policy=policies(), stream=lively_streams())
    def check(policy: Policy, stream: Stream) -> None:
        session, other = Session(policy, lagged=True), Session(policy, lagged=True)
        for tick, values in enumerate(stream):
            given_now = due(policy.signals, tick, values)
            _ruling(session, hidden(given_now, frozenset(SIGNALS)), Late(1.0))
            turns = []
            for one in (session, other):
                one.begin(given_now)
                turns.append(one.decide({}, 1.0))
                one.finish(applied=turns[-1].updates)
            assert repr(turns[0]) == repr(turns[1])
        assert repr(session.state_dict()) == repr(other.state_dict())

    check()


@pytest.mark.parametrize(("first", "done"), [("skip", (True, 1.0, 1.0)), ("clip to 1", (False, 0.1, 1.0))])
def test_the_last_intervention_is_spent_once(first: str, done: tuple[bool, float, float]) -> None:
    """The rate is not lowered after a skip or a clip in the same tick has taken what was left."""
    policy = lbw.load(
        f"""lbw 1
        policy p {{ doc "two reflexes" }}
        signal grad = telemetry.grad_norm
        reflex a {{ when grad > 2 do {first} }}
        reflex b {{ when grad > 2 do scale_lr by 0.5 }}
        limits {{
          skip at most 4 in a row, at most 20 per 100 steps  clip at most 20 per 100 steps
          scale_lr within [0.1, 1]  intervene at most 1 per 100 steps
        }}"""
    )
    session = Session(policy, lagged=True)
    ruling = session.foresee(Present({"grad": Late(10.0)}), PlainOperations(), Late(10.0))
    session.begin({"grad": 10.0})
    assert settled(ruling) == granted(session.decide({}, 10.0)) == done


def test_nothing_is_asked_of_the_device_for_what_the_host_knows() -> None:
    """Before the window is warm, no operation; then only those that need the present reading."""
    policy = lbw.load(
        """lbw 1
        policy p { doc "one reflex" }
        signal loss = telemetry.loss
        reflex spike { when loss > 3 * median(loss, 32 steps) do skip }
        limits { skip at most 4 in a row, at most 20 per 100 steps  intervene at most 20 per 100 steps }"""
    )
    session, counts = Session(policy, lagged=True), []
    for _ in range(12):
        operations = PlainOperations()
        session.foresee(Present({"loss": Late(1.0)}), operations, None)
        counts.append(operations.count)
        session.begin({"loss": 1.0})
        session.decide({})
        session.finish(applied=True)
    assert counts == [0] * 8 + [4] * 4
