"""Where a policy's reflexes act: on the host, which waits for a tick's numbers, or on the device, which does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch.optim import Optimizer

from lbw_policy.actions import unswitchable
from lbw_policy.errors import AttachError
from lbw_policy.record import log
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import TRENDS, Expression, Function, Reading, RiskReading, Statistic
from lbw_policy.semantics.signals import SIGNALS
from lbw_policy.semantics.walk import chain, children, first_actions, own, parts
from lbw_policy.telemetry import Layers

TIERS = ("auto", "host", "device")
ON_DEVICE = frozenset({"loss", "grad_norm", "nonfinite_grads", "lr", "step_time"})
"""The built-in signals whose present reading can be used before the host has it."""

_ACTIONS = (p.Skip, p.Clip, p.ScaleLr)


def choose_tier(tier: str, policy: p.Policy, optimizer: Optimizer, layers: Layers) -> torch.device | None:
    """Return the device to act on, None for the host; raises AttachError if the device tier is asked for in vain."""
    if tier not in TIERS:
        raise AttachError(f"expected tier `auto`, `host` or `device`, found `{tier}`")
    homes = {parameter.device for parameter in layers.distinct()}
    if tier == "host" or (tier == "auto" and not any(home.type == "cuda" for home in homes)):
        return None
    found = list(dict.fromkeys([*_misplaced(layers, homes), *_unfit(policy, optimizer)]))
    if found and tier == "device":
        raise AttachError(f"policy `{policy.name}` does not fit the device tier: " + "; ".join(found))
    if found:
        log.info("tier host, where each step waits for its numbers, because %s", "; ".join(found))
        return None
    log.info("tier device: reflexes act without waiting for a step's numbers, levels one step later")
    return homes.pop()


def read_ahead(policy: p.Policy) -> frozenset[str]:
    """Return the signals that are read to tell what a tick does before the host has its readings."""
    found = [expression for reflex in policy.reflexes for expression in _expressions(reflex)]
    found += [number for level in policy.levels for number in _amounts(first_actions(level))]
    return frozenset(node.signal for node in _looked_at(found) if isinstance(node, Reading))


def _misplaced(layers: Layers, homes: set[torch.device]) -> Iterator[str]:
    if len(homes) > 1:
        yield f"the parameters lie on several devices ({', '.join(sorted(map(str, homes)))})"
    other = sorted({home.type for home in homes} - {"cpu", "cuda"})
    if other:
        yield f"`{other[0]}` has no numbers of double precision, or has not been tried"
    if any(hasattr(parameter, "placements") for parameter in layers.distinct()):
        yield "the parameters are sharded over processes"


def _unfit(policy: p.Policy, optimizer: Optimizer) -> Iterator[str]:
    known = _known(policy, optimizer)
    for reflex in policy.reflexes:
        for reason in (*_undoable(reflex), *_unreadable(policy, reflex, known)):
            yield f"reflex `{reflex.name}` {reason}"
        late = _late(_expressions(reflex), known)
        bound = [kind for kind in (p.Skip, p.ScaleLr) if any(isinstance(one, kind) for one in reflex.actions)]
        unfused = unswitchable(optimizer) if late and bound else None
        if unfused:
            yield f"reflex `{reflex.name}` does `{p.ACTION_NAMES[bound[0]]}`, and {unfused}"


def _undoable(reflex: p.Reflex) -> Iterator[str]:
    for action in reflex.actions:
        if not isinstance(action, _ACTIONS):
            yield f"does `{p.name_of(action)}`, which the host must do"
        if isinstance(action, p.Clip) and action.layers:
            yield "does `clip layers`, which needs each layer's norm on the host"
        if action.otherwise is not None:
            instead = " else ".join(f"`{p.name_of(one)}`" for one in chain(action))
            yield f"does {instead}, and only the host knows what is refused"


def _unreadable(policy: p.Policy, reflex: p.Reflex, known: frozenset[str]) -> Iterator[str]:
    signals = {signal.name: signal for signal in policy.signals}
    for node in _looked_at(_expressions(reflex)):
        if isinstance(node, RiskReading):
            yield f"reads the risk `{node.risk}`, which the host computes"
        elif isinstance(node, Function) and node.name not in ("abs", "neg") and _late([node], known):
            yield f"takes `{node.name}` of a present reading, which is not the same number on every device"
        elif isinstance(node, Statistic) and node.name in ("slope", "rate") and _late([node], known):
            yield f"takes `{node.name}` of a present reading, whose sums only the host keeps"
        elif isinstance(node, Reading):
            signal = signals[node.signal]
            if signal.every == 1 and not (signal.observed or own(signal) or signal.key in ON_DEVICE):
                kind = "built-in" if signal.source in SIGNALS else "plugin's"
                yield f"reads the {kind} signal `{signal.key}` in every tick, which the host computes"


def _known(policy: p.Policy, optimizer: Optimizer) -> frozenset[str]:
    """Return the signals whose present reading the host has in any case."""
    plain = all(not isinstance(group.get("lr"), torch.Tensor) for group in optimizer.param_groups)
    sources = {"step_time", "lr"} if plain else {"step_time"}
    found = (one for one in policy.signals if own(one) or (one.source in sources and not one.observed))
    return frozenset(signal.name for signal in found)


def _late(expressions: Sequence[Expression], known: frozenset[str]) -> bool:
    return any(isinstance(node, Reading) and node.signal not in known for node in _looked_at(expressions))


def _looked_at(expressions: Iterable[Expression]) -> Iterator[Expression]:
    """Yield what is evaluated in the tick: a baseline is known without its sample, a trend needs all that is in it."""
    for node in expressions:
        yield node
        if isinstance(node, Statistic) and node.name in TRENDS:
            yield from parts(node.argument)
        elif not isinstance(node, Statistic) or node.name == "zscore":
            yield from _looked_at(children(node))


def _expressions(reflex: p.Reflex) -> list[Expression]:
    return [reflex.condition, *_amounts(reflex.actions)]


def _amounts(actions: Iterable[p.Action]) -> Iterator[Expression]:
    for first in actions:
        for action in chain(first):
            if isinstance(action, p.Clip):
                yield action.to
            elif isinstance(action, p.ScaleLr):
                yield action.by
            elif isinstance(action, p.Custom) and action.amount is not None:
                yield action.amount
