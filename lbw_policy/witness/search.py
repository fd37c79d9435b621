"""Looks for telemetry that brings a policy to a goal, on the real session, by climbing a score; repeatable by seed.

A run is built phase by phase. What led to one goal is kept with the state of its session, so that the search for the
next goes on from there and pays for the new ticks only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import define, evolve, field, frozen

from lbw_policy.limits import Outcome
from lbw_policy.machine import Session
from lbw_policy.machine.program import tests_in
from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.expressions import Finite
from lbw_policy.semantics.walk import conditions_of, parts
from lbw_policy.trials.running import step
from lbw_policy.trials.series import samples
from lbw_policy.trials.trace import Moment
from lbw_policy.witness.aims import is_finite, palette
from lbw_policy.witness.healthy import healthy
from lbw_policy.witness.nearness import Look, Wish, look
from lbw_policy.witness.scripts import Channel, Phase, Script, titles_in

Run = Sequence[Moment]
"""The ticks of the present phase so far."""
Shapes = Mapping[str, t.Stretch]
_LONGER = 4
_RESTARTS = 4
LONGEST_PHASE = 2_048


def never(_: Run) -> bool:
    """Hold of no run."""
    return False


def _nothing(_: Run) -> float:
    return 0.0


@frozen
class Goal:
    """What one phase of a run shall bring about: that `reached` holds, or (`together`) all wishes on one tick.

    `reached` is asked after every tick, `lost` tells that it is no use to go on. `titles` are the channels to vary,
    `ticks` is a phase's first length; unless `fixed`, it is made longer if that does not do. The wishes and the bonus
    are the score.
    """

    reached: Callable[[Run], bool]
    titles: tuple[str, ...]
    ticks: int
    wishes: tuple[Wish, ...] = ()
    together: bool = False
    lost: Callable[[Run], bool] = never
    bonus: Callable[[Run], float] = _nothing
    fixed: bool = False

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths of a phase to try."""
        longer = min(_LONGER * self.ticks, LONGEST_PHASE)
        return (self.ticks,) if self.fixed or longer <= self.ticks else (self.ticks, longer)


@frozen
class Effort:
    """The most that a search for one goal may cost, in phases tried and in ticks run."""

    tries: int = 240
    ticks: int = 8_000


@frozen
class Standing:
    """A run so far: its script, what its last phase did, and the state of its session."""

    script: Script
    state: Mapping[str, Any]
    last: tuple[Moment, ...] = ()

    @property
    def shapes(self) -> Shapes:
        """How the last phase looks."""
        return self.script.phases[-1].shapes if self.script.phases else {}


@frozen
class _Attempt:
    shapes: Shapes
    score: float
    standing: Standing | None = None


@define
class _Scoring:
    """How near the wishes of a goal come in one phase, tick by tick."""

    goal: Goal
    near: list[list[float]] = field(factory=list)

    def take(self, seen: Look) -> None:
        self.near.append([seen.near(wish) for wish in self.goal.wishes])

    @property
    def granted(self) -> bool:
        """Whether all wishes came true on the last tick, where that is the goal."""
        return self.goal.together and min(self.near[-1]) >= 1.0

    def score(self) -> float:
        if self.goal.together:
            return max((0.5 * min(tick) + 0.5 * sum(tick) / len(tick) for tick in self.near), default=0.0)
        found = zip(self.goal.wishes, zip(*self.near, strict=True), strict=False)
        return sum(wish.score(near) for wish, near in found) / max(1, len(self.goal.wishes))


class _SpentError(Exception):
    """The effort is used up."""


