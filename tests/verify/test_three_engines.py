"""Runtime, reference and the systems that are proved go through the same runs of the same policies, state by state."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from attrs import define, evolve, field
from hypothesis import HealthCheck, Phase, given, seed, settings

from lbw_policy.limits import Limiter, Request, Situation
from lbw_policy.limits.budget import SlidingBudget
from lbw_policy.machine import Session
from lbw_policy.machine.ladder import Configuration, Truths
from lbw_policy.semantics import load
from lbw_policy.semantics.expressions import Truth
from lbw_policy.semantics.policy import FreezeLimit, Policy
from lbw_policy.verify.floats import scaling
from lbw_policy.verify.moving import freezing, returning, skipping
from lbw_policy.verify.progress import quarantining
from lbw_policy.verify.rungs import NOW, inputs_of, ladder_system, rungs_of, state_of
from lbw_policy.verify.spending import spending
from lbw_policy.verify.systems import System
from lbw_policy.verify.terms import Value, evaluate
from tests.machine import flickers
from tests.machine.reference_limiter import Limiting
from tests.machine.reference_session import Heard, ReferenceSession, Was
from tests.verify.limiter_runs import Done, Spy, counters

Values = dict[str, Value]


@define
class Model:
    """A system and where it stands."""

    system: System
    state: Values = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.state = {name: evaluate(first, {}) for name, first in self.system.start.items()}

    def step(self, inputs: Values) -> Values:
        """Take one step, which must be one that the system allows."""
        assert evaluate(self.system.allowed, {**self.state, **inputs})
        self.state = self.system.run_step(self.state, inputs)
        return self.state


@define
class Three:
    """One policy under all three."""

    policy: Policy
    session: Session = field(init=False)
    reference: ReferenceSession = field(init=False)
    ladder: Model = field(init=False)
    quarantine: Model = field(init=False)
    limits: dict[str, Model] = field(init=False)
    spies: dict[str, Spy] = field(init=False)
    met: Counter[str] = field(factory=Counter)

    def __attrs_post_init__(self) -> None:
        self.session, self.reference = Session(self.policy), ReferenceSession(self.policy)
        self.ladder = Model(ladder_system(self.policy.levels))
        self.quarantine = Model(quarantining(self.policy.quarantine))
        limits = self.policy.limits
        found = {
            "skip": limits.skip and skipping(limits.skip),
            "rollback": limits.rollback and returning(limits.rollback),
            "freeze": limits.freeze and freezing(limits.freeze),
            "scale_lr": limits.scale_lr and scaling(limits.scale_lr.low, limits.scale_lr.high),
        }
        self.limits = {name: Model(system) for name, system in found.items() if system}
        self.spies = {name: Spy(budget) for name, budget in self.session.limiter._budgets.items()}
        self.session.limiter._budgets.update(self.spies)

    def tick(self, heard: Heard, *, fails: bool) -> None:
        """Let all three go through one tick, and compare them."""
        standing = self.session.machine.configuration
        was, done = self._both(heard, fails=fails)
        self._compare_ladders(was, standing)
        self._compare_quarantines(was)
        for name in self.limits:
            COMPARE[name](self, done)
        self.met.update(f"{one.request.action} {one.outcome.value}" for one in done.grants)
        self.met.update(["rose"] * was.rose + ["fell"] * (was.moved and not was.rose))

    def _both(self, heard: Heard, *, fails: bool) -> tuple[Was, Done]:
        def impossible(request: Request) -> str | None:
            return "it cannot be done now" if request.action in heard.impossible else None

        session = self.session
        session.begin(heard.values)
        before, healthy = counters(session.limiter), session.schedule.healthy() if session.schedule else ()
        turn = session.decide(heard.risks, heard.norm, impossible, heard.layer_norm)
        applied = turn.updates and not fails
        was, tick = self.reference.tick(heard), session.tick
        session.finish(applied=applied)
        self.reference.finish(applied=applied)
        return was, Done(tick, 1, Situation(healthy), turn.grants, applied, before, counters(session.limiter))

    # Levels

    def _compare_ladders(self, was: Was, standing: Configuration) -> None:
        levels, before = self.policy.levels, self.ladder.state
        inputs = self._told(was)
        assert inputs == inputs_of(levels, standing, Truths(was.enter, was.leave))
        model = self.ladder.step(inputs)
        assert model == state_of(levels, self.session.machine.configuration), before
        for name, value in self._stands().items():
            assert model[name] == value, name

    def _told(self, was: Was) -> Values:
        """Return the inputs of a tick, with what falls out of the windows, from what the reference remembers."""
        past = self.reference.past[:-1]
        here = _last(past, lambda one: one.moved)
        leave = self.policy.levels[was.previous].leave
        counted = [one.leave == Truth.TRUE for one in past[here:]]
        inputs: Values = {NOW.leave.name: int(was.leave or 0), NOW.lost.name: _lost(counted, leave and leave.window)}
        for rung in rungs_of(self.policy.levels):
            place, enter = rung.place, rung.level.enter
            seen = past[_last(past, lambda one, place=place: one.moved and one.level == place) :]
            counted = [(one.enter[place] or 0) >= Truth.UNKNOWN for one in seen]
            inputs[rung.own("enter").name] = int(was.enter[place] or 0)
            inputs[rung.own("lost").name] = _lost(counted, enter and enter.window)
        return inputs

    def _stands(self) -> Values:
        """Return where the reference stands, by the variables of the system."""
        past, level = self.reference.past, self.reference.past[-1].level
        since = self.reference.since() if level else 0
        found: Values = {NOW.level.name: level, NOW.since.name: since, NOW.armed.name: self.reference._risen()}
        for rung in rungs_of(self.policy.levels):
            place = rung.place
            left = _last(past, lambda one, place=place: one.previous == place and one.level < place)
            cooling = rung.level.cooldown - (len(past) - left) if left else 0
            found[rung.own("cooling").name] = max(0, cooling)
            found[rung.own("holding").name] = self.reference.risen_at(place) is not None
        return found

    def _compare_quarantines(self, was: Was) -> None:
        suspicious = self.reference.suspicious(len(self.reference.past) - 1)
        state = self.quarantine.step({"suspicious": suspicious})
        assert state["quarantine_run"] == self.session.machine.quarantine_run
        assert (state["kept"] > 0) == was.quarantined

    # Limits

    def _compare_skips(self, done: Done) -> None:
        asked = done.asks("skip", "in a row")
        row = self.limits["skip"].step({"asked": asked, "applied": done.applied})
        assert row["in_a_row"] == row["run"] == done.after["in_a_row"] == self.reference.limiting._skipped_in_a_row()

    def _compare_ways_back(self, done: Done) -> None:
        model, back, grant = self.limits["rollback"], done.granted("rollback"), done.grant("rollback")
        distance = _whole(grant.request.amount) if grant else 0
        if grant and "no healthy snapshot" in grant.reason:
            for target in done.situation.snapshots:
                tried = {"asked": True, "distance": distance, "target": target, "applied": False}
                assert model.system.run_step(model.state, tried) == model.state
        target = int(back.amount or 0) if back else 0
        state = model.step({"asked": back is not None, "distance": distance, "target": target, "applied": done.applied})
        assert state["high_water"] == state["top"]
        assert (state["progress"], state["high_water"]) == (done.after["progress"], done.after["high_water"])
        assert (state["progress"], state["high_water"]) == self.reference.limiting.progress()

    def _compare_freezes(self, done: Done) -> None:
        asked = done.asks("freeze", "layers were frozen", "layers rest")
        state, limiting = self.limits["freeze"].step({"asked": asked, "missed": 0}), self.reference.limiting
        assert state["frozen_for"] == state["run"] == done.after["frozen_for"] == limiting._frozen_for()
        assert state["rest_until"] == done.after["rest_until"] == limiting._resting_until()

    def _compare_factors(self, done: Done) -> None:
        grant = done.grant("scale_lr")
        asked = grant is not None and "cannot be done" not in grant.reason
        amount = grant.request.amount if grant and grant.request.amount is not None else math.nan
        paid = grant is not None and "spent" not in grant.reason
        state = self.limits["scale_lr"].step({"asked": asked, "amount": amount, "paid": paid})
        assert state["scale"] == done.after["scale"] == self.reference.limiting._factor_before()
        assert state["granted"] == (done.granted("scale_lr") is not None)

    def compare_budgets(self) -> None:
        """Compare every budget, over the whole run: what was spent, and the last of it, which the limiter remembers."""
        for name, spy in self.spies.items():
            action = "rollback" if name == "rollback apart" else name
            ticks = [tick for one, tick in self.reference.limiting.spent if one == action]
            assert spy.inner.state() == ticks[-spy.budget.count :]
            assert _replayed(name, spy) == len(ticks)
            for tick in ticks:
                assert sum(tick - spy.budget.window < one <= tick for one in ticks) <= spy.budget.count
            self.met.update([f"{name} spent"] * any(not one.allows for one in spy.seen))


COMPARE = {
    "skip": Three._compare_skips,
    "rollback": Three._compare_ways_back,
    "freeze": Three._compare_freezes,
    "scale_lr": Three._compare_factors,
}


def _replayed(name: str, spy: Spy) -> int:
    """Return how many events the budget's system grants where the running budget was asked the same."""
    model, chosen = Model(spending(name, spy.budget)), spy.budget.count
    for one in spy.seen:
        pause = one.tick - int(model.state["tick"])
        model.step({"asked": False, "pause": pause, "oldest": 0, "chosen": chosen})
        asked = one.spent or not one.allows  # else another budget refused
        model.step({"asked": asked, "pause": 0, "oldest": one.oldest, "chosen": chosen})
    return int(model.state["spent"])


