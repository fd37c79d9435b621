"""The levels as a system walk as the running ladder does, and its small cases are explored to the end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.machine.ladder import Configuration, Ladder, Truths
from lbw_policy.semantics.expressions import Finite, Reading, Truth
from lbw_policy.semantics.policy import Level, Trigger
from lbw_policy.verify.calm import ticks_to_normal
from lbw_policy.verify.laddering import longest, spacing
from lbw_policy.verify.rungs import inputs_of, ladder_system, rungs_of, state_of
from lbw_policy.verify.terms import evaluate
from tests.strategies import ladders

F, T = int(Truth.FALSE), int(Truth.TRUE)
CONDITION = Finite(Reading("loss"))


@st.composite
def runs(draw: st.DrawFn) -> tuple[Ladder, list[Truths]]:
    """A ladder and what its triggers say, mostly one or the other, so that holds are met."""
    ladder = draw(ladders())
    value = st.sampled_from(draw(st.sampled_from([[0, 1, 2, 3], [0, 3], [2, 3, 3], [0, 0, 3]])))
    enter = st.tuples(*(value if level.enter else st.none() for level in ladder.levels))
    return ladder, draw(st.lists(st.builds(Truths, enter, value | st.just(T)), min_size=5, max_size=30))


@settings(deadline=None, max_examples=60)
@given(runs())
def test_every_run_of_the_ladder_is_a_run_of_the_system(case: tuple[Ladder, list[Truths]]) -> None:
    ladder, ticks = case
    levels, now = ladder.levels, ladder.start()
    system = ladder_system(levels)
    state = {name: evaluate(first, {}) for name, first in system.start.items()}
    assert state == state_of(levels, now)
    for truths in ticks:
        inputs = inputs_of(levels, now, truths)
        assert evaluate(system.allowed, {**state, **inputs})
        state = system.run_step(state, inputs)
        now, _ = ladder.advance(now, truths)
        assert state == state_of(levels, now)


@settings(deadline=None, max_examples=40)
@given(runs(), st.data())
def test_the_system_can_always_go_on(case: tuple[Ladder, list[Truths]], data: st.DataObject) -> None:
    """Whatever a window may have lost so far, some loss is allowed for each truth: no run is cut short."""
    ladder, ticks = case
    system = ladder_system(ladder.levels)
    rungs = rungs_of(ladder.levels)
    state = {name: evaluate(first, {}) for name, first in system.start.items()}
    for truths in ticks[:8]:
        given_ = {rung.own("enter").name: int(truths.enter[rung.place] or 0) for rung in rungs}
        lost = ["leaving lost", *(rung.own("lost").name for rung in rungs)]
        choices = [dict(zip(lost, losses, strict=True)) for losses in itertools.product((0, 1), repeat=len(lost))]
        open_ = [{**given_, "leave": int(truths.leave or 0), **one} for one in choices]
        possible = [one for one in open_ if evaluate(system.allowed, {**state, **one})]
        assert possible
        state = system.run_step(state, data.draw(st.sampled_from(possible)))


# Small ladders, explored to the end on the running machine


@frozen
class Graph:
    """All configurations a ladder can reach, and where one tick leads from each, and whether it enters a level."""

    ladder: Ladder
    edges: dict[Configuration, list[tuple[Configuration, bool]]]

    @classmethod
    def of(cls, levels: tuple[Level, ...]) -> Graph:
        """Explore a ladder."""
        ladder = Ladder(levels)
        enters = itertools.product((F, T), repeat=len(levels) - 1)
        ticks = [Truths((None, *enter), leave) for enter in enters for leave in (F, T)]
        edges: dict[Configuration, list[tuple[Configuration, bool]]] = {}
        left = [ladder.start()]
        while left:
            now = left.pop()
            if now not in edges:
                edges[now] = [_plain(levels, *ladder.advance(now, truths)) for truths in ticks]
                left += [after for after, _ in edges[now]]
        return cls(ladder, edges)

    def gap(self, place: int) -> int | None:
        """Return the fewest ticks between two entries of a level, by breadth-first search."""
        front = {after for ways in self.edges.values() for after, entered in ways if entered and after.level == place}
        seen, ticks = set(front), 0
        while front:
            ticks += 1
            ways = [way for now in front for way in self.edges[now]]
            if any(entered and after.level == place for after, entered in ways):
                return ticks
            front = {after for after, _ in ways} - seen
            seen |= front
        return None

    def dwell(self, place: int) -> int | None:
        """Return the most ticks in a row in a level, None if there is no most."""
        inside = {now for now in self.edges if now.level == place}
        ticks = 0
        while inside:
            ticks += 1
            if ticks > len(self.edges):
                return None
            inside = {after for now in inside for after, _ in self.edges[now] if after.level == place}
        return ticks

    def calm(self, most: int) -> int:
        """Return the most ticks of calm after which the calm level is still not reached for good, and one more."""
        quiet = Truths((None, *(F for _ in self.ladder.levels[1:])), T)
        worst = 0
        for start in self.edges:
            now = start
            for tick in range(most):
                worst = max(worst, tick + 1) if now.level else worst
                now, _ = self.ladder.advance(now, quiet)
        return worst


def _plain(levels: Sequence[Level], now: Configuration, entered: bool) -> tuple[Configuration, bool]:
    """Forget the time in a level that has no `stay`, so that there are finitely many configurations."""
    return (now if levels[now.level].stay is not None else evolve(now, since=0)), entered


def _triggers(most: int) -> st.SearchStrategy[Trigger]:
    holds = st.integers(1, most).flatmap(lambda window: st.tuples(st.integers(1, window), st.just(window)))
    return holds.map(lambda hold: Trigger(CONDITION, *hold))


@st.composite
def small_levels(draw: st.DrawFn) -> tuple[Level, ...]:
    """One or two levels with numbers so small that all their runs can be explored."""
    rungs = []
    for index in range(draw(st.integers(1, 2))):
        leave = draw(st.none() | _triggers(2))
        stay = draw(st.none() | st.integers(1, 3))
        rungs.append(Level(f"l{index}", draw(_triggers(3)), leave, stay, draw(st.integers(0, 2))))
    return (Level("normal"), *rungs)


@settings(deadline=None, max_examples=100)
@given(small_levels())
def test_the_bounds_of_visits_and_of_oscillation_are_met_exactly(levels: tuple[Level, ...]) -> None:
    graph, rungs = Graph.of(levels), rungs_of(levels)
    for rung in rungs:
        assert spacing(rungs, rung) == graph.gap(rung.place)
        assert longest(rungs, rung) == graph.dwell(rung.place)


@settings(deadline=None, max_examples=60)
@given(small_levels())
def test_calm_never_takes_longer_than_its_bound(levels: tuple[Level, ...]) -> None:
    bound = ticks_to_normal(rungs_of(levels))
    if bound is not None:
        assert Graph.of(levels).calm(bound + 8) <= bound


def test_the_bound_of_calm_is_met() -> None:
    trigger = {size: Trigger(CONDITION, *size) for size in ((1, 1), (1, 2), (2, 3), (2, 2))}
    for levels in (
        (Level("normal"), Level("low", trigger[(2, 2)], trigger[(2, 2)])),
        (Level("normal"), Level("low", trigger[(1, 2)], trigger[(1, 1)], 3), Level("high", trigger[(2, 3)], None, 2)),
        (
            Level("normal"),
            Level("low", trigger[(1, 1)], trigger[(2, 2)], 3, 2),
            Level("high", trigger[(2, 2)], None, 3),
        ),
    ):
        bound = ticks_to_normal(rungs_of(levels))
        assert bound is not None
        assert Graph.of(levels).calm(bound + 8) == bound
