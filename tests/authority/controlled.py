"""Policies whose every rule hangs on a signal of its own, and runs of them under hostile telemetry."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise

from attrs import define, evolve, field
from hypothesis import strategies as st

from lbw_policy.limits import Grant
from lbw_policy.machine import Session
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Comparison, Condition, Constant, Reading
from tests.strategies import HOSTILE, ladders, limit_sets

PLACE = p.Place("p.lbw", 1)
AMOUNT = Reading("amount")
_KINDS: tuple[st.SearchStrategy[p.Action], ...] = (
    st.just(p.Skip()),
    st.just(p.Clip(AMOUNT)),
    st.builds(p.ScaleLr, st.just(AMOUNT), st.integers(1, 6)),
    st.builds(p.Rollback, st.integers(1, 100)),
    st.builds(p.Freeze, st.floats(0.0, 1.0), st.just("grad_norm")),
    st.just(p.ResetMoments()),
    st.just(p.Checkpoint()),
    st.builds(p.Custom, st.sampled_from(("boost", "nudge", "unlimited")), st.none() | st.just(AMOUNT)),
)


def told(name: str) -> Condition:
    """Return a condition that the telemetry decides: true for 1, false for 0, unknown for NaN, not ready for None."""
    return Comparison(">", Reading(name), Constant(0.0))


@st.composite
def acts(draw: st.DrawFn) -> tuple[p.Action, ...]:
    """Some actions, now and then with another one as fallback."""
    found = draw(st.lists(st.one_of(_KINDS), max_size=3))
    return tuple(evolve(one, otherwise=draw(st.none() | st.one_of(_KINDS))) for one in found)


@st.composite
def controlled(draw: st.DrawFn) -> p.Policy:
    """A policy with up to three levels and two reflexes, of which the telemetry decides everything."""
    rungs = draw(ladders()).levels
    levels = [rungs[0], *(_rung(rung, draw(acts()), draw(acts())) for rung in rungs[1:])]
    reflexes = tuple(p.Reflex(f"r{n}", told(f"r{n}"), draw(acts()), PLACE) for n in range(2))
    signals = ["amount", "r0", "r1", *(f"{end} {level.name}" for level in levels for end in ("enter", "leave"))]
    limits = draw(limit_sets())
    moments = draw(st.none() | st.builds(p.Budget, st.integers(1, 6), st.integers(1, 30)))
    if limits.rollback:
        limits = evolve(limits, rollback=evolve(limits.rollback, spacing=draw(st.sampled_from((0, 0, 1, 2, 7)))))
    return p.Policy(
        *("p", "", "0", (), tuple(p.Signal(name, name) for name in signals), ()),
        *(reflexes, tuple(levels), (), evolve(limits, reset_moments=moments, checkpoint=moments)),
    )


def _rung(rung: p.Level, actions: tuple[p.Action, ...], again: tuple[p.Action, ...]) -> p.Level:
    moments = [one for one in again if not isinstance(one, p.Clip | p.Freeze)]
    return evolve(
        rung,
        enter=rung.enter and evolve(rung.enter, condition=told(f"enter {rung.name}")),
        leave=rung.leave and evolve(rung.leave, condition=told(f"leave {rung.name}")),
        actions=actions,
        periodic=tuple(p.Periodic(2, one) for one in moments[:1]),
    )


def only(limits: p.Limits, *actions: p.Action) -> p.Policy:
    """Return a policy with one reflex, which the signal `on` fires."""
    reflexes = (p.Reflex("r", told("on"), actions, PLACE),)
    return p.Policy(*("p", "", "0", (), (p.Signal("on", "on"),), ()), *(reflexes, (p.Level("normal"),), (), limits))


@define
class Run:
    """What a run of a policy did, tick by tick."""

    session: Session
    grants: list[tuple[Grant, ...]] = field(factory=list)
    scales: list[float] = field(factory=list)
    progress: list[int] = field(factory=lambda: [0])
    behind: list[int] = field(factory=list)
    levels: list[int] = field(factory=list)
    entries: dict[int, list[int]] = field(factory=dict)
    halted: bool = False

    def tick(self, values: dict[str, float | None], norm: float | None) -> None:
        """Run one tick; a halt ends the run."""
        session = self.session
        session.begin(values)
        turn = session.decide({}, norm)
        now = session.machine.configuration
        self.halted = self.halted or any(one.request.action == "halt" for one in turn.granted)
        self.grants.append(turn.granted)
        self.scales.append(session.limiter.scale)
        self.levels.append(now.level)
        if now.level and now.armed and now.since == 0:
            self.entries.setdefault(now.level, []).append(session.tick)
        session.finish(applied=turn.updates)
        self.progress.append(session.progress)
        self.behind.append(session.limiter.high_water - session.progress)

    def begun(self, *actions: str) -> list[int]:
        """Return how many interventions of these kinds begin in each tick."""
        return [sum(one.starts and one.request.action in actions for one in grants) for grants in self.grants]

    def most(self, counts: Sequence[int], window: int) -> int:
        """Return the greatest sum of `window` ticks in a row."""
        return max(sum(counts[start : start + window]) for start in range(max(1, len(counts) - window + 1)))

    def lost(self, window: int) -> int:
        """Return the most updates that `window` ticks in a row are short of gaining one each."""
        starts = range(len(self.progress) - window)
        return max((window - self.progress[at + window] + self.progress[at] for at in starts), default=0)

    def gaps(self) -> Iterator[int]:
        """Yield the ticks between two entries of a level with its actions."""
        for ticks in self.entries.values():
            yield from (later - earlier for earlier, later in pairwise(ticks))


def longest(holds: Sequence[bool]) -> int:
    """Return the greatest number of true values in a row."""
    most = run = 0
    for one in holds:
        run = run + 1 if one else 0
        most = max(most, run)
    return most


def hostile_run(policy: p.Policy, seed: int, ticks: int) -> Run:
    """Return a run of which each signal is on, off, broken or missing by chance; some are on nearly always."""
    chance, run = random.Random(seed), Run(Session(policy))  # noqa: S311 - a run to be repeated, not a secret
    often = {signal.name: chance.choice((0.05, 0.3, 0.7, 1.0)) for signal in policy.signals}
    for _ in range(ticks):
        if run.halted:
            break
        values: dict[str, float | None] = {name: _on(chance, often[name]) for name in often}
        values["amount"] = chance.choice((*HOSTILE, 0.3, 0.05, None, chance.random()))
        run.tick(values, chance.choice((None, 1.0, 100.0, *HOSTILE)))
    return run


def _on(chance: random.Random, often: float) -> float | None:
    if chance.random() < 0.03:
        return chance.choice((None, float("nan")))
    return float(chance.random() < often)


def calm(policy: p.Policy, run: Run, ticks: int) -> None:
    """Go on for some ticks in which no rule fires and every `leave` condition holds."""
    for _ in range(ticks):
        run.tick({signal.name: float(signal.name.startswith("leave")) for signal in policy.signals}, 1.0)
