"""Calm leads back to normal and to a whole lr factor as soon as is promised, in the proof and in the running ladder."""

from __future__ import annotations

import sys

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lbw_policy
from lbw_policy.machine.ladder import Ladder, Truths
from lbw_policy.semantics.ceilings import SCALE_FLOOR, TIMER
from lbw_policy.semantics.expressions import Constant, Finite, Reading, Truth
from lbw_policy.semantics.policy import Level, ScaleLr, Trigger
from lbw_policy.verify import solver
from lbw_policy.verify.calm import promises, restored, restores_of, ticks_to_normal
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.rungs import rungs_of
from lbw_policy.verify.systems import Induction
from tests.strategies import ladders

F, T = int(Truth.FALSE), int(Truth.TRUE)
needs_z3 = pytest.mark.skipif(not solver.available(), reason="z3 is not installed")


def holds(what: Induction | Promise) -> bool:
    scripts = [one.script for one in (what.everything() if isinstance(what, Promise) else what.obligations())]
    return all(solver.check(script).verdict == solver.UNSAT for script in scripts)


@pytest.mark.parametrize(("preset", "bounds"), [("conservative", [39, 1040]), ("transformer_pretraining", [59, 1060])])
@needs_z3
def test_the_presets_come_back(preset: str, bounds: list[int]) -> None:
    found = promises(lbw_policy.load(preset))

    assert [one.claim.bound for one in found] == bounds
    assert all(holds(one) for one in found)


def test_a_policy_without_levels_promises_no_return() -> None:
    assert promises(lbw_policy.load("monitor")) == ()


@needs_z3
def test_a_level_that_nothing_ends_is_not_proved_to_end() -> None:
    policy = lbw_policy.load("conservative")
    stuck = evolve(policy.levels[4], leave=None, stay=None)
    (promise,) = promises(evolve(policy, levels=(*policy.levels[:4], stuck)))

    assert promise.claim.bound is None
    assert promise.claim.sentence == "calm leads back to `normal`; `recover` has neither `leave` nor `stay`"
    assert not holds(promise)


# The lr factor


@pytest.mark.parametrize("over", [1, 2, 20, TIMER])
@needs_z3
def test_a_factor_is_whole_after_its_restore_and_one_tick(over: int) -> None:
    induction = restored(over)

    assert holds(induction)
    for one in induction.invariants:
        assert not holds(evolve(induction, invariants=tuple(each for each in induction.invariants if each is not one)))


def let_go(factor: float, over: int) -> tuple[Ladder, list[float]]:
    """Return the factor in each of the `over` ticks, and one more, after its level was left."""
    trigger = Trigger(Finite(Reading("loss")))
    level = Level("c", trigger, trigger, actions=(ScaleLr(Constant(0.5), restore=over),))
    ladder, quiet = Ladder((Level("n"), level)), Truths((None, F), T)
    now, _ = ladder.advance(ladder.start(), Truths((None, T), None))
    now, _ = ladder.advance(ladder.scale(now, 1, factor), quiet)
    found = []
    for _ in range(over + 1):
        now, _ = ladder.advance(now, quiet)
        found.append(now.factors[1])
    return ladder, found


@settings(deadline=None)
@given(st.floats(SCALE_FLOOR, 1.0) | st.floats(0.0, 1e-9).map(lambda gap: 1.0 - gap), st.integers(1, 300))
@example(1.0 - sys.float_info.epsilon / 2, 20)
@example(SCALE_FLOOR, 49)
def test_no_factor_is_lost_to_rounding(factor: float, over: int) -> None:
    """One just below 1 would stay there for ever, were a twentieth of its gap added a tick."""
    _, found = let_go(factor, over)

    assert found[-1] == 1.0
    assert found == sorted(found)


@st.composite
def scaling(draw: st.DrawFn) -> Ladder:
    ladder = draw(ladders())
    over = st.integers(1, 5).map(lambda restore: (ScaleLr(Constant(0.5), restore=restore),))
    return Ladder((ladder.levels[0], *(evolve(one, actions=draw(over)) for one in ladder.levels[1:])))


@settings(deadline=None, max_examples=60)
@given(scaling(), st.data())
def test_calm_brings_the_running_ladder_back_in_time(ladder: Ladder, data: st.DataObject) -> None:
    bound, value = ticks_to_normal(rungs_of(ladder.levels)) or 0, st.sampled_from((F, T))
    enter = st.tuples(st.none(), *(value for _ in ladder.levels[1:]))
    now = ladder.start()
    for truths in data.draw(st.lists(st.builds(Truths, enter, value), max_size=20)):
        now, entered = ladder.advance(now, truths)
        now = ladder.scale(ladder.fresh(now), now.level, 0.37) if entered else now
    quiet = Truths((None, *(F for _ in ladder.levels[1:])), T)
    for _ in range(bound):
        now, _ = ladder.advance(now, quiet)
    assert now.level == 0
    assert not any(now.holding)
    for _ in range(max(restores_of(ladder.levels), default=0) + 1):
        now, _ = ladder.advance(now, quiet)
    assert ladder.at_rest(now)
