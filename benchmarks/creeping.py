"""Telemetry that creeps up by a factor a step, and which rules see it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from attrs import frozen

from lbw_policy.machine import RiskValues, Session
from lbw_policy.semantics import Policy, load
from lbw_policy.witness.healthy import healthy

RATES = (1.0005, 1.001, 1.002, 1.005, 1.01, 1.02, 1.05, 1.1)
"""Factors a step."""
MOST = 10.0
"""A creep that has come so far unseen has passed."""
_CALM, _SPREAD = 600, 0.02

RULES = {
    "z-score over 32 steps": "zscore(loss, 32 steps) > 6",
    "30 % over the median of 32": "loss > 1.3 * median(loss, 32 steps)",
    "30 % over the median of 512": "loss > 1.3 * median(loss, 512 steps)",
    "30 % over the best of 1_000": "loss > 1.3 * min(ewma(loss, 20 steps), 1_000 steps)",
}
"""Conditions on a loss, by what they compare it with."""


@frozen
class Sight:
    """What first acted or spoke, and how far the creep had come by then."""

    by: str
    factor: float


def watching(condition: str) -> Policy:
    """Return a policy with one alert, which speaks when the condition has held for 3 of 5 steps."""
    return load(
        "lbw 1 policy watch { } signal loss = telemetry.loss"
        f' alert seen warning when {condition} for 3 of 5 steps "seen"'
    )


def creep(policy: Policy, titles: Sequence[str], rate: float, most: float = MOST, seed: int = 0) -> Sight | None:
    """Let signals, by name, grow by `rate` a step from a calm beginning; None if they come to `most` unseen."""
    session, factor = Session(policy), 1.0
    for values in _readings(policy, _CALM, seed):
        _decide(session, values)
    for values in _readings(policy, 1_000_000, seed + 1):
        factor *= rate
        if factor > most:
            return None
        seen = _decide(session, {name: v * factor if name in titles else v for name, v in values.items()})
        if seen:
            return Sight(seen, factor)
    return None


def _readings(policy: Policy, ticks: int, seed: int) -> Iterator[dict[str, float]]:
    draw = random.Random(seed)  # noqa: S311 - made telemetry, not a secret
    signals = {one.name for one in policy.signals}
    calm = {one.title: one.level for one in healthy(policy) if one.title in signals}
    for _ in range(ticks):
        yield {title: level * (1 + _SPREAD * draw.gauss(0, 1)) for title, level in calm.items()}


def _decide(session: Session, values: dict[str, float]) -> str:
    """Take a session through one tick; return what began or was said, empty for nothing."""
    policy = session.policy
    session.begin({one.name: values.get(one.name) for one in policy.signals if not session.tick % one.every})
    norm = next((values.get(one.name) for one in policy.signals if one.key == "grad_norm"), None)
    turn = session.decide(
        {one.name: RiskValues(one.fallback, alarm=False) for one in policy.risks}, norm, layer_norm=norm
    )
    session.finish(applied=turn.updates)
    began = [one.request.rule for one in turn.granted if one.starts]
    return next(iter([*began, *(f"alert {one.alert}" for one in turn.decision.messages)]), "")
