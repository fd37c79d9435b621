"""Which number and which condition of the evaluator belongs to which rule."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Comparison, Condition, Finite, Number
from lbw_policy.semantics.walk import conditions_of, numbers_of, parts


@frozen
class Program:
    """A policy's distinct expressions in order, and each rule's place among them.

    `numbers` has amounts, features and alert values, and both sides of every comparison, so that a
    record can tell what was compared with what.
    """

    numbers: tuple[Number, ...]
    conditions: tuple[Condition, ...]
    number_index: Mapping[Number, int]
    reflexes: tuple[int, ...]
    enter: tuple[int | None, ...]
    leave: tuple[int | None, ...]
    alerts: tuple[int, ...]

    @staticmethod
    def of(policy: p.Policy) -> Program:
        """Compile the index of a policy."""
        conditions = tuple(dict.fromkeys(conditions_of(policy)))
        index = {condition: place for place, condition in enumerate(conditions)}
        numbers = tuple(dict.fromkeys([*numbers_of(policy), *_sides(conditions)]))
        triggers = [(level.enter, level.leave) for level in policy.levels]
        return Program(
            numbers=numbers,
            conditions=conditions,
            number_index={number: place for place, number in enumerate(numbers)},
            reflexes=tuple(index[reflex.condition] for reflex in policy.reflexes),
            enter=tuple(index[enter.condition] if enter else None for enter, _ in triggers),
            leave=tuple(index[leave.condition] if leave else None for _, leave in triggers),
            alerts=tuple(index[alert.trigger.condition] for alert in policy.alerts),
        )


def tests_in(condition: Condition) -> list[Comparison | Finite]:
    """Return what a condition tests numbers by."""
    return [part for part in parts(condition) if isinstance(part, Comparison | Finite)]


def _sides(conditions: tuple[Condition, ...]) -> list[Number]:
    found = [part for condition in conditions for part in tests_in(condition)]
    return [side for test in found for side in sides(test)]


def sides(test: Comparison | Finite) -> tuple[Number, ...]:
    """Return the numbers a test looks at."""
    return (test.argument,) if isinstance(test, Finite) else (test.left, test.right)
