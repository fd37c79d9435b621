"""What the routers of a mixture of experts do with all tokens of a step."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from attrs import frozen
from torch import nn

from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value, largest
from lbw_policy.telemetry.scopes import Scope, Scopes
from lbw_policy.telemetry.stopwatch import Timed, as_it_is

ROUTERS = frozenset({"router_load", "router_entropy", "router_dead"})
ROUTER_NAMES = ("router", "gate", "gating")
"""A module of one of these names routes, if it holds a weight of shape [experts, ...] and gives a score an expert."""
_CHOICES = ("top_k", "num_experts_per_tok", "topk", "k")


@frozen(eq=False)
class Router:
    """A module that scores experts: how many there are, and how many each token is sent to."""

    module: nn.Module
    experts: int
    choices: int


def routers_of(model: nn.Module) -> dict[str, Router]:
    """Return the routers of a model by the names of their modules."""
    found: dict[str, Router] = {}
    modules = dict(model.named_modules())
    for name, module in modules.items():
        parent = name.rpartition(".")[0]
        if name.rpartition(".")[2] not in ROUTER_NAMES or parent in found:
            continue
        experts = next((weight.shape[0] for weight in module.parameters() if weight.dim() == 2), 0)
        if experts > 1:
            found[name] = Router(module, experts, _choices((module, modules[parent]), experts))
    return found


class Routers:
    """`router_load`, `router_entropy`, `router_dead`.

    A hook adds up, on the device, over all training passes of the step: to which experts tokens go (the
    `top_k` highest scores), and the entropy of the routing. Scores are taken as logits unless they
    add up to 1. `router_load` is the busiest expert's count over the mean count (1 is even, the
    number of experts over `top_k` is collapse; MaxVio + 1 of Wang et al., 2024). `router_entropy` is the
    mean entropy of a token's routing over that of an even one.
    """

    def __init__(self, routers: Mapping[str, Router], scopes: Scopes, timed: Timed = as_it_is) -> None:
        self._routers = routers
        self._scopes = scopes.of(ROUTERS)
        modules = {name: router.module for name, router in routers.items()}
        self._matched = {scope.key: scopes.matching(scope, modules) for scope in self._scopes}
        self._sums = {name: _sums_for(router) for name, router in routers.items()}
        self._armed = True
        self._problem: str | None = None
        self._used, self._told = False, False
        self._handles = [
            router.module.register_forward_hook(timed(functools.partial(self._sample, name)))
            for name, router in routers.items()
        ]

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue the sums of the step."""
        if due.now & ROUTERS:
            for name, sums in self._sums.items():
                packet.add(f"router {name}", sums.clone())
        # Compiled graphs add up in every pass, so what was added before the due tick is dropped too.
        if (due.now | due.next) & ROUTERS:
            torch._foreach_zero_(list(self._sums.values()))
        self._armed = bool(due.next & ROUTERS) and self._problem is None

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the readings over the routers that were used."""
        found = {name: numbers.get(f"router {name}", [0.0]) for name in self._routers}
        used = {name: sums for name, sums in found.items() if sums[-1] != 0}
        self._used = bool(used)
        return {scope.key: self._read(scope, used) for scope in self._scopes}

    def notes(self, due: Due) -> tuple[str, ...]:
        """Return, once, why there is no reading where there should have been one."""
        if self._told or self._used or not due.now & ROUTERS:
            return ()
        self._told = True
        names = ", ".join(f"`{name}`" for name in list(self._routers)[:3])
        reason = self._problem or f"none of the routers ({names}) gave one score for each of its experts"
        return (f"the signals of routers have no reading: {reason}",)

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _read(self, scope: Scope, used: Mapping[str, Sequence[float]]) -> Value:
        found = [used[name] for name in self._matched[scope.key] if name in used]
        match scope.source:
            case "router_load":
                return largest(max(sums[:-2]) * len(sums[:-2]) / (sum(sums[:-2]) or 1.0) for sums in found)
            case "router_dead":
                return float(sum(count == 0 for sums in found for count in sums[:-2])) if found else None
        lowest = largest(-sums[-2] / sums[-1] / math.log(len(sums) - 2) for sums in found)
        return None if lowest is None else -lowest

    def _sample(self, name: str, module: nn.Module, _: object, output: object) -> None:
        if not module.training or (not self._armed and not torch.compiler.is_compiling()):
            return
        # INVARIANT: a forward pass never fails for being watched; the failure becomes a note.
        try:
            scores = _scores(output, self._routers[name].experts)
            if scores is not None:
                self._sums[name].add_(_routed(scores.detach().float(), self._routers[name]))
        except Exception as failure:
            self._problem, self._armed = f"{type(failure).__name__}: {failure}", False


def _sums_for(router: Router) -> torch.Tensor:
    """Return zeros for the count of each expert, the entropy and the number of tokens."""
    return torch.zeros(router.experts + 2, device=next(router.module.parameters()).device)


def _routed(scores: torch.Tensor, router: Router) -> torch.Tensor:
    """Return how many tokens go to each expert, the sum of their entropies, and how many there are."""
    scores = scores.reshape(-1, router.experts)
    added = scores.sum(-1, keepdim=True)
    given = ((scores >= 0).all(-1, keepdim=True) & ((added - 1).abs() < 1e-2)).all()
    logs = torch.where(given, scores.clamp(min=1e-30).log(), scores.log_softmax(-1))
    chosen = scores.topk(router.choices, dim=-1).indices.reshape(-1)
    counts = scores.new_zeros(router.experts).scatter_add_(0, chosen, torch.ones_like(chosen, dtype=scores.dtype))
    entropy = -(logs.exp() * logs).sum()
    return torch.cat((counts, entropy.reshape(1), scores.new_full((1,), float(len(scores)))))


def _scores(output: object, experts: int) -> torch.Tensor | None:
    """Return the first tensor that has one real number an expert."""
    parts = output.values() if isinstance(output, Mapping) else output
    parts = parts if isinstance(parts, Iterable) and not isinstance(parts, torch.Tensor) else (parts,)
    fit = (p for p in parts if isinstance(p, torch.Tensor) and p.is_floating_point() and p.dim() and p.numel())
    return next((part for part in fit if part.shape[-1] == experts), None)


def _choices(modules: Sequence[nn.Module], experts: int) -> int:
    """Return how many experts a token is sent to, as the router or what holds it says; 1 where neither does."""
    for module in modules:
        for name in _CHOICES:
            value = getattr(module, name, None)
            if isinstance(value, int) and 0 < value <= experts:
                return value
    return 1
