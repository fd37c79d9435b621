"""What the conditions of a policy's levels said in a made run, tick by tick."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from lbw_policy.machine import Session
from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.expressions import Truth
from lbw_policy.trials.running import step
from lbw_policy.trials.series import samples


@frozen
class Readout:
    """One tick: the level's place before and after, and what each level's `enter` and `leave` said on its readings."""

    before: int
    after: int
    enter: tuple[int | None, ...]
    leave: tuple[int | None, ...]

    @property
    def calm(self) -> bool:
        """Whether no `enter` holds, and the present level's `leave` is true if it has one."""
        alarmed = any(truth is not None and truth >= Truth.UNKNOWN for truth in self.enter)
        return not alarmed and self.leave[self.before] in (None, Truth.TRUE)

    def torn(self, place: int) -> bool:
        """Tell whether a level is left on readings that count towards its `enter`, and make its `leave` true."""
        enter = self.enter[place]
        falls = self.before == place > self.after
        return falls and enter is not None and enter >= Truth.UNKNOWN and self.leave[place] == Truth.TRUE


def readouts(policy: p.Policy, trial: t.Trial) -> Iterator[Readout]:
    """Yield what the conditions said at each tick of a test."""
    session = Session(policy)
    machine, program = session.machine, session.machine.program
    given = {series.title: samples(series, trial.ticks) for series in trial.given}

    def said(places: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(None if at is None else machine.evaluator.truth(at) for at in places)

    for tick in range(trial.ticks):
        before = machine.configuration.level
        step(session, given, tick)
        yield Readout(before, machine.configuration.level, said(program.enter), said(program.leave))


def ends_calm(policy: p.Policy, trial: t.Trial, ticks: int) -> bool:
    """Tell whether the last `ticks` ticks of a test are all calm."""
    found = [one.calm for one in readouts(policy, trial)]
    return len(found) >= ticks and all(found[-ticks:])


def is_torn(policy: p.Policy, trial: t.Trial, level: str) -> bool:
    """Tell whether a test leaves a level on readings on which it would be entered."""
    place = next(at for at, one in enumerate(policy.levels) if one.name == level)
    return any(one.torn(place) for one in readouts(policy, trial))
