"""Puts together the sources that a plan needs, and no others."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping

import torch
from attrs import define, field
from torch.optim import Optimizer

from lbw_policy.errors import AttachError
from lbw_policy.semantics.signals import LAYER_STATISTICS, SIGNALS, Need, group_of, source_of
from lbw_policy.telemetry import moments
from lbw_policy.telemetry.activations import ACTIVATIONS, Activations
from lbw_policy.telemetry.attention import ATTENTION, AttentionLogits
from lbw_policy.telemetry.exponents import EXPONENTS, Exponents
from lbw_policy.telemetry.gradients import GradientNorms, WeightCheck
from lbw_policy.telemetry.hessian import HESSIAN, Hessian
from lbw_policy.telemetry.layers import Layers
from lbw_policy.telemetry.moments import MOMENTS, Moments
from lbw_policy.telemetry.plugged import Plugged
from lbw_policy.telemetry.readings import Plan, Source
from lbw_policy.telemetry.routers import ROUTER_NAMES, ROUTERS, Routers, routers_of
from lbw_policy.telemetry.samples import Sampler, gradient_scale
from lbw_policy.telemetry.scopes import Scopes, inside
from lbw_policy.telemetry.stopwatch import Stopwatch, Timed, as_it_is
from lbw_policy.telemetry.told import TELLABLE, LearningRate, Observed, StepTime
from lbw_policy.telemetry.updates import UPDATES, Motion

_NEEDS_PARTS = frozenset({"update_ratio_max", "moment_rms", "moment_lag"})


@define(eq=False)
class Sources:
    """What measures a plan's signals; a source that nothing asks for is None."""

    observed: Observed
    gradients: GradientNorms
    sampler: Sampler | None = None
    motion: Motion | None = None
    exponents: Exponents | None = None
    activations: Activations | None = None
    attention: AttentionLogits | None = None
    routers: Routers | None = None
    hessian: Hessian | None = None
    plugged: Plugged | None = None
    step_time: StepTime | None = None
    rates: LearningRate | None = None
    others: list[Source] = field(factory=list)

    def __iter__(self) -> Iterator[Source]:
        found = (self.gradients, self.motion, self.exponents, self.activations, self.attention, self.routers)
        yield from (source for source in (*found, *self.others) if source is not None)
        # What the loop tells comes last: it replaces what was measured.
        last = (self.rates, self.hessian, self.step_time, self.observed, self.plugged)
        yield from (source for source in last if source is not None)


def sources_for(optimizer: Optimizer, layers: Layers, plan: Plan, watch: Stopwatch | None = None) -> Sources:
    """Return the sources of a plan; `AttachError` or `ValueError` if one of its signals cannot be measured here."""
    _check(plan, optimizer, layers)
    asked = frozenset(source_of(key) for key in plan.every) | plan.layer_statistics
    scopes = Scopes(layers, plan.every, plan.groups)
    told = frozenset(name for name in plan.every if is_told(name))
    found = Sources(
        observed=Observed(plan.observed | told),
        gradients=GradientNorms(optimizer, layers, scopes, plan),
        plugged=Plugged(plan.plugins) if plan.plugins else None,
        step_time=StepTime() if "step_time" in asked else None,
    )
    _add_sampled(found, asked, (optimizer, layers, plan, scopes))
    _add_hooked(found, asked, (layers, scopes), watch.timed if watch else as_it_is)
    if "nonfinite_params" in asked:
        found.others.append(WeightCheck(layers, scopes, plan))
    if "lr" in asked:
        found.rates = LearningRate(optimizer)
    return found


def lacking(source: str, optimizer: Optimizer, layers: Layers, group: frozenset[str] | None = None) -> str | None:
    """Return what a built-in source needs and this run, or the group of layers it is taken over, does not have."""
    if SIGNALS[source].need is Need.MODEL and layers.model is None:
        return "the model: attach with `model=`"
    if source in ROUTERS and layers.model is not None:
        return _no_router(routers_of(layers.model), group)
    if source in ACTIVATIONS and group is not None and not group & set(layers.modules):
        return "a module: no layer of the group is one, so there are no outputs to sample"
    return moments.lacks(optimizer, source) if source in MOMENTS else None


