"""Which telemetry a policy asks for, and how often."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lbw_policy.risk import STANDARD_SOURCES
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.signals import EVENTS, SIGNALS, Need
from lbw_policy.semantics.walk import actions_of

_SLOW = 10
"""How often the signals that need forward hooks are sampled for a risk model's own features."""


def cadence(policy: p.Policy) -> dict[str, int]:
    """Return every built-in source to read and the ticks between two readings of it: a tick reads what divides it."""
    every: dict[str, int] = {"loss": 1}
    for source, ticks in _wanted(policy):
        every[source] = math.gcd(every.get(source, ticks), ticks)
    return every


def standard_cadence() -> dict[str, int]:
    """Return what a risk's standard features read, and the ticks between two readings of each."""
    return {source: _SLOW if SIGNALS[source].need is Need.MODEL else 1 for source in STANDARD_SOURCES}


def clips(policy: p.Policy) -> bool:
    """Tell whether any rule clips, for which the gradient norm must be known."""
    return any(isinstance(action, p.Clip) for action in actions_of(policy))


def clips_layers(policy: p.Policy) -> bool:
    """Tell whether any rule clips each layer by itself, for which their norms must be known."""
    return any(isinstance(action, p.Clip) and action.layers for action in actions_of(policy))


def _wanted(policy: p.Policy) -> Iterator[tuple[str, int]]:
    measured = (signal for signal in policy.signals if not signal.observed and signal.source not in EVENTS)
    yield from ((signal.source, signal.every) for signal in measured)
    if clips(policy):
        yield "grad_norm", 1
    if clips_layers(policy):
        yield "grad_norm_max", 1
    if any(risk.standard for risk in policy.risks):
        yield from standard_cadence().items()
