"""Gathers what one tick's rules ask for, at most one request of each action, and what they declare instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from attrs import define, field, frozen

from lbw_policy.limits.requests import Request
from lbw_policy.machine.ladder import Configuration, Ladder, lasts
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Number
from lbw_policy.semantics.walk import chain


@frozen
class Fallback:
    """What a rule declares in place of an action: by the level that goes on with it, or None for this update only."""

    rule: str
    action: p.Action
    level: int | None


@define
class Asking:
    """One tick's requests, at most one of each action.

    Of two rules the first speaks for `skip`, `rollback`, `halt` and the actions of plugins; of two norms and two shares
    the more careful one counts (the least norm, the greatest share); lr factors multiply. A clip of all gradients
    counts before one of each layer. Every rule's fallback counts.
    """

    ladder: Ladder
    configuration: Configuration
    value: Callable[[Number], float | None]
    found: dict[str, Request] = field(factory=dict)
    _declared: dict[str, list[Fallback]] = field(factory=dict)
    _factors: list[tuple[str, float]] = field(factory=list)
    """Rules with their lr factors for this update; those of levels are in the configuration."""

    def reflex(self, reflex: p.Reflex) -> None:
        """Ask for what a reflex does in this tick."""
        for action in reflex.actions:
            self._ask(reflex.rule, action)

    def levels(self, *, entered: bool) -> None:
        """Ask for what the held levels do: on entry, every so often, and on every tick."""
        now = self.configuration
        if entered:
            self.configuration = self.ladder.fresh(now)
            self._run(now.level, self.ladder.levels[now.level].actions)
        elif now.armed and now.since:
            level = self.ladder.levels[now.level]
            self._run(now.level, tuple(each.action for each in level.periodic if now.since % each.every == 0))
        for index, holding in enumerate(now.holding):
            for action in self.ladder.held(self.configuration, index) if holding else ():
                self._go_on(index, action)
        self._multiply()

    def instead(self, refused: Request, already: Collection[str]) -> tuple[Request, ...]:
        """Ask for what was declared in place of a refused request; return the requests as they are now.

        Of each chain this is the first action that is not refused `already`, else its last one.
        """
        names: dict[str, None] = {}
        for one in self._declared.pop(refused.action, ()):
            actions = [*chain(one.action)]
            action = next((action for action in actions if p.name_of(action) not in already), None)
            if action is not None:
                self._take_over(one, action)
            names[p.name_of(action or actions[-1])] = None
        return tuple(self.found[name] for name in names)

    @property
    def falls_back(self) -> bool:
        """Whether anything that was asked for has a fallback."""
        return bool(self._declared)

    # Levels

    def _run(self, index: int, actions: tuple[p.Action, ...]) -> None:
        """Do a level's actions once; those that last are asked for with all that the level holds."""
        for action in actions:
            if isinstance(action, p.ScaleLr):
                self.configuration = self.ladder.scale(self.configuration, index, self._known(action.by))
            if lasts(action):
                self.configuration = self.ladder.hold(self.configuration, index, action)
            else:
                self._ask(self.ladder.levels[index].rule, action, index)

    def _go_on(self, index: int, action: p.Action) -> None:
        """Ask for an action that a level holds; its lr factors are asked for together."""
        rule = self.ladder.levels[index].rule
        if isinstance(action, p.ScaleLr):
            self._declare(rule, action)
        else:
            self._ask(rule, action)

    def _take_over(self, fallback: Fallback, action: p.Action) -> None:
        """Do a fallback as its rule would have done it in place of the refused action."""
        if fallback.level is None or not lasts(action):
            self._ask(fallback.rule, action, fallback.level)
        else:
            self._run(fallback.level, (action,))
            self._go_on(fallback.level, action)
            self._multiply()
        if isinstance(action, p.ScaleLr):  # a level whose factor is 1 asks for none
            self.found.setdefault("scale_lr", Request("scale_lr", fallback.rule, 1.0))

    # Requests

    def _ask(self, rule: str, action: p.Action, level: int | None = None) -> None:
        """Ask for an action, and remember its fallback for the level that is to go on with it."""
        self._declare(rule, action, level)
        match action:
            case p.ScaleLr(by):
                self._factors.append((rule, self._known(by)))
                self._multiply()
            case p.Clip(to, layers):
                self._careful(Request("clip", rule, self.value(to), layers=layers), least=True)
            case p.Freeze(share, by, group):
                self._careful(Request("freeze", rule, share, by, group), least=False)
            case p.Rollback(at_most):
                self.found.setdefault("rollback", Request("rollback", rule, float(at_most)))
            case p.Custom(name, amount):
                self.found.setdefault(name, Request(name, rule, None if amount is None else self.value(amount)))
            case _:
                name = p.ACTION_NAMES[type(action)]
                self.found.setdefault(name, Request(name, rule))

    def _declare(self, rule: str, action: p.Action, level: int | None = None) -> None:
        if action.otherwise is not None:
            self._declared.setdefault(p.name_of(action), []).append(Fallback(rule, action.otherwise, level))

    def _careful(self, request: Request, *, least: bool) -> None:
        known = self.found.get(request.action)
        if known is None or _before(request, known, least=least):
            self.found[request.action] = request

    def _multiply(self) -> None:
        """Ask for the product of all lr factors, always in the same order: what is held stays exactly what it is."""
        held = zip(self.ladder.levels, self.configuration.factors, strict=True)
        factors = [*self._factors, *((level.rule, factor) for level, factor in held if factor < 1.0)]
        if factors:
            amount = math.prod(factor for _, factor in factors)
            self.found["scale_lr"] = Request("scale_lr", factors[0][0], amount)

    def _known(self, number: Number) -> float:
        """Return a number; one that is not ready is NaN, which every bound reads as its careful end."""
        value = self.value(number)
        return math.nan if value is None else value


def _before(new: Request, old: Request, *, least: bool) -> bool:
    """Tell whether a request of the same action is to be preferred."""
    if new.layers == old.layers:
        return _more_careful(new.amount, old.amount, least=least)
    return _is_finite(new.amount) if old.layers else not _is_finite(old.amount)


def _is_finite(amount: float | None) -> bool:
    return amount is not None and math.isfinite(amount)


def _more_careful(new: float | None, old: float | None, *, least: bool) -> bool:
    """Tell whether an amount is to be preferred; one that is not a number never is, nor one of two that are equal."""
    if new is None or math.isnan(new):
        return False
    return old is None or math.isnan(old) or (new < old if least else new > old)
