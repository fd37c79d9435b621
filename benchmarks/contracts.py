"""What CrossHair is asked about the limits and the levels: `make contracts`.

CrossHair calls each function with symbolic arguments, z3 behind them. Either it finds arguments that meet `pre` and
break `post`, or it has been down every path and says `Confirmed`, or it gives up and says `Not confirmed`. The code
itself stays free of contracts. A float stands for any real number, NaN and both infinities; rounding is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from lbw_policy.limits import Grant, Limiter, Outcome, Request, Situation
from lbw_policy.limits.budget import SlidingBudget, clamp
from lbw_policy.machine.ladder import Ladder, Truths
from lbw_policy.semantics.ceilings import SCALE_FLOOR
from lbw_policy.semantics.expressions import Finite, Reading, Truth
from lbw_policy.semantics.policy import Budget, FreezeLimit, Level, Limits, ScaleLimit, SkipLimit, Trigger

FALSE, TRUE = int(Truth.FALSE), int(Truth.TRUE)
ONCE = Trigger(Finite(Reading("loss")))
NORMAL, CAUTION = Level("normal"), Level("caution", enter=ONCE, leave=ONCE)
__all__ = ["SCALE_FLOOR"]  # the contracts below read it

# Numbers


def clamp_stays_inside(value: float, low: float, high: float) -> float:
    """Hold any value to a range.

    pre: low <= high
    post: low <= __return__ <= high
    """
    return clamp(value, low, high)


def clamp_keeps_what_is_inside(value: float, low: float, high: float) -> float:
    """Leave a value alone.

    pre: low <= value <= high
    post: __return__ == value
    """
    return clamp(value, low, high)


def clamp_gives_nan_the_careful_end(value: float, low: float, high: float) -> float:
    """Hold a NaN.

    pre: value != value and low <= high
    post: __return__ == low
    """
    return clamp(value, low, high)


# Budgets


def _events(count: int, window: int, gaps: Sequence[int]) -> list[int]:
    """Ask for an event after each gap, and return the ticks of those that were allowed."""
    budget, tick, events = SlidingBudget(Budget(count, window)), 0, list[int]()
    for gap in gaps:
        tick += gap
        if budget.allows(tick):
            budget.spend(tick)
            events.append(tick)
    return events


def one_event_a_window(window: int, first: int, second: int, third: int) -> list[int]:
    """Spend a budget of one.

    pre: window >= 1 and min(first, second, third) >= 0
    post: all(late - early >= window for early, late in zip(__return__, __return__[1:]))
    """
    return _events(1, window, (first, second, third))


def two_events_a_window(window: int, first: int, second: int, third: int, fourth: int) -> list[int]:
    """Spend a budget of two.

    pre: window >= 1 and min(first, second, third, fourth) >= 0
    post: all(late - early >= window for early, late in zip(__return__, __return__[2:]))
    """
    return _events(2, window, (first, second, third, fourth))


def _spent(window: int, first: int, second: int) -> SlidingBudget:
    budget = SlidingBudget(Budget(2, window))
    budget.spend(first)
    budget.spend(second)
    return budget


def a_full_budget_opens_when_its_oldest_event_leaves(
    window: int, first: int, second: int, now: int
) -> tuple[bool, int]:
    """Ask a budget of two that is spent.

    pre: window >= 1 and 0 <= first <= second <= now
    post: __return__[0] == (first <= now - window) == (__return__[1] > 0)
    """
    budget = _spent(window, first, second)
    return budget.allows(now), budget.left(now)


def a_resumed_budget_answers_the_same(window: int, first: int, second: int, now: int, later: int) -> list[bool]:
    """Ask a budget and its saved state, spend from both, and ask again.

    pre: window >= 1 and 0 <= first <= second <= now <= later
    post: __return__[0] == __return__[1] and __return__[2] == __return__[3]
    """
    budget, resumed = _spent(window, first, second), SlidingBudget(Budget(2, window))
    resumed.restore(budget.state())
    found = [budget.allows(now), resumed.allows(now)]
    budget.spend(now)
    resumed.spend(now)
    return [*found, budget.allows(later), resumed.allows(later)]


# Limits


def _granted(limits: Limits, request: Request) -> Grant:
    (grant,) = Limiter(limits).rule(0, [request], Situation())
    return grant


def lr_factor(asked: float) -> float | None:
    """Ask for any lr factor.

    post: __return__ is not None and 0.1 <= __return__ <= 0.8
    """
    return _granted(Limits(scale_lr=ScaleLimit(0.1, 0.8)), Request("scale_lr", "r", asked)).amount


def frozen_share(asked: float) -> float | None:
    """Ask for any share of layers.

    post: __return__ is None or 0.0 < __return__ <= 0.25
    """
    return _granted(Limits(freeze=FreezeLimit(0.25, 5)), Request("freeze", "r", asked)).amount


def _stretches(limits: Limits, request: Request, asked: Sequence[bool]) -> list[bool]:
    """Ask for an action in some ticks; return in which it was granted."""
    limiter, found = Limiter(limits), list[bool]()
    for tick, wanted in enumerate(asked):
        grants = limiter.rule(tick, [request] if wanted else [], Situation())
        found.append(any(grant.outcome is not Outcome.REFUSED for grant in grants))
        limiter.stepped(applied=not found[-1])
    return found


def skips_in_a_row(first: bool, second: bool, third: bool, fourth: bool) -> list[bool]:
    """Ask for skips in any ticks.

    post: __return__[0:3] != [True] * 3 and __return__[1:4] != [True] * 3
    """
    limits = Limits(skip=SkipLimit(2, Budget(9, 99)))
    return _stretches(limits, Request("skip", "r"), (first, second, third, fourth))


def frozen_in_a_row(first: bool, second: bool, third: bool, fourth: bool) -> list[bool]:
    """Ask for a freeze in any ticks.

    post: __return__[0:3] != [True] * 3 and __return__[1:4] != [True] * 3
    """
    limits = Limits(freeze=FreezeLimit(0.25, 2))
    return _stretches(limits, Request("freeze", "r", 0.1), (first, second, third, fourth))


# Levels


def a_levels_factor(first: float) -> float:
    """Scale the lr of a level by half, and then by anything.

    post: SCALE_FLOOR <= __return__ <= 0.5
    """
    ladder = Ladder((NORMAL, CAUTION))
    return ladder.scale(ladder.scale(ladder.start(), 1, 0.5), 1, first).factors[1]


def a_stay(stay: int, since: int) -> int:
    """Pass a tick in a level that nothing leaves.

    pre: 1 <= stay and 0 <= since < stay
    post: (__return__ == 0) == (since + 1 == stay)
    """
    ladder = Ladder((NORMAL, Level("caution", enter=ONCE, stay=stay)))
    now = evolve(ladder.start(), level=1, armed=True, since=since)
    return ladder.advance(now, Truths((None, FALSE), FALSE))[0].level


def a_cooldown(cooldown: int, quiet: int) -> int:
    """Leave a level, wait, and fire its trigger again.

    pre: 0 <= quiet <= 4 and cooldown >= 0
    post: (__return__ == 1) == (quiet + 1 >= cooldown)
    """
    ladder = Ladder((NORMAL, Level("caution", enter=ONCE, stay=1, cooldown=cooldown)))
    now = ladder.start()
    for truth in (TRUE, FALSE, *[FALSE] * quiet, TRUE):
        now, _ = ladder.advance(now, Truths((None, truth), FALSE))
    return now.level


def only_true_leaves(enter: int, first: int, second: int) -> list[int]:
    """Pass three ticks on a ladder of three levels.

    pre: all(0 <= truth <= 3 for truth in (enter, first, second))
    post: __return__[0] <= __return__[1] <= __return__[2] or 3 in (first, second)
    """
    ladder = Ladder((NORMAL, CAUTION, Level("defend", enter=Trigger(ONCE.condition, 2, 2), leave=ONCE)))
    now, found = ladder.start(), list[int]()
    for leave in (FALSE, first, second):
        now, _ = ladder.advance(now, Truths((None, enter, enter), leave))
        found.append(now.level)
    return found
