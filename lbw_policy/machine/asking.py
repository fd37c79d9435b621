"""Gathers what one tick's rules ask for: at most one request of each action."""

from __future__ import annotations

import math
from collections.abc import Callable

from attrs import define, evolve, field

from lbw_policy.limits.requests import Request
from lbw_policy.machine.ladder import Configuration, Ladder
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Number


@define
class Asking:
    """One tick's requests, at most one of each action.

    Of two rules the first speaks for `skip`, `rollback`, `halt` and the actions of plugins; of two norms and two shares
    the more careful one counts (the least norm, the greatest share); lr factors multiply.
    """

    ladder: Ladder
    configuration: Configuration
    value: Callable[[Number], float | None]
    found: dict[str, Request] = field(factory=dict)

    def reflex(self, reflex: p.Reflex) -> None:
        """Ask for what a reflex does in this tick."""
        rule = reflex.rule
        for action in reflex.actions:
            if isinstance(action, p.ScaleLr):
                self._scale(rule, self._known(action.by))
            else:
                self._ask(rule, action)

    def levels(self, *, entered: bool) -> None:
        """Ask for what the held levels do: on entry, every so often, and on every tick."""
        now = self.configuration
        if entered:
            self.configuration = self.ladder.fresh(now)
            self._run(now.level, self.ladder.levels[now.level].actions)
        elif now.armed and now.since:
            level = self.ladder.levels[now.level]
            self._run(now.level, tuple(each.action for each in level.periodic if now.since % each.every == 0))
        self._hold()

    def _run(self, index: int, actions: tuple[p.Action, ...]) -> None:
        """Do a level's actions once; those that are held are asked for again on every tick."""
        for action in actions:
            if isinstance(action, p.ScaleLr):
                self.configuration = self.ladder.scale(self.configuration, index, self._known(action.by))
            elif not isinstance(action, p.Clip | p.Freeze):
                self._ask(self.ladder.levels[index].rule, action)

    def _hold(self) -> None:
        now = self.configuration
        for index, level in enumerate(self.ladder.levels):
            rule = level.rule
            for action in level.actions if now.holding[index] else ():
                if isinstance(action, p.Clip | p.Freeze):
                    self._ask(rule, action)
            if now.factors[index] < 1.0:
                self._scale(rule, now.factors[index])

    def _ask(self, rule: str, action: p.Action) -> None:
        match action:
            case p.Clip(to):
                self._careful(Request("clip", rule, self.value(to)), least=True)
            case p.Freeze(share, by, group):
                self._careful(Request("freeze", rule, share, by, group), least=False)
            case p.Rollback(at_most):
                self.found.setdefault("rollback", Request("rollback", rule, float(at_most)))
            case p.Custom(name, amount):
                self.found.setdefault(name, Request(name, rule, None if amount is None else self.value(amount)))
            case _:
                name = p.ACTION_NAMES[type(action)]
                self.found.setdefault(name, Request(name, rule))

    def _careful(self, request: Request, *, least: bool) -> None:
        known = self.found.get(request.action)
        if known is None or _more_careful(request.amount, known.amount, least=least):
            self.found[request.action] = request

    def _scale(self, rule: str, factor: float) -> None:
        known = self.found.get("scale_lr")
        if known is None:
            self.found["scale_lr"] = Request("scale_lr", rule, factor)
        else:
            self.found["scale_lr"] = evolve(known, amount=(known.amount or 0.0) * factor)

    def _known(self, number: Number) -> float:
        """Return a number; one that is not ready is NaN, which every bound reads as its careful end."""
        value = self.value(number)
        return math.nan if value is None else value


def _more_careful(new: float | None, old: float | None, *, least: bool) -> bool:
    """Tell whether an amount is to be preferred; one that is not a number never is."""
    if new is None or math.isnan(new):
        return False
    return old is None or math.isnan(old) or (new < old) == least
