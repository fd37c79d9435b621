"""Broken telemetry, drawn from a seed: healthy at first, then one stretch after another in which something is wrong."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from lbw_policy.machine import RiskValues
from lbw_policy.semantics import policy as p
from lbw_policy.witness.healthy import healthy

STRANGE = (math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, -1.0, 1.0, 1e300, -1e300, sys.float_info.max)
"""Numbers that break careless arithmetic."""


@frozen
class Told:
    """What one tick tells: signals by name, what the risks say, and the norm of the gradients."""

    values: Mapping[str, float | None]
    risks: Mapping[str, RiskValues]
    norm: float | None


@frozen
class _Mood:
    """How each signal and all risks look for a stretch."""

    signals: Mapping[str, str]
    risk: str


def telemetry(policy: p.Policy, draw: random.Random, ticks: int) -> Iterator[Told]:
    """Yield so many ticks of telemetry; every second stretch is healthy, but for what the risks say."""
    levels = {one.title: one.level for one in healthy(policy)}
    calm = {one.name: levels.get(one.name, 1.0) for one in policy.signals}
    mood, left = _Mood(dict.fromkeys(calm, "healthy"), "calm"), ticks // 3
    for _ in range(ticks):
        if left == 0:
            left, mood = draw.choice((1, 2, 5, 20, 40)), _mood(draw, calm)
        left -= 1
        values = {name: _reading(draw, mood.signals[name], level) for name, level in calm.items()}
        norms = [values[one.name] for one in policy.signals if one.key == "grad_norm"]
        yield Told(values, {one.name: _RISKS[mood.risk](draw) for one in policy.risks}, norms[0] if norms else None)


def _mood(draw: random.Random, names: Mapping[str, float]) -> _Mood:
    risk, calm = draw.choice([*_RISKS]), draw.random() < 0.5
    return _Mood({name: "healthy" if calm else draw.choice(_STRETCHES) for name in names}, risk)


_STRETCHES = ("healthy", "healthy", "healthy", "rise", "spike", "nan", "strange", "missing", "zero", "wild")


def _reading(draw: random.Random, kind: str, level: float) -> float | None:
    match kind:
        case "healthy":
            return level * draw.uniform(0.97, 1.03)
        case "rise":
            return level * draw.uniform(1.1, 1.6)
        case "spike":
            return (level or 1.0) * draw.uniform(2.0, 50.0)
        case "nan":
            return math.nan
        case "strange":
            return draw.choice(STRANGE)
        case "missing":
            return None
        case "zero":
            return 0.0
        case _:
            return draw.uniform(-1.0, 1.0) * 10.0 ** draw.randint(-12, 12)


def _wild(draw: random.Random) -> RiskValues:
    probability = draw.choice((None, math.nan, 0.0, 0.02, draw.random(), 1.0, -1.0, math.inf))
    return RiskValues(probability, draw.choice((None, False, False, True)), draw.random() < 0.5)


_RISKS: Mapping[str, Callable[[random.Random], RiskValues]] = {
    "calm": lambda _: RiskValues(0.01, alarm=False, trusted=True),
    "alarm": lambda _: RiskValues(0.1, alarm=True, trusted=True),
    "wild": _wild,
}
