"""Whether a policy fits this optimizer and model, and what must be measured for it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping

from torch import nn
from torch.optim import Optimizer

from lbw_policy.actions import unscalable, unskippable
from lbw_policy.errors import AttachError
from lbw_policy.runtime.cadence import cadence, clips, clips_layers
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.plugins import signal_kind
from lbw_policy.semantics.signals import SIGNALS, Need, source_of
from lbw_policy.semantics.walk import actions_of
from lbw_policy.telemetry import Layers, Plan, lacking

Groups = Mapping[str, frozenset[str]]


def check_fit(policy: p.Policy, optimizer: Optimizer, layers: Layers, groups: Groups, checkpoint: object) -> None:
    """Raise AttachError, naming every reason, if the policy cannot work here; `groups` are its layers by group."""
    reasons = [*_unmeasurable(policy, optimizer, layers, groups), *_undoable(policy, optimizer, layers.model)]
    if checkpoint is None and any(isinstance(action, p.Checkpoint) for action in actions_of(policy)):
        reasons.append("`checkpoint` calls your function, so it needs `checkpoint=`")
    if reasons:
        raise AttachError(f"policy `{policy.name}` does not fit: " + "; ".join(dict.fromkeys(reasons)))


def _unmeasurable(policy: p.Policy, optimizer: Optimizer, layers: Layers, groups: Groups) -> Iterator[str]:
    for signal in policy.signals:
        if signal.observed:
            continue
        missing = "`model=`" if layers.model is None and _needs_model(signal.source) else None
        if missing is None and signal.source in SIGNALS:
            missing = lacking(signal.source, optimizer, layers, groups.get(signal.group))
        if missing:
            yield f"signal `{signal.name}` reads `telemetry.{signal.key}`, which needs {missing}"


def _undoable(policy: p.Policy, optimizer: Optimizer, model: nn.Module | None) -> Iterator[str]:
    kinds = {type(action) for action in actions_of(policy)}
    reason = unskippable(optimizer)
    if reason and kinds - {p.Halt, p.Checkpoint}:
        yield reason
    reason = unscalable(optimizer)
    if reason and p.ScaleLr in kinds:
        yield f"`scale_lr` cannot work: {reason}"
    if p.Rollback in kinds and model is None:
        yield "`rollback` restores buffers too, so it needs `model=`"
    ranked = {action.by for action in actions_of(policy) if isinstance(action, p.Freeze)}
    for statistic in sorted(ranked):
        if model is None and SIGNALS[statistic].need is Need.MODEL:
            yield f"`freeze ... by {statistic}` needs `model=`"


def match_groups(policy: p.Policy, layers: Layers) -> dict[str, frozenset[str]]:
    """Return the layers of each group; raises AttachError for a glob that matches none, and a group that has none."""
    found = {group.name: frozenset(_matched(group, layers)) for group in policy.layers}
    for name in (name for name, members in found.items() if not members):
        raise AttachError(f"layer group `{name}`: what `except` takes out leaves no layer")
    return found


def _matched(group: p.LayerGroup, layers: Layers) -> Iterator[str]:
    names = tuple(layers.parameters)
    for glob in group.globs:
        found = fnmatch.filter(names, glob)
        if not found:
            examples = ", ".join(f"`{name}`" for name in names[:5])
            advice = "" if layers.model else ": with `model=` they have the names of its modules"
            raise AttachError(
                f"layer group `{group.name}`: `{glob}` matches no layer; layers are {examples}, ...{advice}"
            )
        yield from (name for name in found if not any(fnmatch.fnmatchcase(name, out) for out in group.excepted))


def plan_for(policy: p.Policy, model: nn.Module | None) -> Plan:
    """Return what to measure: the policy's signals, the risk models' features, the freeze ranking."""
    every = cadence(policy)
    ranked = {action.by for action in actions_of(policy) if isinstance(action, p.Freeze)}
    return Plan(
        every={key: ticks for key, ticks in every.items() if model is not None or not _needs_model(source_of(key))},
        layer_statistics=frozenset(ranked | ({"grad_norm"} if clips_layers(policy) else set())),
        observed=frozenset(signal.source for signal in policy.signals if signal.observed),
        clips=clips(policy),
    )


def _needs_model(source: str) -> bool:
    kind = signal_kind(source)
    return kind is not None and kind.need is Need.MODEL
