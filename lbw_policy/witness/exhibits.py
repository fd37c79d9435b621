"""A made run and what it shows, as a test: one that passes for what can happen, one that fails for a broken promise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve, frozen

from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.trials.judging import judge
from lbw_policy.trials.running import run_trial, trace_of
from lbw_policy.trials.trace import Moment, Trace
from lbw_policy.witness.blocks import expectation
from lbw_policy.witness.scripts import Script
from lbw_policy.witness.shortening import shortened


@frozen
class Exhibit:
    """What a run is to show: the claims it makes about a trace, none where the trace does not show it.

    `passes` tells whether the claims must all hold, or at least one must not. `fits` tells whether a run meets what the
    promise takes for granted.
    """

    policy: p.Policy
    name: str
    claims: Callable[[Trace], Sequence[t.Claim]]
    passes: bool
    fits: Callable[[t.Trial], bool] = lambda _: True

    def shown_by(self, script: Script) -> t.Trial | None:
        """Return the shortest test found that shows it, confirmed by a run of its own; None if the script does not."""
        trial = shortened(script, self.show)
        return trial if trial and run_trial(self.policy, trial).passed == self.passes else None

    def show(self, script: Script) -> t.Trial | None:
        """Return the test that a script makes, None where it does not show what it should."""
        trial = script.trial(self.name)
        trace = trace_of(self.policy, trial)
        expected = tuple(expectation(claim, script.ticks) for claim in self.claims(trace))
        shown = expected and all(judge(one, trace).passed for one in expected) == self.passes
        return evolve(trial, expectations=expected) if shown and self.fits(trial) else None


def at(level: str, tick: int) -> t.Stands:
    """Return the claim that a run is at a level at a tick."""
    return t.Stands(level, t.During(tick, tick))


def within(level: str, ticks: int, after: int) -> t.Stands:
    """Return the claim that a run is at a level at one of `ticks` ticks after a tick."""
    return t.Stands(level, t.During(after, after + ticks, any=True))


def ever(level: str, trace: Trace, after: int = 0) -> t.Stands:
    """Return the claim that a run is at a level at some tick, from one on."""
    return t.Stands(level, t.During(after, len(trace.moments) - 1, any=True))


def first(trace: Trace, holds: Callable[[Moment], bool], after: int = -1) -> Moment | None:
    """Return the first tick of a run later than `after` at which something holds."""
    return next((moment for moment in trace.moments[after + 1 :] if holds(moment)), None)
