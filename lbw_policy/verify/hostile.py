"""Hostile runs of the running code: floods of requests at the limiter, broken telemetry at the session.

Everything is drawn from a seed: the same policy meets the same runs on every machine. What the runs did is judged by
`monitors`, which count it all again from the grants alone.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from attrs import define, field, frozen

from lbw_policy.errors import StateError
from lbw_policy.limits import Grant, Limiter, Outcome, Request, Situation
from lbw_policy.machine import Decision, Session
from lbw_policy.semantics import policy as p
from lbw_policy.witness.storms import STRANGE, Told, telemetry


class _Resumable(Protocol):
    """What can be saved and go on from there."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


Saved = TypeVar("Saved", bound=_Resumable)

_ENDING = frozenset({"skip", "rollback", "halt"})
_UNNAMED = "an_action_of_no_limit"


@frozen
class Seen:
    """One tick as an observer sees it: what was granted, whether an update was accepted, and what was decided."""

    tick: int
    grants: tuple[Grant, ...]
    applied: bool
    decision: Decision | None = None
    allowed: tuple[Grant, ...] = field(init=False)
    """The grants that allow something."""

    @allowed.default
    def _allowed(self) -> tuple[Grant, ...]:
        return tuple(grant for grant in self.grants if grant.outcome is not Outcome.REFUSED)

    def granted(self, action: str) -> Grant | None:
        """Return what was granted of an action."""
        for grant in self.allowed:
            if grant.request.action == action:
                return grant
        return None


@frozen
class Run:
    """A hostile run. `plain` tells that every tick was asked about, and updated unless it skipped or rolled back."""

    seen: tuple[Seen, ...]
    plain: bool
    resumed: str = ""
    """How the run differs once it is saved and resumed on the way, or why it cannot be; "" where all is well."""


def runs(policy: p.Policy, *, seed: int = 0, floods: int = 6, streams: int = 4) -> tuple[Run, ...]:
    """Return hostile runs of a policy: `floods` of requests at its limiter, `streams` of telemetry at its session."""
    draw = random.Random(f"{seed} hostile")  # noqa: S311 - runs for a test, not a secret
    found = [_flood(policy.limits, draw, plain=at % 3 > 0) for at in range(floods)]
    return (*found, *(_stream(policy, draw) for _ in range(streams)))


# Floods of requests


@define
class _Flood:
    """A run of the limiter alone, with any requests at all; `rate` is how likely each action is asked for."""

    limits: p.Limits
    draw: random.Random
    plain: bool
    limiter: Limiter = field(init=False)
    actions: tuple[str, ...] = field(init=False)
    rates: dict[str, float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.limiter = Limiter(self.limits)
        named = [name for name in p.ACTION_NAMES.values() if name != "halt"]
        self.actions = (*named, *(limit.name for limit in self.limits.custom), _UNNAMED)
        self.rates = {name: self.draw.choice((0.0, 0.02, 0.3, 1.0)) for name in self.actions}

    def tick(self, tick: int) -> Seen:
        """Ask for some actions, and end the tick."""
        asked = [name for name in self.actions if self.draw.random() < self.rates[name]]
        requests = [Request(name, "flood", self._amount(name)) for name in asked]
        grants = self.limiter.rule(tick, requests, Situation(self._snapshots(), self._norm()))
        applied = not any(_ends(grant) for grant in grants) if self.plain else self.draw.random() < 0.5
        self.limiter.stepped(applied=applied)
        return Seen(tick, grants, applied)

    def _amount(self, action: str) -> float | None:
        if self.draw.random() < 0.2:
            return self.draw.choice((None, *STRANGE))
        limit = self.limits.rollback
        scale = 2.0 * limit.distance if limit and action == "rollback" else 1.5
        return self.draw.uniform(-0.1 * scale, scale)

    def _norm(self) -> float | None:
        return self.draw.choice((None, *STRANGE)) if self.draw.random() < 0.2 else self.draw.uniform(0.0, 2.0)

    def _snapshots(self) -> tuple[int, ...]:
        far = 2 * self.limits.rollback.distance if self.limits.rollback else 1
        return tuple(max(0, self.limiter.high_water - self.draw.randint(-1, far)) for _ in range(2))


def _ends(grant: Grant) -> bool:
    return grant.request.action in _ENDING and grant.outcome is not Outcome.REFUSED


def _flood(limits: p.Limits, draw: random.Random, *, plain: bool, ticks: int = 1_250) -> Run:
    flood, seen, tick, refused = _Flood(limits, draw, plain), [], 0, ""
    for _ in range(ticks):
        seen.append(flood.tick(tick))
        tick += 1 if plain else draw.choice((1, 1, 1, 2, 7))
        if draw.random() < 0.02:
            flood.limiter, refused = _resumed(flood.limiter, Limiter(limits), refused)
    return Run(tuple(seen), plain, refused)


def _resumed(old: Saved, new: Saved, refused: str) -> tuple[Saved, str]:
    """Return what goes on from a saved state: the new one, or the old one where the state is refused."""
    try:
        new.load_state_dict(_copy(old.state_dict()))
    except StateError as error:
        return old, refused or f"its own state is refused: {error}"
    return new, refused


def _copy(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state as it comes back from a file."""
    copied: dict[str, Any] = json.loads(json.dumps(state))
    return copied


# Broken telemetry


def _stream(policy: p.Policy, draw: random.Random, ticks: int = 400) -> Run:
    """Run a session on hostile telemetry, and beside it one that is saved and resumed every now and then."""
    session, other, differs = Session(policy), Session(policy), ""
    seen: list[Seen] = []
    for told in telemetry(policy, draw, ticks):
        if draw.random() < 0.02:
            other, differs = _resumed(other, Session(policy), differs)
        one, twin = _tick(session, told), _tick(other, told)
        if not differs and one != twin and repr(one) != repr(twin):  # NaN is not equal to itself
            differs = f"from tick {one.tick} on another decision"
        seen.append(one)
        if one.granted("halt"):
            break
    if not differs and json.dumps(session.state_dict()) != json.dumps(other.state_dict()):
        differs = "another state at the end"
    return Run(tuple(seen), plain=True, resumed=differs)


def _tick(session: Session, told: Told) -> Seen:
    tick = session.tick
    session.begin(told.values)
    turn = session.decide(told.risks, told.norm, layer_norm=told.norm)
    session.finish(applied=turn.updates)
    return Seen(tick, turn.grants, turn.updates, turn.decision)