def _last(past: list[Was], wanted: Callable[[Was], bool]) -> int:
    """Return the place behind the last tick that is wanted, 0 if there is none."""
    return next((at + 1 for at in reversed(range(len(past))) if wanted(past[at])), 0)


def _lost(counted: list[bool], window: int | None) -> int:
    """Return whether the tick that falls out of a window counted."""
    return int(window is not None and len(counted) >= window and counted[-window])


def _whole(amount: float | None) -> int:
    if amount is None or math.isnan(amount):
        return 0
    return math.floor(amount) if math.isfinite(amount) else int(math.copysign(1e6, amount))


def through(policy: Policy, run: list[Heard]) -> Counter[str]:
    """Take all three through a run, and return what was met."""
    three = Three(policy)
    for count, heard in enumerate(run):
        three.tick(heard, fails=count % 11 == 10)
    three.compare_budgets()
    return three.met


ORDINARY = {
    *(f"{action} refused" for action in ("skip", "rollback", "freeze", "scale_lr")),
    *("skip granted", "freeze granted", "scale_lr reduced", "rose", "fell"),
}
"""What drawn runs must bring about, lest all three agree on nothing."""


def test_all_three_take_the_same_steps() -> None:
    met = Counter[str]()

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(policy=flickers.policies(), run=flickers.runs())
    def check(policy: Policy, run: list[Heard]) -> None:
        met.update(through(policy, run))

    check()
    assert set(met) >= ORDINARY


