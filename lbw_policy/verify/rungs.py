"""A policy's levels as a transition system over integers: `Ladder.advance` for every truth of every trigger.

A hold `k of n` has 2**n windows; the system keeps three numbers of one: how many of its ticks count, how many
ticks have passed since the last that did, and (of `leave`) how many in a row did. Whether a tick that counted
falls out of the window is an input, within what the numbers allow. So every run of the ladder is a run of the
system, whose size does not grow with the windows.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from lbw_policy.machine.ladder import Configuration, Truths
from lbw_policy.semantics.expressions import Truth
from lbw_policy.semantics.policy import Level
from lbw_policy.verify.systems import System
from lbw_policy.verify.terms import BOOL, INT, Term, Value, either, every, least, most, term, variable, when

_UNKNOWN, _TRUE = int(Truth.UNKNOWN), int(Truth.TRUE)


@frozen
class Standing:
    """The variables of the whole ladder, before a tick or (with a mark behind their names) after it.

    `level`, `armed` and `since` are those of `Configuration`; `leaving` is how many ticks in the
    window of the present level's `leave` count, `run` how many of the last did without a gap.
    Inputs: `leave` is the truth of that trigger, `lost` is 1 where a tick that counted falls out.
    """

    level: Term
    armed: Term
    since: Term
    leaving: Term
    run: Term
    leave: Term
    lost: Term

    @classmethod
    def marked(cls, mark: str) -> Standing:
        """Return the variables with a mark."""
        level, armed = variable(f"level{mark}"), variable(f"armed{mark}", BOOL)
        return cls(level, armed, *(variable(f"{name}{mark}") for name in _NAMES), *(variable(name) for name in _INPUTS))


_NAMES, _INPUTS = ("since", "leaving", "leaving run"), ("leave", "leaving lost")
NOW, AFTER = Standing.marked(""), Standing.marked("'")


@frozen
class Rung:
    """A level above the calm one, by its place in the order, with its variables.

    `entering` is how many ticks in the window of `enter` count, `quiet` how many have passed since
    the last of them, up to the window; `cooling` and `holding` are those of `Configuration`.
    Inputs: `enter` is the truth of its trigger, `lost` is 1 where a tick that counted falls out.
    """

    place: int
    level: Level

    def own(self, word: str, sort: str = INT) -> Term:
        """Return the variable of that name of this level."""
        return variable(f"{word} {self.level.name}", sort)

    @property
    def here(self) -> Term:
        """That it is the present level."""
        return NOW.level.same(self.place)

    @property
    def count(self) -> int:
        """How many ticks its `enter` must hold."""
        return self.level.enter.count if self.level.enter else 0

    @property
    def shortest(self) -> int | None:
        """The fewest ticks after which it can be left downwards; None if it never can."""
        leave = self.level.leave
        ends = [end for end in (self.level.stay, leave.count if leave else None) if end is not None]
        return min(ends, default=None)


def rungs_of(levels: Sequence[Level]) -> tuple[Rung, ...]:
    """Return the levels above the calm one."""
    return tuple(Rung(place, level) for place, level in enumerate(levels) if place)


def ladder_system(levels: Sequence[Level]) -> System:
    """Return the levels as a system whose inputs are the truths of all triggers."""
    tick = _Tick(rungs_of(levels))
    step = tick.step()
    start = {name: term(False) if after.sort == BOOL else term(0) for name, after in step.items()}
    start |= {rung.own("quiet").name: term(rung.level.enter.window) for rung in tick.rungs if rung.level.enter}
    return System("levels", start, step, tick.allowed())


@frozen
class _Tick:
    """The terms of one tick, in the order of `Ladder.advance`: counting, up, down by `stay`, down by `leave`."""

    rungs: tuple[Rung, ...]
    since: Term = field(init=False)
    leaving: Term = field(init=False)
    run: Term = field(init=False)
    asks: tuple[Term, ...] = field(init=False)
    """Of each rung: that its `enter` fires, and that it can be entered."""
    up: Term = field(init=False)
    """That a level is entered, with its actions."""
    down: Term = field(init=False)
    """That the run goes one rung down."""
    target: Term = field(init=False)

    @since.default
    def _since(self) -> Term:
        return when(NOW.level > 0, NOW.since + 1, 0)

    @leaving.default
    def _leaving(self) -> Term:
        return NOW.leaving - NOW.lost + when(self._calm(), 1, 0)

    @run.default
    def _run(self) -> Term:
        return when(self._calm(), NOW.run + 1, 0)

    def _calm(self) -> Term:
        """Return that the present level's `leave` is true: unknown and not ready never let a level be left."""
        return NOW.leave.same(_TRUE) & either(*(rung.here for rung in self.rungs if rung.level.leave))

    @asks.default
    def _asks(self) -> tuple[Term, ...]:
        return tuple(_asks(rung) for rung in self.rungs)

    @up.default
    def _up(self) -> Term:
        return either(*self.asks)

    @down.default
    def _down(self) -> Term:
        stays = ((rung, rung.level.stay) for rung in self.rungs)
        over = [rung.here & (self.since >= stay) for rung, stay in stays if stay is not None]
        leaves = ((rung, rung.level.leave) for rung in self.rungs)
        released = [rung.here & (self.leaving >= leave.count) for rung, leave in leaves if leave]
        return ~self.up & either(*over, *released)

    @target.default
    def _target(self) -> Term:
        target = when(self.down, NOW.level - 1, NOW.level)
        for rung, asks in zip(self.rungs, self.asks, strict=True):
            target = when(asks, rung.place, target)
        return target

    def step(self) -> dict[str, Term]:
        """Return every state variable after the tick."""
        moved = self.up | self.down
        step = {
            NOW.level.name: self.target,
            NOW.armed.name: self.up | (NOW.armed & ~self.down),
            NOW.since.name: when(moved, 0, self.since),
            NOW.leaving.name: when(moved, 0, self.leaving),
            NOW.run.name: when(moved, 0, self.run),
        }
        for rung in self.rungs:
            step |= self._step_of(rung)
        return step

    def _step_of(self, rung: Rung) -> dict[str, Term]:
        reached = (self.up | self.down) & self.target.same(rung.place)
        kept = rung.own("holding", BOOL) & (self.target >= rung.place)  # below a level, what it holds is let go
        step = {
            rung.own("cooling").name: when(self.down & rung.here, rung.level.cooldown, _cooled(rung)),
            rung.own("holding").name: kept | (self.up & self.target.same(rung.place)),
        }
        if rung.level.enter:
            step[rung.own("entering").name] = when(reached, 0, _counted(rung))
            step[rung.own("quiet").name] = when(reached, rung.level.enter.window, _quiet(rung))
        return step

    def allowed(self) -> Term:
        """Return what inputs may be: truths, and losses that fit the windows."""
        lost = (NOW.lost >= 0) & (NOW.lost <= 1) & (NOW.lost <= NOW.leaving) & (self.run <= self.leaving)
        return every(_truth(NOW.leave), lost, *(_fits(rung) for rung in self.rungs))


