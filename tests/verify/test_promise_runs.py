"""Hostile runs of the running code find no violation in it, and find each mistake that is made in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from attrs import evolve

import lbw_policy
from lbw_policy.limits import Limiter, limiter
from lbw_policy.limits.budget import SlidingBudget
from lbw_policy.machine import Session, StateMachine
from lbw_policy.resources import presets
from lbw_policy.semantics import policy as p
from lbw_policy.verify.hostile import Run, runs
from lbw_policy.verify.limiting import promises
from lbw_policy.verify.monitors import Watched, monitor_of

TIGHT = p.Limits(
    scale_lr=p.ScaleLimit(0.3, 0.9),
    skip=p.SkipLimit(2, p.Budget(9, 40)),
    clip=p.Budget(5, 30),
    rollback=p.RollbackLimit(12, p.Budget(3, 60), spacing=7),
    freeze=p.FreezeLimit(0.25, 4),
    intervene=p.Budget(60, 100),
    custom=(p.CustomLimit("boost", -0.5, 0.25, p.Budget(2, 30)),),
)


def policy() -> p.Policy:
    return evolve(lbw_policy.load("transformer_pretraining"), limits=TIGHT, parent=None, quarantine=20)


@cache
def clean() -> tuple[Run, ...]:
    return runs(policy())


def broken(of: p.Policy, found: tuple[Run, ...]) -> set[str]:
    """Return the claims, by what they are about, that some run breaks."""
    named = {one.claim.about or one.claim.promise: one.claim for one in promises(of)}
    watched = [(name, monitor_of(claim), claim) for name, claim in named.items()]
    return {name for name, judge, claim in watched for run in found if judge and judge(Watched(of, claim, run))}


@pytest.mark.parametrize("preset", presets())
def test_no_hostile_run_of_a_preset_breaks_a_claim(preset: str) -> None:
    found = lbw_policy.load(preset)

    assert not broken(found, runs(found))


def test_the_same_policy_meets_the_same_runs() -> None:
    found = lbw_policy.load("conservative")
    one, other = (repr(runs(found, floods=2, streams=1)) for _ in range(2))

    assert one == other
    assert one != repr(runs(found, seed=1, floods=2, streams=1))


def test_hostile_runs_reach_every_limit_and_every_level() -> None:
    """Runs that never meet a limit would test nothing."""
    grants = [grant for run in clean() for one in run.seen for grant in one.grants]
    actions = {(grant.request.action, grant.outcome.value) for grant in grants}
    levels = {one.decision.level for run in clean() for one in run.seen if one.decision}

    for action in ("skip", "clip", "rollback", "freeze", "scale_lr", "boost"):
        assert {(action, "granted"), (action, "refused")} <= actions
    assert levels == {level.name for level in policy().levels}


def test_every_claim_about_limits_has_a_monitor() -> None:
    assert all(monitor_of(one.claim) for one in promises(policy()))
    assert not broken(policy(), clean())


# Mistakes


Mistake = Callable[[pytest.MonkeyPatch], None]


def window_off_by_one(patch: pytest.MonkeyPatch) -> None:
    def allows(self: SlidingBudget, tick: int) -> bool:
        ticks = self.state()
        return len(ticks) < self.budget.count or ticks[0] <= tick - self.budget.window + 1

    patch.setattr(SlidingBudget, "allows", allows)


def clamp_that_leaks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limiter, "clamp", lambda value, low, high: min(max(value, low), high))


def row_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Limiter, "_skip", lambda self, tick, request, limit: self._spend(tick, _granted(request)))


def _granted(request: limiter.Request) -> limiter.Grant:
    return limiter.Grant(request, limiter.Outcome.GRANTED)


def high_water_forgotten(patch: pytest.MonkeyPatch) -> None:
    def stepped(self: Limiter, applied: bool) -> None:
        self.progress += applied
        self.in_a_row = 0 if applied else self.in_a_row
        self.high_water = self.progress

    patch.setattr(Limiter, "stepped", stepped)


def pause_forgotten(patch: pytest.MonkeyPatch) -> None:
    def settle(self: Limiter, tick: int, frozen: bool) -> None:
        self.frozen_for = self.frozen_for + 1 if frozen else 0

    patch.setattr(Limiter, "_settle_freeze", settle)


def freeze_without_end(patch: pytest.MonkeyPatch) -> None:
    def settle(self: Limiter, tick: int, frozen: bool) -> None:
        self.rest_until = tick + self.frozen_for if self.frozen_for and not frozen else self.rest_until
        self.frozen_for = min(self.frozen_for + 1, 3) if frozen else 0

    patch.setattr(Limiter, "_settle_freeze", settle)


def clip_that_loosens(patch: pytest.MonkeyPatch) -> None:
    def clip(self: Limiter, tick: int, request: limiter.Request, norm: float | None) -> limiter.Grant:
        return self._spend(tick, evolve(_granted(request), amount=abs(request.amount or 1.0) / (norm or 1.0)))

    patch.setattr(Limiter, "_clip", clip)


def budgets_reset_on_resume(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SlidingBudget, "restore", lambda self, ticks: None)


def spacing_ignored(patch: pytest.MonkeyPatch) -> None:
    def allows(self: SlidingBudget, tick: int) -> bool:
        ticks, budget = self.state(), self.budget
        return budget == p.Budget(1, 7) or len(ticks) < budget.count or ticks[0] <= tick - budget.window

    patch.setattr(SlidingBudget, "allows", allows)


def grants_what_no_limit_allows(patch: pytest.MonkeyPatch) -> None:
    answer = Limiter._answer

    def eager(self: Limiter, tick: int, request: limiter.Request, situation: limiter.Situation) -> limiter.Grant:
        return _granted(request) if "limit" in request.action else answer(self, tick, request, situation)

    patch.setattr(Limiter, "_answer", eager)


def quarantine_without_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StateMachine, "_quarantine", lambda self, suspicious: suspicious)


def a_timer_not_saved(patch: pytest.MonkeyPatch) -> None:
    save = Session.state_dict

    def forgetful(self: Session) -> dict[str, Any]:
        state = save(self)
        return {**state, "machine": {**state["machine"], "quarantine_run": 0}}

    patch.setattr(Session, "state_dict", forgetful)


MISTAKES: dict[Mistake, set[str]] = {
    window_off_by_one: {"skip", "clip", "boost"},
    clamp_that_leaks: {"scale_lr", "amount of boost"},
    row_not_counted: {"skip in a row"},
    high_water_forgotten: {"rollback distance"},
    pause_forgotten: {"freeze pause"},
    freeze_without_end: {"freeze duration"},
    clip_that_loosens: {"clip never loosens"},
    budgets_reset_on_resume: {"clip"},
    spacing_ignored: {"rollback spacing"},
    grants_what_no_limit_allows: {"all else"},
    quarantine_without_end: {"baselines"},
    a_timer_not_saved: {"survives_resume"},
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_in_the_running_code_is_found(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake(monkeypatch)
    of_the_session = mistake in (quarantine_without_end, a_timer_not_saved)
    found = runs(policy(), floods=0) if of_the_session else runs(policy(), streams=0)

    assert MISTAKES[mistake] <= broken(policy(), found)


def test_what_limits_mean_together_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limiter that grants every skip and rollback gains less than its limits promise, and stalls."""
    monkeypatch.setattr(SlidingBudget, "allows", lambda self, tick: True)
    row_not_counted(monkeypatch)

    assert {"progress_guaranteed", "skip_cannot_livelock"} <= broken(policy(), runs(policy(), streams=0))
