"""The levels: every path through small ladders, against the closed forms of the authority card."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import inf

import pytest
from attrs import evolve

from lbw_policy.authority import visits
from lbw_policy.machine.ladder import Configuration, Ladder, Truths
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Truth
from tests.authority.controlled import told

Steps = dict[Configuration, list[tuple[Configuration, bool, bool]]]
"""What may follow each configuration: it, whether a level is entered with its actions, whether the tick is calm."""


def every_step(ladder: Ladder) -> Steps:
    """Return each configuration that can be reached, with what may follow it."""
    whole, found, todo = ladder.start(), {}, [ladder.start()]
    while todo:
        now = todo.pop()
        if now in found:
            continue
        found[now] = []
        leave = (Truth.FALSE, Truth.TRUE) if ladder.levels[now.level].leave else (None,)
        for enter in itertools.product(*((Truth.FALSE, Truth.TRUE) if one.enter else (None,) for one in ladder.levels)):
            for goes in leave:
                after, entered = ladder.advance(now, Truths(enter, goes))
                since = min(after.since, ladder.levels[after.level].stay or 1)
                after = evolve(after, since=since, factors=whole.factors, restoring=whole.restoring)
                calm_ = Truth.TRUE not in enter and goes is not Truth.FALSE
                found[now].append((after, entered, calm_))
                todo.append(after)
    return found


def rung(name: str, hold: tuple[int, int], leave: tuple[int, int] | None, stay: int | None, cooldown: int) -> p.Level:
    condition = told(name)
    down = p.Trigger(condition, *leave) if leave else None
    return p.Level(name, p.Trigger(condition, *hold), down, stay, cooldown)


LADDERS = [
    (rung("a", (1, 1), (1, 1), 3, 0),),
    (rung("a", (2, 3), (2, 2), 4, 6),),
    (rung("a", (1, 2), None, 2, 3),),
    (rung("a", (1, 1), (1, 2), 2, 0), rung("b", (2, 2), (2, 2), 3, 2)),
    (rung("a", (2, 2), None, 3, 0), rung("b", (1, 1), (1, 1), 2, 7)),
    (rung("a", (1, 1), None, 2, 2), rung("b", (1, 1), None, 1, 5)),
    (rung("a", (1, 1), (1, 1), 2, 9), rung("b", (1, 2), (1, 1), 2, 1), rung("c", (1, 1), None, 1, 0)),
]


@pytest.mark.parametrize("above", LADDERS)
def test_no_path_through_the_levels_is_worse_than_the_card_and_one_is_as_bad(above: tuple[p.Level, ...]) -> None:
    """Every reachable configuration is looked at, with every truth of every trigger."""
    levels = (p.Level("normal"), *above)
    steps = every_step(Ladder(levels))
    assert visits.fastest_again(levels) == min(_again(steps, index) for index in range(1, len(levels)))
    assert visits.calm_return(levels) == max(_down(steps, one) for one in steps)
    assert (visits.longest_visit(levels) or inf) == _longest(steps, lambda now: now.level > 0)
    assert visits.longest_stay(levels) == max(
        _longest(steps, lambda now, at=index: now.level == at)
        for index in range(1, len(levels))  # type: ignore[misc]
    )


def _again(steps: Steps, index: int) -> float:
    """Return the fewest ticks between two entries of a level."""
    front = {after for found in steps.values() for after, entered, _ in found if entered and after.level == index}
    seen = set(front)
    for ticks in itertools.count(1):
        following = {(after, entered) for now in front for after, entered, _ in steps[now]}
        if any(entered and after.level == index for after, entered in following):
            return ticks
        front = {after for after, _ in following} - seen
        seen |= front
        if not front:
            return inf
    raise AssertionError


def _down(steps: Steps, now: Configuration) -> int:
    """Return after how many calm ticks the run is at the calm level for good."""
    path = [now]
    while path[-1] not in path[:-1]:
        path += [after for after, _, calm_ in steps[path[-1]] if calm_]
    assert path[-1].level == 0
    return max((tick for tick, one in enumerate(path) if one.level), default=-1) + 1


def _longest(steps: Steps, inside: Callable[[Configuration], bool]) -> float:
    """Return the most ticks in a row that a run can be somewhere; infinite where it can go round and round."""
    known: dict[Configuration, float] = {}

    def ticks(now: Configuration) -> float:
        if now not in known:
            known[now] = inf  # until it is known: whoever comes back here goes round
            known[now] = 1 + max((ticks(after) for after, _, _ in steps[now] if inside(after)), default=0)
        return known[now]

    return max((ticks(now) for now in steps if inside(now)), default=0)
