"""What a search is to bring about: a reflex fires, a level is entered, held or left, an alert speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve, frozen

from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Truth
from lbw_policy.semantics.signals import OWN
from lbw_policy.semantics.walk import conditions_of, parts
from lbw_policy.trials.trace import Moment
from lbw_policy.witness.nearness import Wish
from lbw_policy.witness.scripts import channels, titles_in
from lbw_policy.witness.search import Goal, Run, never

_TREND = 64
"""Trends over longer windows than this move far enough within so many ticks, or are given more in a longer phase."""
_BRIEF = 4
_REACHING = ("prev", "ewma", "slope", "rate")


@frozen
class Rungs:
    """The order of a policy's levels."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, policy: p.Policy) -> Rungs:
        """Return the order of a policy's levels."""
        return cls(tuple(level.name for level in policy.levels))

    def rises(self, moment: Moment, to: str) -> bool:
        """Tell whether a tick goes up to a level."""
        return moment.level == to and self._place(moment.decision.previous) < self._place(to)

    def falls(self, moment: Moment, below: str) -> bool:
        """Tell whether a tick goes down from a level."""
        return moment.decision.previous == below and self._place(moment.level) < self._place(below)

    def under(self, name: str) -> str:
        """Return the level below one."""
        return self.names[max(0, self._place(name) - 1)]

    def _place(self, name: str) -> int:
        return self.names.index(name)


def fires(policy: p.Policy, reflex: p.Reflex) -> Goal:
    """Return the goal that a reflex fires."""

    def reached(run: Run) -> bool:
        return reflex.name in run[-1].decision.fired

    return _goal(policy, reached, Wish.of(reflex.condition))


def acts(policy: p.Policy, rule: p.Reflex | p.Level) -> Goal:
    """Return the goal that a rule begins to act."""
    return fires(policy, rule) if isinstance(rule, p.Reflex) else enters(policy, rule)


def speaks(policy: p.Policy, alert: p.Alert) -> Goal:
    """Return the goal that an alert speaks."""

    def reached(run: Run) -> bool:
        return run[-1].happens("alert", alert.name)

    return _goal(policy, reached, _wish(alert.trigger))


def enters(policy: p.Policy, level: p.Level) -> Goal:
    """Return the goal that a level is entered from below."""
    rungs = Rungs.of(policy)

    def reached(run: Run) -> bool:
        return rungs.rises(run[-1], level.name)

    return _goal(policy, reached, *([_wish(level.enter)] if level.enter else []))


def leaves(policy: p.Policy, level: p.Level) -> Goal:
    """Return the goal that a level is left downwards."""
    rungs = Rungs.of(policy)

    def reached(run: Run) -> bool:
        return rungs.falls(run[-1], level.name)

    wishes = [_wish(level.leave, Truth.TRUE)] if level.leave else []
    found = _goal(policy, reached, *wishes)
    return found if wishes or not level.stay else Goal(reached, (), level.stay + 1)


def holds(level: p.Level, ticks: int, titles: tuple[str, ...]) -> Goal:
    """Return the goal that a level lasts for so many ticks more."""

    def lost(run: Run) -> bool:
        return run[-1].level != level.name

    def reached(run: Run) -> bool:
        return len(run) >= ticks and not lost(run)

    return Goal(reached, titles, ticks, lost=lost, bonus=lambda run: len(run) / ticks, fixed=True)


def repeats(policy: p.Policy, level: p.Level) -> Goal:
    """Return the goal that a level is entered, left and entered again while nothing changes in what is given."""
    rungs = Rungs.of(policy)

    def rises(run: Run) -> int:
        return sum(rungs.rises(moment, level.name) for moment in run)

    def reached(run: Run) -> bool:
        return rungs.rises(run[-1], level.name) and rises(run) > 1

    wishes = [_wish(level.enter)] if level.enter else []
    wishes += [_wish(level.leave, Truth.TRUE)] if level.leave else []
    found = _goal(policy, reached, *wishes)
    ticks = 2 * found.ticks + sum(wish.window for wish in wishes) + level.cooldown
    return evolve(found, ticks=ticks, bonus=lambda run: 0.5 * rises(run))


def torn(policy: p.Policy, level: p.Level) -> Goal:
    """Return the goal that the readings of one tick count towards both `enter` and `leave` of a level."""
    enter = [Wish.of(level.enter.condition)] if level.enter else []
    leave = [Wish.of(level.leave.condition, Truth.TRUE)] if level.leave else []
    return evolve(_goal(policy, never, *enter, *leave), together=bool(enter and leave))


def slows(low: float, titles: tuple[str, ...]) -> Goal:
    """Return the goal that the lr factor falls below a bound."""

    def reached(run: Run) -> bool:
        return run[-1].scale < low

    return Goal(reached, titles, _BRIEF, bonus=lambda run: -min(moment.scale for moment in run))


def gains_little(ticks: int, gain: int, titles: tuple[str, ...]) -> Goal:
    """Return the goal that progress grows by less than `gain` over so many ticks."""

    def gained(run: Run) -> int:
        return run[-1].progress - run[max(0, len(run) - 1 - ticks)].progress

    def reached(run: Run) -> bool:
        return len(run) > ticks and gained(run) < gain

    return Goal(reached, titles, 2 * ticks + 1, bonus=lambda run: -gained(run) / ticks, fixed=True)


def stalls(ticks: int, titles: tuple[str, ...]) -> Goal:
    """Return the goal that so many ticks end without an accepted update."""

    def lost(run: Run) -> bool:
        return len(run) > 1 and run[-1].progress > run[-2].progress

    def reached(run: Run) -> bool:
        return len(run) > ticks and not lost(run)

    return Goal(reached, titles, ticks + 1, lost=lost, bonus=lambda run: len(run) / ticks, fixed=True)


def _wish(trigger: p.Trigger, least: Truth = Truth.UNKNOWN) -> Wish:
    return Wish.of(trigger.condition, least, trigger.count, trigger.window)


def _goal(policy: p.Policy, reached: Callable[[Run], bool], *wishes: Wish) -> Goal:
    conditions = [wish.condition for wish in wishes]
    return Goal(reached, varied(policy, conditions), span(policy, wishes), wishes)


def varied(policy: p.Policy, conditions: Sequence[e.Condition]) -> tuple[str, ...]:
    """Return the channels that conditions depend on; on those of every rule where they read what the guard did."""
    read = titles_in(*conditions)
    asked = read if not {*read} & {*OWN} else titles_in(*conditions_of(policy))
    return tuple(one.title for one in channels(policy) if one.title in asked)


def span(policy: p.Policy, wishes: Sequence[Wish]) -> int:
    """Return how many ticks it may take until conditions hold for as long as they must."""
    pace = max((signal.every for signal in policy.signals), default=1)
    return pace + max((wish.window + _reach(wish.condition) for wish in wishes), default=0)


def _reach(condition: e.Condition) -> int:
    """Return how many ticks it takes until a lasting change shows in the trends of a condition."""
    trends = [node for node in parts(condition) if isinstance(node, e.Statistic) and node.name in _REACHING]
    return sum(node.samples if node.name == "prev" else min(node.samples, _TREND) for node in trends)
