"""What the limits together promise of every run that is not halted: it moves on, and it never stalls for long."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from lbw_policy.semantics.policy import Budget, Limits, RollbackLimit
from lbw_policy.verify.moving import few_in_a_row, near_the_top
from lbw_policy.verify.spending import most_in, over
from lbw_policy.verify.systems import Induction, Obligation, System
from lbw_policy.verify.terms import BOOL, Term, every, integers, most, term, variable, when

_LOOKS = 1_000
"""How many lengths of a stall are looked at for the least bound."""


@frozen
class Means:
    """What the limits leave to a run that only ever skips and rolls back."""

    limits: Limits

    @property
    def in_a_row(self) -> int:
        """The most skips without an accepted update between."""
        return self.limits.skip.in_a_row if self.limits.skip else 0

    @property
    def distance(self) -> int:
        """The most steps below the furthest point."""
        return self.limits.rollback.distance if self.limits.rollback else 0

    def skips(self, window: int) -> int:
        """Return the most skips in any `window` ticks in a row."""
        return most_in(self.limits.skip.budget, window) if self.limits.skip else 0

    def rollbacks(self, window: int) -> int:
        """Return the most rollbacks in any `window` ticks in a row."""
        limit = self.limits.rollback
        return min(most_in(limit.budget, window), most_in(apart(limit), window)) if limit else 0

    def both(self, window: int) -> int:
        """Return the most skips and rollbacks together in any `window` ticks in a row."""
        return most_in(self.limits.intervene, window)

    def lost(self, window: int) -> int:
        """Return the most updates that any `window` ticks in a row can lose.

        A skip costs its tick. A rollback costs its tick and what lies between it and the furthest
        point of the run, which no number of rollbacks in a row can take beyond the distance.
        """
        rollbacks = min(self.rollbacks(window), self.both(window))
        by_row = window - window // (self.in_a_row + 1)
        skips = min(by_row, self.skips(window), self.both(window) - rollbacks)
        return skips + rollbacks * (1 + self.distance)

    def gain(self, window: int) -> int:
        """Return the least that any `window` ticks in a row gain, less than 0 where budgets promise nothing."""
        return max(window - self.lost(window), -self.distance)

    def idle(self, window: int) -> int:
        """Return the most ticks without an accepted update that a stall of `window` ticks can be made of."""
        return min(
            self.in_a_row + self.rollbacks(window), self.skips(window) + self.rollbacks(window), self.both(window)
        )

    def longest_stall(self) -> int | None:
        """Return the most ticks in a row without an accepted update, None where the limits set no bound.

        It is the least for all limits that need no long look; for others it is a bound all the same.
        """
        bound, ticks = self._stall_bound(), 1
        for _ in range(_LOOKS if bound is not None else 0):
            if self.idle(ticks) < ticks:
                return ticks - 1
            ticks = self.idle(ticks) + 1
        return bound

    def _stall_bound(self) -> int | None:
        """Return a bound that follows from one budget alone, with all the skips that a row may have."""
        limit, total = self.limits.rollback, self.limits.intervene
        if limit is None:
            return self.in_a_row
        found = [_filled(one, self.in_a_row) for one in (limit.budget, apart(limit))]
        found += [_filled(total, 0)] if total else []
        return min((one for one in found if one is not None), default=None)

    def budgets(self, window: int) -> Iterator[Induction]:
        """Yield what has to hold for `skips`, `rollbacks` and `both` to be what they say."""
        if self.limits.skip:
            yield from over("skip", self.limits.skip.budget, window)
        if self.limits.rollback:
            yield from over("rollback", self.limits.rollback.budget, window)
            if self.limits.rollback.spacing:
                yield from over("rollback spacing", apart(self.limits.rollback), window)
        if self.limits.intervene:
            yield from over("intervene", self.limits.intervene, window)

    def gates(self) -> Iterator[Induction]:
        """Yield what has to hold for `moving` to say what a skip and a rollback may do."""
        if self.limits.skip:
            yield few_in_a_row(self.limits.skip)
        if self.limits.rollback:
            yield near_the_top(self.limits.rollback)


def _filled(budget: Budget, more: int) -> int | None:
    """Return the most ticks in a row that a budget and so many events beside it can fill; None if it is endless."""
    spare = budget.window - budget.count
    return budget.count + more + (more // spare) * budget.count if spare > 0 else None


def apart(limit: RollbackLimit) -> Budget:
    """Return the distance in ticks between two rollbacks as a budget: at most one in so many ticks."""
    return Budget(1, max(1, limit.spacing))


def moving(means: Means) -> System:
    """Return any stretch of a run as a system; one step is one tick, which updates unless it skips or rolls back.

    State: `steps` of the stretch, of which `updates` were accepted, `rollbacks` rolled back and `skips` only
    skipped; `progress` and its `high_water` mark; the `run` of skips. Fixed: what these were when the stretch began.
    Inputs: `skip`, `back` (one tick may do both) and the `target` of a rollback.
    """
    steps, updates, skips, rollbacks = integers("steps updates skips rollbacks")
    progress, high, run, target = integers("progress high_water run target")
    skip, back = variable("skip", BOOL), variable("back", BOOL)
    restored = when(back, target, progress)
    moved = when(skip | back, restored, restored + 1)
    step = {
        "steps": steps + 1,
        "updates": when(skip | back, updates, updates + 1),
        "skips": when(skip & ~back, skips + 1, skips),
        "rollbacks": when(back, rollbacks + 1, rollbacks),
        "progress": moved,
        "high_water": most(high, moved),
        "run": when(skip, run + 1, when(back, run, 0)),
    }
    first, top, before = integers("first top before")
    start = {**dict.fromkeys(step, term(0)), "progress": first, "high_water": top, "run": before}
    row, far = means.in_a_row, means.distance
    reached = every(high - target <= far, target <= progress, term(means.limits.rollback is not None))
    allowed = every(skip.implies(run < row), back.implies(reached))
    given = every(top >= first, top - first <= far, before >= 0, before <= row)
    return System("a stretch of a run", start, step, allowed, given)


def keeps_moving(means: Means, system: System | None = None) -> Induction:
    """Return what any stretch of a run keeps to: what it gains, and how many of its ticks it can skip."""
    steps, updates, skips, rollbacks = integers("steps updates skips rollbacks")
    progress, high, run, first = integers("progress high_water run first")
    far, row = means.distance, means.in_a_row
    gains, few = updates - progress + first <= rollbacks * far, skips - updates * row
    counted = (skips + rollbacks + updates).same(steps)
    goal = every(gains, first - progress <= far, few <= row, counted)
    near = (high >= progress, high - progress <= far, high >= first)
    return Induction(system or moving(means), goal, (gains, *near, run <= row, few <= run, counted))


def _stretch(means: Means, window: int) -> Term:
    """Return what is known of any `window` ticks in a row, by induction and by the budgets."""
    steps, skips, rollbacks = integers("steps skips rollbacks")
    return every(
        keeps_moving(means).goal,
        steps.same(window),
        skips >= 0,
        rollbacks >= 0,
        skips <= means.skips(window),
        rollbacks <= means.rollbacks(window),
        skips + rollbacks <= means.both(window),
    )


def gains(means: Means, window: int) -> Obligation:
    """Return that any `window` ticks gain what `Means.lost` leaves, or else lose no more than the distance."""
    first, progress = integers("first progress")
    return Obligation(f"gain of {window} steps", (_stretch(means, window), ~(progress - first >= means.gain(window))))


def ends(means: Means, ticks: int) -> Obligation:
    """Return that no `ticks` ticks in a row are without an accepted update."""
    return Obligation(f"a stall of {ticks} steps", (_stretch(means, ticks), variable("updates").same(0)))


# Baselines


def quarantining(most_ticks: int) -> System:
    """Return the quarantine of `machine.StateMachine` as a system; `kept` is the observer's count of ticks in a row.

    Input: `suspicious`, whether a reflex fires, or a level is neither the calm one nor settled.
    """
    run, suspicious = variable("quarantine_run"), variable("suspicious", BOOL)
    after = when(suspicious, run + 1, 0)
    quarantined = (after > 0) & (after <= most_ticks)
    step = {"quarantine_run": after, "kept": when(quarantined, variable("kept") + 1, 0)}
    return System("quarantine", {one: term(0) for one in step}, step)


def always_learns(most_ticks: int, system: System | None = None) -> Induction:
    """Return that no more than `most_ticks` ticks in a row are kept from the baselines."""
    run, kept = variable("quarantine_run"), variable("kept")
    counted = kept.same(when(run <= most_ticks, run, 0))
    return Induction(system or quarantining(most_ticks), kept <= most_ticks, (run >= 0, counted))
