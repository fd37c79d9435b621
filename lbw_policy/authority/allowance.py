"""How much a policy's limits let it do in any stretch of steps, whatever telemetry, risk models and plugins say."""

from __future__ import annotations

from attrs import frozen

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.walk import actions_of


def most(budget: p.Budget | None, window: int, at_once: int = 1) -> int:
    """Return how many events a budget allows in any `window` steps in a row, with `at_once` of them in one step.

    The stretch is cut into windows of the budget; each may be full, and so may be the piece that is left.
    """
    if budget is None:
        return window * at_once
    whole, rest = divmod(window, budget.window)
    return min(window * at_once, whole * budget.count + min(budget.count, rest * at_once))


_LOOKS = 1_000
"""How many lengths of a pause are tried before its bound is taken."""


@frozen
class Allowance:
    """The most that the rules of a policy can be granted in any `window` steps in a row.

    An action that no rule asks for is never done, whatever the limits allow.
    """

    limits: p.Limits
    asked: frozenset[str]

    @classmethod
    def of(cls, policy: p.Policy) -> Allowance:
        """Return what a policy may spend."""
        return cls(policy.limits, frozenset(p.name_of(action) for action in actions_of(policy)))

    def allows(self, action: str) -> bool:
        """Tell whether an action can ever be granted."""
        if action not in self.asked or action == "halt":
            return action in self.asked  # a halt is never refused
        if action == "clip":
            return self.limits.clip is not None or self.limits.intervene is not None
        if action in _BUILT_IN:
            return bool(getattr(self.limits, action))
        return action in {limit.name for limit in self.limits.custom}

    def skips(self, window: int) -> int:
        """Return the most updates left out."""
        skip = self.limits.skip
        if skip is None or not self.allows("skip"):
            return 0
        # Every `in_a_row + 1` steps hold one that is not skipped.
        by_row = window - window // (skip.in_a_row + 1)
        return min(by_row, most(skip.budget, window), most(self.limits.intervene, window))

    def skips_in_a_row(self) -> int:
        """Return the most updates left out one after the other."""
        skip = self.limits.skip
        if skip is None or not self.allows("skip"):
            return 0
        budgets = [budget for budget in (skip.budget, self.limits.intervene) if budget]
        return min([skip.in_a_row, *(one.count for one in budgets if one.count < one.window)])

    def rollbacks(self, window: int) -> int:
        """Return the most rollbacks."""
        rollback = self.limits.rollback
        if rollback is None or not self.allows("rollback"):
            return 0
        apart = p.Budget(1, rollback.spacing) if rollback.spacing else None
        return min(most(budget, window) for budget in (rollback.budget, apart, self.limits.intervene))

    def counted(self, action: str, window: int) -> int:
        """Return the most times an action begins that costs a budget of its own, if any: a clip, a plugin's action."""
        budgets = {limit.name: limit.budget for limit in self.limits.custom}
        budget = budgets.get(action) or getattr(self.limits, action, None)
        total = None if action == "checkpoint" else self.limits.intervene
        return min(most(budget, window), most(total, window)) if self.allows(action) else 0

    def interventions(self, window: int) -> int:
        """Return the most interventions of all kinds together; a step may have one of each, as a fallback too."""
        kinds = [name for name in sorted(self.asked - _HARMLESS) if self.allows(name)]
        apart = sum(self._begun(name, window) for name in kinds)
        return min(apart, most(self.limits.intervene, window, len(kinds)))

    def _begun(self, action: str, window: int) -> int:
        match action:
            case "skip":
                return self.skips(window)
            case "rollback":
                return self.rollbacks(window)
            case "scale_lr":
                return window  # one lowering a step
            case "freeze":
                return (window + 1) // 2  # each is followed by a pause
            case _:
                return self.counted(action, window)

    def lost(self, window: int) -> int:
        """Return the most updates that skips and rollbacks can cost; a run that goes back may lose more than `window`.

        A skip costs its step. A rollback costs its step and at most the limit's distance, which counts from the
        highest progress ever: so no stretch ends further than that below its beginning.
        """
        rollbacks, rollback = self.rollbacks(window), self.limits.rollback
        skips = min(self.skips(window), most(self.limits.intervene, window) - rollbacks)
        if rollback is None or not rollbacks:
            return skips
        return min(skips + rollbacks * (1 + rollback.distance), window + rollback.distance)

    def longest_pause(self) -> int | None:
        """Return the most steps in a row without an accepted update, None where nothing bounds them.

        Only an accepted update ends a row of skips, so one stretch has one row, and rollbacks. It is the least for
        all limits that need no long look; for others it is a bound all the same.
        """
        skip = self.limits.skip
        row = skip.in_a_row if skip and self.allows("skip") else 0
        bound, steps = self._pause(row), 1
        for _ in range(_LOOKS if bound is not None else 0):
            idle = min(min(row, self.skips(steps)) + self.rollbacks(steps), most(self.limits.intervene, steps))
            if idle < steps:
                return steps - 1
            steps = idle + 1
        return bound

    def _pause(self, row: int) -> int | None:
        """Return the most steps that so many skips, and rollbacks, can fill: the least that any budget allows."""
        rollback, apart = self.limits.rollback, None
        if rollback is None or not self.allows("rollback"):
            return row
        if rollback.spacing:
            apart = p.Budget(1, rollback.spacing)
        ways = [_filled(budget, row) for budget in (rollback.budget, apart) if budget]
        ways += [_filled(self.limits.intervene, 0)] if self.limits.intervene else []
        return min((way for way in ways if way is not None), default=None)


def _filled(budget: p.Budget, more: int) -> int | None:
    """Return the most steps in a row that each have an event of a budget or one of `more` others; None for all.

    Every window leaves `window - count` steps to the others; where these are used up, one step stays empty.
    """
    left = budget.window - budget.count
    if left <= 0:
        return None
    whole, rest = divmod(more, left)
    return whole * budget.window + budget.count + rest


_BUILT_IN = frozenset(p.ACTION_NAMES.values())
_HARMLESS = frozenset({"halt", "checkpoint"})
