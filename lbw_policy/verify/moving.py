"""The limiter's counters as systems: skips in a row, the way back, freezes and their pauses.

One step is one tick. Inputs are free: what is asked, how much of it, whether the update is accepted. Each system
keeps the limiter's own counters and, beside them, an observer's, which counts from what was granted alone;
what is proved speaks of the observer's.
"""

from __future__ import annotations

from lbw_policy.semantics.policy import FreezeLimit, RollbackLimit, SkipLimit
from lbw_policy.verify.systems import Induction, System
from lbw_policy.verify.terms import BOOL, Term, every, integers, least, most, term, variable, when

_ASKED, _APPLIED = variable("asked", BOOL), variable("applied", BOOL)
"""Inputs: asked for, and nothing else refuses it; the tick ends in an accepted update."""


def _system(name: str, step: dict[str, Term], allowed: Term | None = None) -> System:
    return System(name, {one: term(0) for one in step}, step, allowed or every())


# Skips in a row


def skipping(limit: SkipLimit) -> System:
    """Return the run of skips as a system: `in_a_row` is the limiter's, `run` the observer's."""
    in_a_row, run = integers("in_a_row run")
    granted = _ASKED & (in_a_row < limit.in_a_row)
    return _system(
        "skips in a row",
        {
            "in_a_row": when(_APPLIED, 0, when(granted, in_a_row + 1, in_a_row)),
            "run": when(_APPLIED, 0, when(granted, run + 1, run)),
        },
    )


def few_in_a_row(limit: SkipLimit, system: System | None = None) -> Induction:
    """Return that no more than `in_a_row` updates are skipped without an accepted one between."""
    in_a_row, run = integers("in_a_row run")
    goal = run <= limit.in_a_row
    return Induction(system or skipping(limit), goal, (in_a_row.same(run), goal))


# Rollbacks


def returning(limit: RollbackLimit) -> System:
    """Return progress as a system: `progress` and `high_water` are the limiter's, `top` the observer's.

    Inputs: `distance`, the whole part of what is asked for, and `target`, the progress of some snapshot.
    """
    progress, high_water, top, distance, target = integers("progress high_water top distance target")
    reach = high_water - most(least(distance, limit.distance), 0)
    restored = when(_ASKED & (reach <= target) & (target <= progress), target, progress)
    after = when(_APPLIED, restored + 1, restored)
    return _system(
        "distance of rollbacks",
        {
            "progress": after,
            "high_water": when(_APPLIED, most(high_water, after), high_water),
            "top": most(top, after),
        },
    )


def near_the_top(limit: RollbackLimit, system: System | None = None) -> Induction:
    """Return that progress never lies more than `distance` below the furthest point of the run."""
    progress, high_water, top = integers("progress high_water top")
    goal = every(progress <= top, top - progress <= limit.distance)
    return Induction(system or returning(limit), goal, (high_water.same(top), goal))


# Freezes


def freezing(limit: FreezeLimit) -> System:
    """Return freezes as a system: `tick`, `frozen_for`, `rest_until` are the limiter's, the others the observer's.

    `run` counts the ticks of the present freeze, `lasted` those of the one before, `idle` the ticks since then.
    Input: `missed`, ticks in which the limiter was not asked at all.
    """
    tick, frozen_for, rest_until = integers("tick frozen_for rest_until")
    run, lasted, idle, missed = integers("run lasted idle missed")
    granted = _ASKED & (frozen_for < limit.duration) & (tick >= rest_until)
    ends = ~granted & (frozen_for > 0)
    return _system(
        "freezes",
        {
            "tick": tick + 1 + missed,
            "frozen_for": when(granted, frozen_for + 1, 0),
            "rest_until": when(ends, tick + frozen_for, rest_until),
            "run": when(granted, run + 1, 0),
            "lasted": when(~granted & (run > 0), run, lasted),
            "idle": when(granted, 0, idle + 1 + missed),
        },
        allowed=missed >= 0,
    )


def brief_freezes(limit: FreezeLimit, system: System | None = None) -> Induction:
    """Return that no freeze lasts longer than `duration` ticks."""
    frozen_for, run = integers("frozen_for run")
    goal = run <= limit.duration
    return Induction(system or freezing(limit), goal, (frozen_for.same(run), goal))


def rested_freezes(limit: FreezeLimit, system: System | None = None) -> Induction:
    """Return that a freeze begins only after a pause as long as the freeze before it."""
    tick, frozen_for, rest_until = integers("tick frozen_for rest_until")
    run, lasted, idle, after = integers("run lasted idle run'")
    begins = run.same(0) & after.same(1)
    paused = run.same(0).implies(rest_until - tick >= lasted - idle)
    facts = (frozen_for.same(run), run >= 0, idle >= 0, paused)
    return Induction(system or freezing(limit), begins.implies(idle >= lasted), facts)
