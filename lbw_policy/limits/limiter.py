"""The single door between a decision and an action: grants, reduces or refuses every request.

Whatever the telemetry, the risk model or a plugin made the machine ask for, what leaves this
module stays inside the policy's limits. It is pure (no clock, no model, no optimizer), keeps every
budget in ticks, and its state is saved with the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from lbw_policy import saved
from lbw_policy.errors import StateError
from lbw_policy.limits.budget import SlidingBudget, clamp
from lbw_policy.limits.requests import Grant, Outcome, Request, Situation
from lbw_policy.semantics.policy import (
    Budget,
    CustomLimit,
    FreezeLimit,
    Limits,
    RollbackLimit,
    ScaleLimit,
    SkipLimit,
)

_FIRST, _LAST = ("halt", "checkpoint", "rollback", "skip", "reset_moments"), ("freeze", "clip", "scale_lr")
ORDER = (*_FIRST, *_LAST)
"""The order in which one tick's requests are answered; those of plugins, by name, come before `freeze`."""

_TURNS = {action: (turn if action in _FIRST else turn + 1, "") for turn, action in enumerate(ORDER)}
_BUILT_IN = frozenset(ORDER)
_APART = "rollback apart"
_COUNTERS = ("progress", "high_water", "in_a_row", "frozen_for", "rest_until")
# INVARIANT: a float holds every counter exactly, so a distance from one is not rounded.
_MOST = 2**53


