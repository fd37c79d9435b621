"""Whether a policy fits this optimizer and model, and what must be measured for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn
from torch.optim import Optimizer

from lbw_policy.actions import unscalable, unskippable
from lbw_policy.errors import AttachError
from lbw_policy.risk import STANDARD_SOURCES
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.signals import SIGNALS, Need
from lbw_policy.semantics.walk import actions_of
from lbw_policy.telemetry import Plan

_SLOW = 10
"""How often the signals that need forward hooks are sampled for a risk model's own features."""


def check_fit(policy: p.Policy, optimizer: Optimizer, model: nn.Module | None) -> None:
    """Raise AttachError, naming every reason, if the policy cannot work here."""
    reasons = [*_unmeasurable(policy, model), *_undoable(policy, optimizer, model)]
    if reasons:
        raise AttachError(f"policy `{policy.name}` does not fit: " + "; ".join(dict.fromkeys(reasons)))


def _unmeasurable(policy: p.Policy, model: nn.Module | None) -> Iterator[str]:
    for signal in policy.signals:
        needs_model = not signal.observed and SIGNALS[signal.source].need is Need.MODEL
        if needs_model and model is None:
            yield f"signal `{signal.name}` reads `telemetry.{signal.source}`, which needs `model=`"


def _undoable(policy: p.Policy, optimizer: Optimizer, model: nn.Module | None) -> Iterator[str]:
    kinds = {type(action) for action in actions_of(policy)}
    reason = unskippable(optimizer)
    if reason and kinds - {p.Halt}:
        yield reason
    reason = unscalable(optimizer)
    if reason and p.ScaleLr in kinds:
        yield f"`scale_lr` cannot work: {reason}"
    if p.Rollback in kinds and model is None:
        yield "`rollback` restores buffers too, so it needs `model=`"
    ranked = {action.by for action in actions_of(policy) if isinstance(action, p.Freeze)}
    if "activation_variance" in ranked and model is None:
        yield "`freeze ... by activation_variance` needs `model=`"


def plan_for(policy: p.Policy, model: nn.Module | None) -> Plan:
    """Return what to measure: the policy's signals, the risk models' features, the freeze ranking."""
    every: dict[str, int] = {"loss": 1}
    for source, ticks in _wanted(policy):
        if model is not None or SIGNALS[source].need is not Need.MODEL:
            every[source] = math.gcd(every.get(source, ticks), ticks)
    return Plan(
        every=every,
        layer_statistics=frozenset(action.by for action in actions_of(policy) if isinstance(action, p.Freeze)),
        observed=frozenset(signal.source for signal in policy.signals if signal.observed),
    )


def _wanted(policy: p.Policy) -> Iterator[tuple[str, int]]:
    yield from ((signal.source, signal.every) for signal in policy.signals if not signal.observed)
    if any(isinstance(action, p.Clip) for action in actions_of(policy)):
        yield "grad_norm", 1
    if any(risk.standard for risk in policy.risks):
        for source in STANDARD_SOURCES:
            yield source, _SLOW if SIGNALS[source].need is Need.MODEL else 1