@define
class Search:
    """Searches for one policy; `tries` and `ticks` count what all its searches have cost.

    `nearest` is the script of the best try of the last search.
    """

    policy: p.Policy
    effort: Effort = field(factory=Effort)
    seed: int = 0
    channels: tuple[Channel, ...] = field(init=False)
    nearest: Script | None = field(init=False, default=None)
    tries: int = field(init=False, default=0)
    ticks: int = field(init=False, default=0)
    _session: Session = field(init=False)
    _fresh: Mapping[str, Any] = field(init=False)
    _until: Effort = field(init=False, factory=Effort)
    _best: float = field(init=False, default=-math.inf)

    def __attrs_post_init__(self) -> None:
        self.channels = healthy(self.policy)
        self._session = Session(self.policy)
        self._fresh = self._session.state_dict()

    def begin(self, titles: Sequence[str], warm: int, *, noise: float = 0.0) -> Standing:
        """Return the end of a healthy beginning in which only these channels, and those needed, are given.

        `noise` is the standard deviation of its signals as a share of their levels.
        """
        given = tuple(one.noisy(noise) for one in self.channels if one.needed or one.title in titles)
        self._session.load_state_dict(self._fresh)
        last = tuple(self._steps(Script(given, warm), 0))
        return Standing(Script(given, warm), self._session.state_dict(), last)

    def already(self, start: Standing, goal: Goal) -> Standing | None:
        """Return a beginning cut off where it reaches a goal by itself; None if it does not."""
        ticks = (tick for tick in range(1, len(start.last) + 1) if goal.reached(start.last[:tick]))
        warm = next(ticks, None)
        return None if warm is None else self.begin([one.title for one in start.script.channels], warm)

    def extend(self, start: Standing, phase: Phase, goal: Goal | None = None) -> Standing:
        """Return the run with one more phase, cut off where it reaches the goal."""
        script, moments = start.script.then(phase), []
        self._session.load_state_dict(start.state)
        for moment in self._steps(script, start.script.ticks):
            moments.append(moment)
            if _halts(moment) or (goal and (goal.reached(moments) or goal.lost(moments))):
                break
        done = start.script.then(phase.cut(len(moments)))
        return Standing(done, self._session.state_dict(), tuple(moments))

    def reach(
        self, start: Standing, goal: Goal, first: Sequence[Shapes] = ({},), effort: Effort | None = None
    ) -> Standing | None:
        """Return the run with one more phase that ends where the goal is reached; None if none was found.

        The shapes in `first` are tried before any others. `effort` stands in for that of the search.
        """
        most = effort or self.effort
        self._until = Effort(self.tries + most.tries, self.ticks + most.ticks)
        self._best, self.nearest = -math.inf, None
        try:
            return self._climb_from(start, goal, first)
        except _SpentError:
            return None

    def _steps(self, script: Script, first: int) -> Iterator[Moment]:
        given = {series.title: samples(series, script.ticks) for series in script.given()}
        for tick in range(first, script.ticks):
            self.ticks += 1
            yield step(self._session, given, tick)

    # Climbing

    def _climb_from(self, start: Standing, goal: Goal, first: Sequence[Shapes]) -> Standing | None:
        draw = random.Random(f"{self.policy.name} {self.seed}")  # noqa: S311 - made telemetry, not a secret
        palettes = self._palettes(start, goal)
        plain = {title: [one for one in shapes if _is_plain(one, title, goal)] for title, shapes in palettes.items()}
        for ticks in goal.lengths:
            longer = evolve(goal, ticks=ticks)
            best = self._best_of(start, longer, self._attempt(start, longer, first[0]), first[1:])
            for choice in (plain, palettes):
                best = self._climb(start, longer, choice, best)
            for _ in range(_RESTARTS):
                if best.standing:
                    return best.standing
                shapes = {title: draw.choice(shapes) for title, shapes in palettes.items()}
                best = self._climb(start, longer, palettes, self._attempt(start, longer, shapes))
            if best.standing:
                return best.standing
        return None

    def _climb(
        self, start: Standing, goal: Goal, palettes: Mapping[str, Sequence[t.Stretch]], best: _Attempt
    ) -> _Attempt:
        """Change one channel after the other for the better until none can be."""
        before = -math.inf
        while best.standing is None and best.score > before:
            before = best.score
            for title, shapes in palettes.items():
                best = self._best_of(start, goal, best, [{**best.shapes, title: shape} for shape in shapes])
                if best.standing:
                    return best
        return best

    def _best_of(self, start: Standing, goal: Goal, best: _Attempt, choices: Sequence[Shapes]) -> _Attempt:
        for shapes in choices if best.standing is None else ():
            if shapes == best.shapes:
                continue
            found = self._attempt(start, goal, shapes)
            if found.standing:
                return found
            best = found if found.score > best.score else best
        return best

    def _attempt(self, start: Standing, goal: Goal, shapes: Shapes) -> _Attempt:
        """Run one phase and score it."""
        self._may_go_on()
        scoring, moments, phase = _Scoring(goal), [], Phase(goal.ticks, shapes)
        self._session.load_state_dict(start.state)
        for moment in self._steps(start.script.then(phase), start.script.ticks):
            moments.append(moment)
            reached = goal.reached(moments)
            if not reached and (goal.lost(moments) or _halts(moment)):
                break
            scoring.take(look(self._session.machine, moment))
            if reached or scoring.granted:
                done = start.script.then(phase.cut(len(moments)))
                return _Attempt(shapes, math.inf, Standing(done, self._session.state_dict(), tuple(moments)))
        score = scoring.score() + goal.bonus(moments)
        if score > self._best:
            self._best, self.nearest = score, start.script.then(phase.cut(len(moments)))
        return _Attempt(shapes, score)

    def _may_go_on(self) -> None:
        if self.tries >= self._until.tries or self.ticks >= self._until.ticks:
            raise _SpentError
        self.tries += 1

    def _palettes(self, start: Standing, goal: Goal) -> dict[str, list[t.Stretch]]:
        wished = [wish.condition for wish in goal.wishes] or conditions_of(self.policy)
        tests = [test for condition in wished for test in tests_in(condition)]
        levels = {one.title: one.level for one in self.channels}
        given = [one for one in start.script.channels if one.title in goal.titles]
        return {one.title: palette(one, tests, levels) for one in given}


def _is_plain(shape: t.Stretch, title: str, goal: Goal) -> bool:
    """Tell whether a shape is finite, or its channel is one whose finiteness the goal asks about."""
    asked = (node for wish in goal.wishes for node in parts(wish.condition) if isinstance(node, Finite))
    return is_finite(shape) or any(title in titles_in(node) for node in asked)


def _halts(moment: Moment) -> bool:
    return any(grant.request.action == "halt" and grant.outcome is not Outcome.REFUSED for grant in moment.grants)
