"""The systems that are proved do what the running limiter does, state by state; and z3 reads them as Python does."""

from __future__ import annotations

import math
import random

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

import lbw_policy
from lbw_policy.limits import Limiter
from lbw_policy.semantics.policy import Budget, FreezeLimit, Limits, RollbackLimit, ScaleLimit, SkipLimit
from lbw_policy.verify import hostile
from lbw_policy.verify.floats import scaling
from lbw_policy.verify.limiting import promises
from lbw_policy.verify.moving import freezing, returning, skipping
from lbw_policy.verify.progress import Means, moving, quarantining
from lbw_policy.verify.smtlib import unsatisfiable
from lbw_policy.verify.solver import check
from lbw_policy.verify.spending import spending
from lbw_policy.verify.systems import System
from lbw_policy.verify.terms import FLOAT, Value, evaluate, term, variable, variables
from lbw_policy.witness.storms import STRANGE
from tests.verify.limiter_runs import Asked, Done, Spent, Spy, any_limits, histories, run

Values = dict[str, Value]


def start(system: System, fixed: Values | None = None) -> Values:
    return {name: evaluate(first, fixed or {}) for name, first in system.start.items()}


def follow(system: System, state: Values, inputs: Values) -> Values:
    """Take one step, which must be one that the system allows."""
    assert evaluate(system.allowed, {**state, **inputs})
    assert evaluate(system.given, inputs)
    return system.run_step(state, inputs)


@settings(max_examples=40, deadline=None)
@given(limits=any_limits(), history=histories(), later=st.integers(0, 5))
def test_every_budget_is_its_system(limits: Limits, history: list[Asked], later: int) -> None:
    """State of the system: how many events there were, and the ticks of two of them, `count` apart."""
    limiter = Limiter(limits)
    spies = {name: Spy(budget) for name, budget in limiter._budgets.items()}
    limiter._budgets.update(spies)
    list(run(limiter, history))

    for name, spy in spies.items():
        chosen = spy.budget.count + later
        system, events = spending(name, spy.budget), []
        state = start(system)
        for one in spy.seen:
            state = _asked(system, state, one, chosen)
            events += [one.tick] * one.spent
            watched = {"earlier": chosen - spy.budget.count, "later": chosen}
            expected = {name: events[at] if at < len(events) else 0 for name, at in watched.items()}
            assert state == {"tick": one.tick, "spent": len(events), **expected}


def _asked(system: System, state: Values, one: Spent, chosen: int) -> Values:
    """Let the ticks pass, then ask, unless it was another budget that refused."""
    still = {"asked": False, "pause": one.tick - int(state["tick"]), "oldest": 0, "chosen": chosen}
    asks = {"asked": one.spent or not one.allows, "pause": 0, "oldest": one.oldest, "chosen": chosen}
    return follow(system, follow(system, state, still), asks)


@settings(max_examples=40, deadline=None)
@given(limits=any_limits(), row=st.integers(1, 3), history=histories())
def test_skips_in_a_row_are_their_system(limits: Limits, row: int, history: list[Asked]) -> None:
    limit = SkipLimit(row, Budget(9, 12))
    system = skipping(limit)
    state, row = start(system), 0
    for one in run(Limiter(evolve(limits, skip=limit)), history):
        asked, granted = one.asks("skip", "in a row"), one.granted("skip") is not None
        assert follow(system, state, {"asked": asked, "applied": False})["run"] == row + granted
        state, row = (
            follow(system, state, {"asked": asked, "applied": one.applied}),
            0 if one.applied else row + granted,
        )

        assert state == {"in_a_row": one.after["in_a_row"], "run": row}


@settings(max_examples=40, deadline=None)
@given(
    limits=any_limits(), limit=st.builds(RollbackLimit, st.integers(1, 20), st.just(Budget(4, 9))), history=histories()
)
def test_the_way_back_is_its_system(limits: Limits, limit: RollbackLimit, history: list[Asked]) -> None:
    system, top = returning(limit), 0
    state = start(system)
    for one in run(Limiter(evolve(limits, rollback=limit)), history):
        for target in _out_of_reach(one):
            refused = {"asked": True, "distance": _whole(one), "target": target, "applied": False}
            assert follow(system, state, refused) == state
        back = one.granted("rollback")
        target = int(back.amount or 0) if back else 0
        inputs = {"asked": back is not None, "distance": _whole(one), "target": target, "applied": one.applied}
        state, top = follow(system, state, inputs), max(top, int(one.after["progress"]))

        assert state == {"progress": one.after["progress"], "high_water": one.after["high_water"], "top": top}


def _whole(one: Done) -> int:
    """The whole part of the distance asked for: NaN is none, and an infinite one is beyond every limit."""
    grant = one.grant("rollback")
    amount = grant.request.amount if grant else None
    if amount is None or math.isnan(amount):
        return 0
    return math.floor(amount) if math.isfinite(amount) else int(math.copysign(1e6, amount))