def _asks(rung: Rung) -> Term:
    enter = rung.level.enter
    if enter is None:
        return term(False)
    reachable = (NOW.level < rung.place) | (rung.here & ~NOW.armed)
    return (_counted(rung) >= enter.count) & (_cooled(rung).same(0) | rung.here) & reachable


def _truth(truth: Term) -> Term:
    return (truth >= 0) & (truth <= _TRUE)


def _counts(rung: Rung) -> Term:
    return rung.own("enter") >= _UNKNOWN


def _counted(rung: Rung) -> Term:
    return rung.own("entering") - rung.own("lost") + when(_counts(rung), 1, 0)


def _quiet(rung: Rung) -> Term:
    window = rung.level.enter.window if rung.level.enter else 0
    return when(_counts(rung), 0, least(rung.own("quiet") + 1, window))


def _cooled(rung: Rung) -> Term:
    return most(rung.own("cooling") - 1, 0)


def _fits(rung: Rung) -> Term:
    """Tell that a loss leaves at most as many ticks that count as the window has had since its quiet began."""
    enter, lost = rung.level.enter, rung.own("lost")
    if enter is None:
        return every()
    counted = _counted(rung)
    fits = (counted <= term(enter.window) - _quiet(rung)) & _counts(rung).implies(counted >= 1)
    return every(_truth(rung.own("enter")), lost >= 0, lost <= 1, lost <= rung.own("entering"), fits)


# The running machine


def state_of(levels: Sequence[Level], now: Configuration) -> dict[str, Value]:
    """Return the system's state for a configuration of the running ladder: the numbers it keeps of each window."""
    present = levels[now.level].leave
    state: dict[str, Value] = {NOW.level.name: now.level, NOW.armed.name: now.armed, NOW.since.name: now.since}
    state |= {
        NOW.leaving.name: now.leaving.bit_count(),
        NOW.run.name: _trailing(~now.leaving, present.window if present else 0),
    }
    for rung in rungs_of(levels):
        state |= {
            rung.own("cooling").name: now.cooling[rung.place],
            rung.own("holding").name: now.holding[rung.place],
        }
        if rung.level.enter:
            mask = now.entering[rung.place]
            state[rung.own("entering").name] = mask.bit_count()
            state[rung.own("quiet").name] = _trailing(mask, rung.level.enter.window)
    return state


def inputs_of(levels: Sequence[Level], now: Configuration, truths: Truths) -> dict[str, Value]:
    """Return the system's inputs for what a tick tells the running ladder in a configuration."""
    present = levels[now.level].leave
    inputs: dict[str, Value] = {NOW.leave.name: int(truths.leave or 0)}
    inputs[NOW.lost.name] = _oldest(now.leaving, present.window if present else 1)
    for rung in rungs_of(levels):
        if rung.level.enter:
            inputs[rung.own("enter").name] = int(truths.enter[rung.place] or 0)
            inputs[rung.own("lost").name] = _oldest(now.entering[rung.place], rung.level.enter.window)
    return inputs


def _oldest(mask: int, window: int) -> int:
    return mask >> (window - 1) & 1


def _trailing(mask: int, window: int) -> int:
    """Count the zeros at the end of a window."""
    return next((place for place in range(window) if mask >> place & 1), window)
