"""Histories of the real limiter, tick by tick, with what the systems of `verify` need to follow them."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, evolve, field, frozen
from hypothesis import strategies as st

from lbw_policy.limits import Grant, Limiter, Outcome, Request, Situation
from lbw_policy.limits.budget import SlidingBudget
from lbw_policy.semantics.policy import Budget, Limits
from tests.strategies import anything, limit_sets

ASKABLE = ("rollback", "skip", "freeze", "clip", "scale_lr", "reset_moments", "boost", "nudge", "unlimited")
ENDING = frozenset({"skip", "rollback", "halt"})


@frozen
class Asked:
    """One tick: what is asked for, what is at hand, and how many ticks pass before the next."""

    requests: tuple[Request, ...]
    snapshots: tuple[int, ...]
    """How far below the high-water mark each snapshot lies."""
    norm: float | None
    pause: int
    updates: bool | None
    """Whether an update is accepted: True where the guard only watches, False where a step fails, or as granted."""


@st.composite
def histories(draw: st.DrawFn, *, faithful: bool = False) -> list[Asked]:
    """Runs of up to 40 ticks; some actions are asked for all the time, so that limits are met.

    `faithful` ticks come one after the other and do what is granted.
    """
    often = draw(st.sets(st.sampled_from(ASKABLE)))
    ticks = draw(st.integers(0, 40))
    return [draw(_asked(often, faithful)) for _ in range(ticks)]


@st.composite
def _asked(draw: st.DrawFn, often: set[str], faithful: bool) -> Asked:
    actions = often if draw(st.booleans()) else draw(st.sets(st.sampled_from(ASKABLE)))
    amounts = st.none() | st.floats(-1.0, 40.0) | anything
    requests = tuple(Request(action, "rule", draw(amounts)) for action in sorted(actions))
    snapshots = tuple(draw(st.lists(st.integers(-1, 30), max_size=2)))
    pause = 1 if faithful else draw(st.sampled_from((1, 1, 1, 1, 1, 2, 9)))
    norm = draw(st.none() | anything)
    updates = None if faithful else draw(st.sampled_from((None, None, None, True, False)))
    return Asked(requests, snapshots, norm, pause, updates)


@st.composite
def any_limits(draw: st.DrawFn) -> Limits:
    """Any limits, those among them too that keep rollbacks apart."""
    limits = draw(limit_sets())
    if limits.rollback:
        limits = evolve(limits, rollback=evolve(limits.rollback, spacing=draw(st.sampled_from((0, 1, 2, 7)))))
    return limits


@frozen
class Spent:
    """One question to a budget: at which tick, its oldest tick, its answer, and whether an event was then recorded."""

    tick: int
    oldest: int
    allows: bool
    spent: bool


@define
class Spy:
    """Stands in for a budget of the limiter and writes down what it is asked."""

    inner: SlidingBudget
    seen: list[Spent] = field(factory=list)

    @property
    def budget(self) -> Budget:
        return self.inner.budget

    def left(self, tick: int) -> int:
        return self.inner.left(tick)

    def allows(self, tick: int) -> bool:
        remembered, answer = self.inner.state(), self.inner.allows(tick)
        self.seen.append(Spent(tick, remembered[0] if remembered else tick, answer, spent=False))
        return answer

    def spend(self, tick: int) -> None:
        self.inner.spend(tick)
        self.seen[-1] = evolve(self.seen[-1], spent=True)


@frozen
class Done:
    """One tick of the real limiter, and its own counters before and after it."""

    tick: int
    pause: int
    situation: Situation
    grants: tuple[Grant, ...]
    applied: bool
    before: dict[str, float]
    after: dict[str, float]

    def grant(self, action: str) -> Grant | None:
        """What was answered to a request, refused or not."""
        return next((grant for grant in self.grants if grant.request.action == action), None)

    def granted(self, action: str) -> Grant | None:
        """What was granted of an action."""
        grant = self.grant(action)
        return grant if grant and grant.outcome is not Outcome.REFUSED else None

    def asks(self, action: str, *reasons: str) -> bool:
        """Whether an action was granted, or refused for one of these reasons."""
        grant = self.grant(action)
        return bool(grant) and (self.granted(action) is not None or any(text in grant.reason for text in reasons))


def run(limiter: Limiter, history: list[Asked]) -> Iterator[Done]:
    """Take a limiter through a history."""
    tick = 0
    for one in history:
        before = counters(limiter)
        situation = Situation(tuple(max(0, limiter.high_water - below) for below in one.snapshots), one.norm)
        grants = limiter.rule(tick, one.requests, situation)
        ended = any(grant.request.action in ENDING and grant.outcome is not Outcome.REFUSED for grant in grants)
        applied = not ended if one.updates is None else one.updates
        limiter.stepped(applied=applied)
        yield Done(tick, one.pause, situation, grants, applied, before, counters(limiter))
        tick += one.pause


def counters(limiter: Limiter) -> dict[str, float]:
    """The limiter's counters."""
    names = ("progress", "high_water", "in_a_row", "frozen_for", "rest_until", "scale")
    return {name: getattr(limiter, name) for name in names}