class Limiter:
    """Answers requests within the limits; `progress` counts accepted updates in the present history.

    Call `rule` once a tick, then `stepped` once the tick's outcome is known.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.progress = 0
        self.high_water = 0
        self.scale = 1.0
        self.in_a_row = 0
        self.frozen_for = 0
        self.rest_until = 0
        self.last_tick = -1
        self._custom = {limit.name: limit for limit in limits.custom}
        self._budgets = {name: SlidingBudget(budget) for name, budget in _budgets(limits).items()}

    def rule(self, tick: int, requests: Sequence[Request], situation: Situation) -> tuple[Grant, ...]:
        """Answer one tick's requests, in the order of `ORDER`; raises ValueError if a tick comes twice."""
        if tick <= self.last_tick:
            raise ValueError(f"expected a tick after {self.last_tick}, found {tick}")
        self.last_tick = tick
        if not requests and not self.frozen_for:  # most ticks: nothing to answer, nothing to settle
            self.scale = 1.0
            return ()
        grants = _whole(self._answers(tick, requests, situation))
        self._settle(tick, grants)
        return tuple(grants)

    def stepped(self, applied: bool) -> None:
        """Record whether the tick ended in an accepted update."""
        if applied:
            self.progress += 1
            self.in_a_row = 0
            self.high_water = max(self.high_water, self.progress)

    def left(self, tick: int, action: str) -> int | None:
        """Return how many more interventions of a kind this tick may begin, None where no budget bounds them."""
        bounding = [self._budgets[name] for name in (action, "intervene") if name in self._budgets]
        return min((budget.left(tick) for budget in bounding), default=None)

    def factor_at(self, tick: int) -> float:
        """Return the lr factor granted at the last tick, 1 where nothing was ruled in it or nothing lowers it."""
        return self.scale if self.last_tick == tick else 1.0

    # Answers

    def _answers(self, tick: int, requests: Sequence[Request], situation: Situation) -> list[Grant]:
        waiting = {request.action: request for request in requests}
        grants: list[Grant] = []
        while waiting:
            request = waiting.pop(min(waiting, key=_turn))
            if _superseded(request.action, grants):
                continue
            grants.append(self._answer(tick, request, situation))
            if grants[-1].outcome is Outcome.REFUSED:
                grants[-1] = _with_fallback(grants, waiting, situation)
        return grants

    def _answer(self, tick: int, request: Request, situation: Situation) -> Grant:
        reason = situation.impossible(request)
        if reason is not None:
            return _refuse(request, reason)
        limit = (
            getattr(self.limits, request.action) if request.action in _BUILT_IN else self._custom.get(request.action)
        )
        if request.action == "halt":
            return Grant(request, Outcome.GRANTED)
        if request.action == "clip":
            return self._clip(tick, request, situation.layer_norm if request.layers else situation.grad_norm)
        if limit is None:
            return _refuse(request, "the policy has no limit for it")
        if isinstance(limit, RollbackLimit):
            return self._rollback(tick, request, limit, situation.snapshots)
        if isinstance(limit, SkipLimit):
            return self._skip(tick, request, limit)
        if isinstance(limit, FreezeLimit):
            return self._freeze(tick, request, limit)
        if isinstance(limit, ScaleLimit):
            return self._scale(tick, request, limit)
        if isinstance(limit, CustomLimit) and limit.low is not None and limit.high is not None:
            return self._amount(tick, request, limit.low, limit.high)
        return self._spend(tick, Grant(request, Outcome.GRANTED))

    def _skip(self, tick: int, request: Request, limit: SkipLimit) -> Grant:
        if self.in_a_row >= limit.in_a_row:
            return _refuse(request, f"{limit.in_a_row} updates in a row were skipped")
        return self._spend(tick, Grant(request, Outcome.GRANTED))

    def _rollback(self, tick: int, request: Request, limit: RollbackLimit, snapshots: tuple[int, ...]) -> Grant:
        # INVARIANT: distance counts from the high-water mark, so rollbacks in a row cannot add up.
        distance = clamp(_number(request.amount), 0, limit.distance)
        reachable = [progress for progress in snapshots if self.high_water - distance <= progress <= self.progress]
        if not reachable:
            return _refuse(request, f"no healthy snapshot within {distance:g} steps of step {self.high_water}")
        apart = self._budgets.get(_APART)
        if apart and not apart.allows(tick):
            return _refuse(request, f"the last rollback is less than {limit.spacing} steps ago")
        outcome = Outcome.GRANTED if request.amount == distance else Outcome.REDUCED
        answer = self._spend(tick, Grant(request, outcome, max(reachable)))
        if apart and answer.outcome is not Outcome.REFUSED:
            apart.spend(tick)
        return answer

    def _clip(self, tick: int, request: Request, norm: float | None) -> Grant:
        if self.limits.clip is None and self.limits.intervene is None:
            return _refuse(request, "the policy has no limit for it")
        to = _number(request.amount)
        if norm is None or not math.isfinite(norm) or not math.isfinite(to) or to < 0:
            return _refuse(request, "the norm of the gradients, or the norm asked for, is not a finite number")
        if norm <= to:
            return Grant(request, Outcome.GRANTED, 1.0, "the gradients are within the norm", starts=False)
        # INVARIANT: a clip only ever shrinks gradients.
        return self._spend(tick, Grant(request, Outcome.GRANTED, clamp(to / norm, 0.0, 1.0)))

    def _freeze(self, tick: int, request: Request, limit: FreezeLimit) -> Grant:
        share = clamp(_number(request.amount), 0.0, limit.share)
        if share <= 0.0:
            return _refuse(request, "no share of layers to freeze")
        if self.frozen_for >= limit.duration:
            return _refuse(request, f"layers were frozen for {limit.duration} steps")
        if tick < self.rest_until:
            return _refuse(request, f"layers rest until step {self.rest_until}")
        outcome = Outcome.GRANTED if request.amount == share else Outcome.REDUCED
        grant = Grant(request, outcome, share, starts=self.frozen_for == 0)
        return self._spend(tick, grant) if grant.starts else grant

    def _scale(self, tick: int, request: Request, limit: ScaleLimit) -> Grant:
        factor = clamp(_number(request.amount), limit.low, limit.high)
        outcome = Outcome.GRANTED if request.amount == factor else Outcome.REDUCED
        grant = Grant(request, outcome, factor, starts=factor < self.scale)
        if not grant.starts:
            return grant
        answer = self._spend(tick, grant)
        if answer.outcome is Outcome.REFUSED and self.scale < 1.0:
            return Grant(request, Outcome.REDUCED, self.scale, answer.reason, starts=False, left=answer.left)
        return answer

    def _amount(self, tick: int, request: Request, low: float, high: float) -> Grant:
        amount = clamp(_number(request.amount), low, high)
        outcome = Outcome.GRANTED if request.amount == amount else Outcome.REDUCED
        return self._spend(tick, Grant(request, outcome, amount))

    def _spend(self, tick: int, grant: Grant) -> Grant:
        """Take one from the action's own budget and from all interventions', or refuse."""
        action = grant.request.action
        # A checkpoint changes nothing in the run, so it is no intervention.
        names = (action,) if action == "checkpoint" else (action, "intervene")
        budgets = [self._budgets[name] for name in names if name in self._budgets]
        for budget in budgets:
            if not budget.allows(tick):
                spent = f"{budget.budget.count} per {budget.budget.window} steps are spent"
                return Grant(grant.request, Outcome.REFUSED, None, spent, starts=False, left=0)
        for budget in budgets:
            budget.spend(tick)
        left = min((budget.left(tick) for budget in budgets), default=None)
        return Grant(grant.request, grant.outcome, grant.amount, grant.reason, grant.starts, left)

    # After the answers

    def _settle(self, tick: int, grants: list[Grant]) -> None:
        granted = {grant.request.action: grant for grant in grants if grant.outcome is not Outcome.REFUSED}
        self._settle_freeze(tick, "freeze" in granted)
        scale = granted.get("scale_lr")
        self.scale = scale.amount if scale and scale.amount is not None else 1.0
        if "skip" in granted:
            self.in_a_row += 1
        if "rollback" in granted:
            self.progress = int(granted["rollback"].amount or 0)

    def _settle_freeze(self, tick: int, frozen: bool) -> None:
        if frozen:
            self.frozen_for += 1
        elif self.frozen_for:
            # A freeze is followed by a pause of its own length, so that pieces cannot add up.
            self.rest_until = tick + self.frozen_for
            self.frozen_for = 0

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return counters and budgets as plain data."""
        counters: dict[str, Any] = {name: getattr(self, name) for name in _COUNTERS}
        budgets = {name: budget.state() for name, budget in self._budgets.items()}
        return {**counters, "last_tick": self.last_tick, "scale": self.scale, "budgets": budgets}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state; raises StateError, changing nothing, unless it fits these limits."""
        checked = Limiter(self.limits)
        checked._load(state)
        self.__dict__.update(checked.__dict__)

    def _load(self, state: dict[str, Any]) -> None:
        parts = saved.record(state, (*_COUNTERS, "last_tick", "scale", "budgets"))
        for name in _COUNTERS:
            setattr(self, name, saved.within(parts[name], _MOST))
        self.last_tick = saved.whole(parts["last_tick"])
        self.scale = saved.finite(parts["scale"])
        if self.progress > self.high_water or not 0.0 < self.scale <= 1.0:
            raise StateError("expected progress up to its high-water mark and an lr factor in (0, 1]")
        for name, ticks in saved.record(parts["budgets"], tuple(self._budgets)).items():
            self._budgets[name].restore(ticks)


