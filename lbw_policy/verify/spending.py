"""The budgets of the limiter as systems: `limits.budget.SlidingBudget`, and what follows for longer windows."""

from __future__ import annotations

from lbw_policy.semantics.policy import Budget
from lbw_policy.verify.systems import Induction, System
from lbw_policy.verify.terms import BOOL, every, integers, term, variable, when


def spending(name: str, budget: Budget) -> System:
    """Return a budget as a system; one step is one request, and any number of ticks may pass between two.

    However many events a budget counts, two are watched: numbers `chosen - count` and `chosen`, for any
    `chosen`. State: `tick`, `spent` (events so far), `earlier` and `later` (the ticks of the two watched events).
    Inputs: `asked` (asked for, and nothing else refuses it), `pause` (ticks until the next request) and `oldest`,
    which stands for the oldest tick the budget remembers where that is not the earlier event's.
    """
    tick, spent, earlier, later, chosen, pause = integers("tick spent earlier later chosen pause")
    oldest = when(spent.same(chosen), earlier, variable("oldest"))
    granted = variable("asked", BOOL) & ((spent < budget.count) | (oldest <= tick - budget.window))
    step = {
        "tick": tick + pause,
        "spent": when(granted, spent + 1, spent),
        "earlier": when(granted & spent.same(chosen - budget.count), tick, earlier),
        "later": when(granted & spent.same(chosen), tick, later),
    }
    return System(
        f"budget of {name}",
        {one: term(0) for one in step},
        step,
        allowed=pause >= 0,
        given=chosen >= budget.count,
    )


def never_more(name: str, budget: Budget, system: System | None = None) -> Induction:
    """Return that no `window` ticks in a row hold more than `count` events; of another system if one is given.

    Event number `chosen` lies at least a window after the one `count` before it, whichever is chosen.
    """
    spent, earlier, later, chosen = integers("spent earlier later chosen")
    apart = (spent > chosen).implies(later - earlier >= budget.window)
    return Induction(system or spending(name, budget), apart, (apart,))


def over(name: str, budget: Budget, window: int) -> tuple[Induction, ...]:
    """Return that no `window` ticks hold more events than `most_in` says, from what the budget itself holds to.

    State: two events lie `times` whole budgets and `more` events apart, and `span` ticks, if a tick has one event
    at most. Inputs: `whole`, whether a whole budget's worth of events is added or one, and the `gap` it takes.
    """
    times, more, span, gap = integers("times more span gap")
    whole = variable("whole", BOOL)
    step = {"times": times + when(whole, 1, 0), "more": more + when(whole, 0, 1), "span": span + gap}
    system = System(
        f"windows of {name}", dict.fromkeys(step, term(0)), step, allowed=gap >= when(whole, budget.window, 1)
    )
    full, rest = _cut(budget, window)
    reach = every(times >= full, more >= rest).implies(span >= window)
    return (never_more(name, budget), Induction(system, reach, (span - times * budget.window >= more,)))


def _cut(budget: Budget, window: int) -> tuple[int, int]:
    """Return how many whole budgets fit into `window` ticks, and how many events into the ticks that are left."""
    full, left = divmod(window, budget.window)
    return (full, left) if left < budget.count else (full + 1, 0)


def most_in(budget: Budget | None, window: int) -> int:
    """Return the most events that a budget allows in `window` ticks in a row, if a tick has one at most."""
    if budget is None:
        return window
    full, left = _cut(budget, window)
    return min(window, full * budget.count + left)