LIMITED = """lbw 1
policy limited { snapshot every 2 steps }
signal loss = telemetry.loss
reflex broken { when not finite(loss)  do skip else scale_lr by 0.5 }
reflex high { when loss > 8  do rollback at most 8 steps }
levels normal -> caution
level caution {
  enter when loss > 5  leave when loss < 2 for 3 steps  stay at most 9 steps  cooldown 2 steps
  do freeze top 10% of layers by grad_norm  do scale_lr by 0.5 restore over 3 steps
}
limits {
  scale_lr  within [0.1, 1]
  skip      at most 2 in a row, at most 5 per 30 steps
  rollback  at most 8 steps back, at most 2 per 40 steps, at least 4 steps apart
  freeze    at most 50% of layers, for at most 4 steps
  intervene at most 11 per 60 steps
}
"""
EVERY = {
    *(f"{action} {outcome}" for action in ("skip", "rollback", "freeze") for outcome in ("granted", "refused")),
    *(f"scale_lr {outcome}" for outcome in ("granted", "reduced", "refused")),
    *("skip spent", "rollback spent", "rollback apart spent", "intervene spent", "rose", "fell"),
}


def test_all_three_take_the_same_steps_where_every_limit_is_met() -> None:
    calm, bad, high, nan = (1.0,), (6.0,), (9.0,), (math.nan,)
    losses = [*calm * 9, *nan * 4, *calm * 2, *nan * 2, *calm * 2, *nan * 2, *calm * 8, *high, *calm, *high, *calm * 8]
    losses += [*high, *calm * 7, *high, *calm * 4, *bad * 12, *calm * 5, *(*high, *nan) * 9, *calm * 5]

    assert set(through(load(LIMITED), [Heard({"loss": loss}) for loss in losses])) >= EVERY


# Mistakes, one in each of the three


def _late_stay(reference: ReferenceSession, level: int) -> bool:
    stay = reference.policy.levels[level].stay
    return stay is not None and reference.since() >= stay


def _kept_enter(reference: ReferenceSession, index: int, present: int | None) -> bool:
    """Tell whether `enter` fires if its count is not set back when the level is entered."""
    trigger = reference.policy.levels[index].enter
    if trigger is None:
        return False
    seen = [*(was.enter[index] for was in reference.past), present][-trigger.window :]
    return sum((truth or 0) >= Truth.UNKNOWN for truth in seen) >= trigger.count


def _long_window(budget: SlidingBudget, tick: int) -> bool:
    ticks = budget.state()
    return len(ticks) < budget.budget.count or ticks[0] < tick - budget.budget.window


def _no_pause(limiter: Limiter, _: int, frozen: bool) -> None:
    limiter.frozen_for = limiter.frozen_for + 1 if frozen else 0


def _short_freezes(limit: FreezeLimit, real: Callable[[FreezeLimit], System] = freezing) -> System:
    return real(evolve(limit, duration=limit.duration - 1))


WRONG = {
    "reference: `stay` is a tick too long": (ReferenceSession, "_overstayed", _late_stay),
    "reference: the count of `enter` is kept": (ReferenceSession, "_count", _kept_enter),
    "reference: layers rest for ever": (Limiting, "_resting_until", lambda _: 10**9),
    "runtime: a budget's window is a tick too long": (SlidingBudget, "allows", _long_window),
    "runtime: a freeze is followed by no pause": (Limiter, "_settle_freeze", _no_pause),
    "model: a freeze is a tick shorter": (sys.modules[__name__], "freezing", _short_freezes),
    "model: a quarantine is a tick longer": (
        sys.modules[__name__],
        "quarantining",
        lambda ticks, real=quarantining: real(ticks + 1),
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_in_one_of_the_three_is_noticed(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*WRONG[mistake])

    @seed(1)
    @settings(max_examples=200, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(policy=flickers.policies(), run=flickers.runs())
    def check(policy: Policy, run: list[Heard]) -> None:
        through(policy, run)

    with pytest.raises(AssertionError):
        check()