def _budgets(limits: Limits) -> dict[str, Budget]:
    found = {
        "skip": limits.skip.budget if limits.skip else None,
        "rollback": limits.rollback.budget if limits.rollback else None,
        _APART: Budget(1, limits.rollback.spacing) if limits.rollback and limits.rollback.spacing else None,
        "clip": limits.clip,
        "reset_moments": limits.reset_moments,
        "checkpoint": limits.checkpoint,
        "intervene": limits.intervene,
    }
    built_in = {name: budget for name, budget in found.items() if budget}
    return {limit.name: limit.budget for limit in limits.custom if limit.name not in found} | built_in


def _number(amount: float | None) -> float:
    return math.nan if amount is None else float(amount)


def _refuse(request: Request, reason: str) -> Grant:
    return Grant(request, Outcome.REFUSED, None, reason, starts=False)


def _turn(action: str) -> tuple[int, str]:
    return _TURNS.get(action) or (len(_FIRST), action)


def _with_fallback(grants: list[Grant], waiting: dict[str, Request], situation: Situation) -> Grant:
    """Let what was declared in place of the last request wait for its answer; return its refusal, which says so."""
    answered = {grant.request.action for grant in grants}
    refused = {grant.request.action for grant in grants if grant.outcome is Outcome.REFUSED}
    instead = situation.otherwise(grants[-1].request, refused)
    # INVARIANT: an action is answered once a tick, so a granted one is not asked for again, nor a refused one.
    waiting.update({request.action: request for request in instead if request.action not in answered})
    return evolve(grants[-1], fallback=", ".join(request.action for request in instead))


def _whole(grants: list[Grant]) -> list[Grant]:
    """Return what a tick grants; one that halts, be it as a fallback, leaves only a checkpoint and the refusals."""
    if all(grant.request.action != "halt" for grant in grants):
        return grants
    kept = ("halt", "checkpoint")
    return [grant for grant in grants if grant.request.action in kept or grant.outcome is Outcome.REFUSED]


def _superseded(action: str, grants: list[Grant]) -> bool:
    """Tell whether what was granted before leaves nothing for an action to do in this tick."""
    ends = {grant.request.action for grant in grants if grant.outcome is not Outcome.REFUSED}
    if "halt" in ends:
        return action != "checkpoint"
    return action in ("skip", "clip") and not ends.isdisjoint(("rollback", "skip"))
