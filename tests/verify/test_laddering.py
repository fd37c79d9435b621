"""What is proved of the levels: for every ladder, with no invariant to spare, and not of ladders that are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.claims import Claim
from lbw_policy.semantics.expressions import Finite, Reading
from lbw_policy.semantics.policy import Level, Trigger
from lbw_policy.verify import calm, laddering
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.rungs import NOW, Rung, ladder_system, rungs_of
from lbw_policy.verify.solver import UNSAT, check
from lbw_policy.verify.systems import Induction, System
from lbw_policy.verify.terms import Term, substitute, term, when
from tests.strategies import ladders

pytest.importorskip("z3")

CONDITION = Finite(Reading("loss"))
LEVELS = (
    Level("normal"),
    Level("low", Trigger(CONDITION, 4, 6), Trigger(CONDITION, 10, 12), stay=200, cooldown=50),
    Level("high", Trigger(CONDITION, 3, 4), Trigger(CONDITION, 5, 6), 100),
)
RUNGS = rungs_of(LEVELS)
LOW, HIGH = RUNGS


def holds(induction: Induction) -> bool:
    step_first = sorted(induction.obligations(), key=lambda one: one.name, reverse=True)
    return all(check(one.script).verdict == UNSAT for one in step_first)


def proved(promise: Promise) -> bool:
    return all(check(one.script).verdict == UNSAT for one in promise.everything())


def found(levels: tuple[Level, ...], system: System) -> Iterator[Promise]:
    """Yield what is promised of levels, for the system that is said to be theirs."""
    rungs = rungs_of(levels)
    for rung in rungs:
        if rung.level.cooldown:
            yield laddering.cooldown_respected(system, rung)
        if rung.level.stay is not None:
            yield laddering.dwell_bounded(system, rungs, rung)
        if rung.level.leave:
            claim = Claim("unknown_never_relaxes", f"level {rung.level.name}", "")
            yield Promise(claim, (laddering.never_released_by_doubt(system, rung),))
        yield laddering.oscillation_bounded(system, rungs, rung)
    if calm.ticks_to_normal(rungs) is not None:
        yield calm.back_to_normal(system, "normal", rungs)


@st.composite
def full_size(draw: st.DrawFn) -> tuple[Level, ...]:
    """A ladder of the usual shapes, with numbers as policies have them, those that cannot be left among them."""
    size = st.sampled_from((1, 2, 3, 5, 20, 200, 10_000))
    levels = []
    for level in draw(ladders()).levels[1:]:
        window = draw(size)
        enter = Trigger(CONDITION, draw(st.integers(1, window)), window)
        stay = draw(st.none() | st.just(level.stay) | size)
        leave = draw(st.sampled_from((level.leave, enter, None)))
        levels.append(evolve(level, enter=enter, leave=leave, stay=stay, cooldown=draw(st.just(0) | size)))
    return (Level("normal"), *levels)


@settings(deadline=None, max_examples=12)
@given(full_size())
def test_every_ladder_keeps_its_promises(levels: tuple[Level, ...]) -> None:
    system = ladder_system(levels)
    for promise in found(levels, system):
        assert proved(promise), promise.claim


def test_no_invariant_can_be_spared() -> None:
    slow = (Level("normal"), Level("only", Trigger(CONDITION, 9, 9), None, stay=3, cooldown=2))
    stuck = (Level("normal"), Level("only", Trigger(CONDITION, 1, 1)))
    for levels in (LEVELS, slow, stuck):
        for promise in found(levels, ladder_system(levels)):
            for one in promise.inductions:
                for left_out in one.invariants:
                    rest = tuple(each for each in one.invariants if each is not left_out)
                    assert not holds(evolve(one, invariants=rest)), (promise.claim, left_out)


# Ladders that are wrong


def _changed(changes: Callable[[Mapping[str, Term]], Mapping[str, Term]]) -> System:
    system = ladder_system(LEVELS)
    return evolve(system, step={**system.step, **changes(system.step)})


def _seen_as(rung: Rung, name: str, seen: Term) -> System:
    """Return a system in which a level's variable is read as something else, except by itself."""
    known = rung.own(name).name
    return _changed(lambda step: {n: substitute(t, {known: seen}) for n, t in step.items() if n != known})


def _kept(name: str) -> System:
    """Return a system in which a counter is not set back when a level is reached or left."""
    return _changed(lambda step: {name: step[name].arguments[2]})


def _late(rung: Rung, **numbers: int) -> System:
    """Return the system of other levels than are promised of."""
    return ladder_system([evolve(one, **numbers) if one is rung.level else one for one in LEVELS])


def _unknown_counts() -> System:
    system = ladder_system(LEVELS)
    seen = {"leave": when(NOW.leave >= 2, 3, NOW.leave)}
    step = {name: substitute(after, seen) for name, after in system.step.items()}
    return evolve(system, step=step, allowed=substitute(system.allowed, seen))


WRONG: dict[str, tuple[System, set[tuple[str, str]]]] = {
    "the cooldown is ignored": (
        _seen_as(LOW, "cooling", term(0)),
        {("cooldown_respected", "level low")},
    ),
    "the cooldown begins one tick short": (
        _late(LOW, cooldown=49),
        {("cooldown_respected", "level low")},
    ),
    "the cooldown passes twice as fast": (
        _changed(lambda step: {"cooling low": step["cooling low"] - 1}),
        {("cooldown_respected", "level low")},
    ),
    "the cooldown does not begin": (
        _changed(lambda step: {"cooling low": step["cooling low"].arguments[2]}),
        {("cooldown_respected", "level low")},
    ),
    "`stay` lets go one tick late": (
        _late(HIGH, stay=101),
        {("dwell_bounded", "level high")},
    ),
    "`leave` needs one tick less": (
        _late(HIGH, leave=Trigger(CONDITION, 4, 6)),
        {("oscillation_bounded", "level low"), ("unknown_never_relaxes", "level high")},
    ),
    "`leave` needs one tick more": (
        _late(HIGH, leave=Trigger(CONDITION, 6, 6)),
        {("calm_returns", "")},
    ),
    "`enter` needs one tick less": (
        _late(LOW, enter=Trigger(CONDITION, 3, 6)),
        {("oscillation_bounded", "level low")},
    ),
    "unknown counts towards `leave`": (
        _unknown_counts(),
        {("unknown_never_relaxes", "level low"), ("unknown_never_relaxes", "level high")},
    ),
    "the window of `leave` is kept": (
        _kept("leaving"),
        {("unknown_never_relaxes", "level low"), ("oscillation_bounded", "level high")},
    ),
    "the window of `enter` is kept": (
        _kept("entering low"),
        {("oscillation_bounded", "level low")},
    ),
    "the time in a level is not set back": (
        _kept("since"),
        {("dwell_bounded", "level high"), ("oscillation_bounded", "level high")},
    ),
    "two rungs down at once": (
        _changed(lambda step: {"level": when(step["level"] < NOW.level, 0, step["level"])}),
        {("oscillation_bounded", "level low")},
    ),
    "the way down arms a level": (
        _changed(lambda step: {"armed": term(True)}),
        {("oscillation_bounded", "level low")},
    ),
    "what is held is never let go": (
        _changed(lambda step: {"holding low": step["holding low"] | LOW.own("holding", "Bool")}),
        {("calm_returns", "")},
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_ladder_is_not_proved(mistake: str) -> None:
    system, broken = WRONG[mistake]
    by_claim = {(one.claim.promise, one.claim.about): one for one in found(LEVELS, system)}
    for key in broken:
        assert not proved(by_claim[key]), key