def _no_router(routers: Collection[str], group: frozenset[str] | None) -> str | None:
    names = ", ".join(f"`{name}`" for name in ROUTER_NAMES)
    if not routers:
        return f"a router: no module of the model is called {names} and has a weight with one row for each expert"
    if group is not None and not inside(group, routers):
        known = ", ".join(f"`{name}`" for name in list(routers)[:3])
        return f"a router: none of the model's ({known}) is a layer of the group, or holds one"
    return None


def _add_sampled(found: Sources, asked: frozenset[str], of: tuple[Optimizer, Layers, Plan, Scopes]) -> None:
    optimizer, layers, plan, scopes = of
    if not asked & (UPDATES | MOMENTS | EXPONENTS):
        return
    ranked = "update_ratio" in plan.layer_statistics
    divided = ranked or bool(asked & _NEEDS_PARTS) or scopes.divided(UPDATES | MOMENTS)
    found.sampler = Sampler(layers.distinct(), divided=divided)
    if asked & UPDATES:
        scales = functools.partial(_scales, optimizer, found.gradients)
        found.motion = Motion(scales, found.sampler, scopes, ranked=ranked)
    if asked & EXPONENTS:
        found.exponents = Exponents(optimizer, found.sampler)
    if asked & MOMENTS:
        found.others.append(Moments(optimizer, found.sampler, scopes))


def _scales(optimizer: Optimizer, gradients: GradientNorms) -> tuple[torch.Tensor, ...]:
    """Return what the gradients of this tick were multiplied by: a loss scale, the loop's own clip."""
    found = (gradient_scale(optimizer), gradients.factor)
    return tuple(scale for scale in found if scale is not None)


def _add_hooked(found: Sources, asked: frozenset[str], of: tuple[Layers, Scopes], timed: Timed) -> None:
    layers, scopes = of
    if asked & ACTIVATIONS:
        found.activations = Activations(layers.modules, scopes, timed)
    if layers.model is not None and asked & ATTENTION:
        found.attention = AttentionLogits(layers.model, timed)
    if layers.model is not None and asked & ROUTERS:
        found.routers = Routers(routers_of(layers.model), scopes, timed)
    if asked & HESSIAN:
        found.hessian = Hessian(layers.distinct())


def is_told(name: str) -> bool:
    """Tell whether a source is one that the loop may tell."""
    return name in TELLABLE or (name in SIGNALS and SIGNALS[name].need is Need.OBSERVED)


def _check(plan: Plan, optimizer: Optimizer, layers: Layers) -> None:
    for key, every in plan.every.items():
        _check_key(key, plan)
        if every < 1:
            raise ValueError(f"expected `{key}` every 1 tick or more, found {every}")
    if plan.layer_statistics - set(LAYER_STATISTICS):
        raise ValueError(f"layers have no statistic `{min(plan.layer_statistics - set(LAYER_STATISTICS))}`")
    for key in sorted(plan.layer_statistics | set(plan.every)):
        source = source_of(key)
        missing = lacking(source, optimizer, layers, plan.groups.get(group_of(key))) if source in SIGNALS else None
        if missing:
            raise AttachError(f"the signal `{key}` needs {missing}")
    clash = plan.observed & {name for name in plan.every if not is_told(name)}
    if clash:
        raise AttachError(f"`{min(clash)}` is measured by telemetry: observe it under another name")


def _check_key(key: str, plan: Plan) -> None:
    source, group = source_of(key), group_of(key)
    if source not in SIGNALS and key not in plan.plugins:
        raise ValueError(f"there is no signal `{source}` to measure")
    if group and group not in plan.groups:
        raise ValueError(f"there is no group of layers `{group}`")
    if group and not SIGNALS[source].grouped:
        raise ValueError(f"`{source}` is not taken over a group of layers")


def by_layer(found: Sources, statistics: frozenset[str]) -> dict[str, Mapping[str, float]]:
    """Return the latest values of the given statistics, by layer."""
    kept: dict[str, Mapping[str, float]] = {"grad_norm": found.gradients.by_layer}
    if found.motion is not None:
        kept["update_ratio"] = found.motion.by_layer
    if found.activations is not None:
        kept |= found.activations.by_layer
    return {name: dict(kept[name]) for name in sorted(statistics)}
