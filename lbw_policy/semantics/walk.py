"""Walks the expressions of a policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import fields

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Condition, Expression, Number
from lbw_policy.semantics.signals import OWN


def own(signal: p.Signal) -> bool:
    """Tell whether a signal is one of the guard's own numbers; one that the loop tells may have the same name."""
    return signal.source in OWN and not signal.observed


def parts(*roots: Expression) -> Iterator[Expression]:
    """Yield expressions and everything in them, each distinct part once."""
    seen: set[Expression] = set()
    stack = [*reversed(roots)]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            yield node
            stack += reversed(children(node))  # left before right, as it is written


def children(node: Expression) -> list[Expression]:
    """Return the direct operands of an expression."""
    values = [getattr(node, attribute.name) for attribute in fields(type(node))]
    return [value for value in values if isinstance(value, Expression)]


def actions_of(policy: p.Policy) -> list[p.Action]:
    """Return every action any rule of the policy may ask for, as a fallback too."""
    rules: tuple[p.Reflex | p.Level, ...] = (*policy.reflexes, *policy.levels)
    return [one for rule in rules for action in first_actions(rule) for one in chain(action)]


def first_actions(rule: p.Reflex | p.Level) -> list[p.Action]:
    """Return the actions a rule asks for by itself, without what it declares as a fallback."""
    periodic = rule.periodic if isinstance(rule, p.Level) else ()
    return [*rule.actions, *(each.action for each in periodic)]


def chain(action: p.Action) -> Iterator[p.Action]:
    """Yield an action and, in order, what is declared as its fallback."""
    following: p.Action | None = action
    while following is not None:
        yield following
        following = following.otherwise


def conditions_of(policy: p.Policy) -> list[Condition]:
    """Return every condition of a policy, in order: reflexes, levels (enter, leave), alerts."""
    found: list[Condition] = [reflex.condition for reflex in policy.reflexes]
    for level in policy.levels:
        found += [trigger.condition for trigger in (level.enter, level.leave) if trigger]
    return found + [alert.trigger.condition for alert in policy.alerts]


def amounts(actions: Iterable[p.Action]) -> list[Number]:
    """Return the numbers that actions ask for, those of fallbacks only where they are among the actions."""
    found: list[Number] = []
    for action in actions:
        if isinstance(action, p.Clip):
            found.append(action.to)
        elif isinstance(action, p.ScaleLr):
            found.append(action.by)
        elif isinstance(action, p.Custom) and action.amount is not None:
            found.append(action.amount)
    return found


def numbers_of(policy: p.Policy) -> list[Number]:
    """Return every number a policy evaluates outside of conditions: amounts, features, alert values."""
    found = amounts(actions_of(policy))
    found += [number for risk in policy.risks for _, number in risk.features]
    return found + [number for alert in policy.alerts for _, number in alert.values]