def _out_of_reach(one: Done) -> tuple[int, ...]:
    grant = one.grant("rollback")
    return one.situation.snapshots if grant and "no healthy snapshot" in grant.reason else ()


@settings(max_examples=40, deadline=None)
@given(limits=any_limits(), duration=st.integers(1, 6), history=histories())
def test_freezes_are_their_system(limits: Limits, duration: int, history: list[Asked]) -> None:
    limit = FreezeLimit(0.5, duration)
    system = freezing(limit)
    state = start(system)
    for one in run(Limiter(evolve(limits, freeze=limit)), history):
        assert state["tick"] == one.tick
        asks = one.asks("freeze", "layers were frozen", "layers rest")
        state = follow(system, state, {"asked": asks, "missed": one.pause - 1})

        assert (state["frozen_for"], state["rest_until"]) == (one.after["frozen_for"], one.after["rest_until"])
        assert state["run"] == one.after["frozen_for"]


@settings(max_examples=40, deadline=None)
@given(limits=any_limits(), high=st.floats(0.2, 1.0), history=histories())
def test_the_lr_factor_is_its_system(limits: Limits, high: float, history: list[Asked]) -> None:
    system = scaling(0.2, high)
    state = start(system)
    for one in run(Limiter(evolve(limits, scale_lr=ScaleLimit(0.2, high))), history):
        grant = one.grant("scale_lr")
        amount = math.nan if grant is None or grant.request.amount is None else grant.request.amount
        paid = grant is not None and "spent" not in grant.reason
        state = follow(system, state, {"asked": grant is not None, "amount": amount, "paid": paid})

        assert state == {"scale": one.after["scale"], "granted": one.granted("scale_lr") is not None}


@settings(max_examples=40, deadline=None)
@given(limits=any_limits(), history=histories(faithful=True), begin=st.integers(0, 39))
def test_any_stretch_of_a_run_is_one_of_the_system(limits: Limits, history: list[Asked], begin: int) -> None:
    """What the system assumes of skips and rollbacks is what the limiter grants."""
    system, done = moving(Means(limits)), list(run(Limiter(limits), history))[begin:]
    if not done:
        return
    first = done[0].before
    fixed = {"first": first["progress"], "top": first["high_water"], "before": first["in_a_row"]}
    state = start(system, fixed)
    for one in done:
        skip, back = one.granted("skip"), one.granted("rollback")
        inputs = {"skip": skip is not None, "back": back is not None, "target": int((back and back.amount) or 0)}
        state = follow(system, state, {**inputs, **fixed})

        assert (state["progress"], state["high_water"]) == (one.after["progress"], one.after["high_water"])
        assert state["run"] == one.after["in_a_row"]
    assert state["updates"] == sum(one.applied for one in done)


def test_the_quarantine_is_its_system() -> None:
    policy = lbw_policy.load("transformer_pretraining")
    levels = tuple(evolve(level, settles=None) for level in policy.levels)  # then all above the calm one are suspicious
    policy = evolve(policy, levels=levels, quarantine=9)
    calm, system = policy.levels[0].name, quarantining(policy.quarantine)
    for run_ in hostile.runs(policy, floods=0, streams=3):
        state = start(system)
        for one in run_.seen:
            assert one.decision is not None
            suspicious = bool(one.decision.fired) or (one.decision.previous, one.decision.level) != (calm, calm)
            state = follow(system, state, {"suspicious": suspicious})

            assert (state["kept"] > 0) == one.decision.quarantined


@pytest.mark.parametrize("preset", ["conservative", "transformer_pretraining"])
def test_z3_takes_the_same_steps_as_python(preset: str) -> None:
    draw = random.Random(preset)  # noqa: S311 - values for a test
    systems = {one.system.name: one.system for each in promises(lbw_policy.load(preset)) for one in each.inductions}
    for system in systems.values():
        for _ in range(3):
            values = {name: _drawn(draw, sort) for name, sort in _sorts(system).items()}
            after = system.run_step(values, values)
            known = [variable(name, _sorts(system)[name]).same(value) for name, value in values.items()]
            for name, value in after.items():
                assert check(unsatisfiable(*known, ~system.step[name].same(term(value)))).verdict == "unsat"


def _sorts(system: System) -> dict[str, str]:
    state = {name: after.sort for name, after in system.step.items()}
    return {**{name: one.sort for name, one in variables(*system.step.values()).items()}, **state}


def _drawn(draw: random.Random, sort: str) -> Value:
    if sort == "Bool":
        return draw.random() < 0.5
    return draw.choice((*STRANGE, 0.3)) if sort == FLOAT else draw.choice((0, 1, 7, 8, 9, 50, 200, 256, 1000))
