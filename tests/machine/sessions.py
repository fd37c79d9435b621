"""Short policies driven by hand through a session."""

from __future__ import annotations

import math
from collections.abc import Iterable

from lbw_policy.limits import Outcome, Request
from lbw_policy.machine import Session
from lbw_policy.machine.session import Turn, Upkeep
from lbw_policy.semantics import load

HEAD = """lbw 1
policy p {{ {settings} }}
signal loss = telemetry.loss
signal grad = telemetry.grad_norm
signal tone = telemetry.activation_outliers
"""
LIMITS = """
limits {
  scale_lr  within [0.01, 1]
  skip      at most 3 in a row, at most 100 per 1_000 steps
  clip      at most 100 per 1_000 steps
  rollback  at most 20 steps back, at most 100 per 1_000 steps
  freeze    at most 50% of layers, for at most 100 steps
  reset_moments at most 100 per 1_000 steps
  checkpoint at most 100 per 1_000 steps
  intervene at most 1_000 per 1_000 steps
}
"""
NAN = math.nan


def session(rules: str, limits: str = LIMITS, settings: str = "") -> Session:
    """A session of the rules; the signals are `loss`, `grad` and `tone`."""
    return Session(load(HEAD.format(settings=settings) + rules + limits))


def decide(run: Session, loss: float | None = 1.0, tone: float | None = 0.0) -> Turn:
    """Decide the next tick; it is not ended."""
    run.begin({"loss": loss, "grad": 1.0, "tone": tone})
    return run.decide({}, 1.0)


def tick(run: Session, loss: float | None = 1.0, tone: float | None = 0.0) -> tuple[Turn, Upkeep]:
    """Run one tick, with an update where the turn has one."""
    turn = decide(run, loss, tone)
    return turn, run.finish(applied=turn.updates)


def turns(run: Session, losses: Iterable[float | None]) -> list[Turn]:
    """Run one tick for each loss."""
    return [tick(run, loss)[0] for loss in losses]


def requests(turn: Turn) -> dict[str, Request]:
    """What a turn asked for, by action."""
    return {request.action: request for request in turn.decision.requests}


def amounts(found: Iterable[Turn], action: str) -> list[float | None]:
    """The amount that each turn asked of an action; None where it did not ask."""
    return [asked.amount if (asked := requests(turn).get(action)) else None for turn in found]


def granted(found: Iterable[Turn], action: str) -> list[int]:
    """The places of the turns that were granted an action."""
    return [place for place, turn in enumerate(found) if any(g.request.action == action for g in turn.granted)]


def refused(turn: Turn) -> dict[str, str]:
    """Why a turn was refused what it asked for, by action."""
    return {g.request.action: g.reason for g in turn.grants if g.outcome is Outcome.REFUSED}
