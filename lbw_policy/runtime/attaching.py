"""attach: puts a guard on an optimizer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from weakref import ReferenceType, WeakKeyDictionary, ref

from attrs import evolve
from torch import distributed as dist
from torch import nn
from torch.optim import Optimizer

from lbw_policy.actions import Generators, Snapshots
from lbw_policy.errors import AttachError, StateError
from lbw_policy.machine import Session
from lbw_policy.machine.schedule import SnapshotSchedule, slack
from lbw_policy.record import Ledger, log
from lbw_policy.risk import RiskModel, read_prior
from lbw_policy.runtime.ahead import Ahead
from lbw_policy.runtime.cadence import wants
from lbw_policy.runtime.deciding import risk_models
from lbw_policy.runtime.effects import Effects, Given
from lbw_policy.runtime.fit import check_fit, match_groups, plan_for
from lbw_policy.runtime.guard import Guard, Parts
from lbw_policy.runtime.hooks import Hooks
from lbw_policy.runtime.meter import Meter
from lbw_policy.runtime.ondevice import TensorOperations
from lbw_policy.runtime.pacing import Pace
from lbw_policy.runtime.plugged import Plugged
from lbw_policy.runtime.thinning import Thinning
from lbw_policy.runtime.tiers import choose_tier
from lbw_policy.semantics import Policy, load
from lbw_policy.telemetry import Collector, Layers, Plan, Stopwatch

# A guard holds its optimizer: held here by more than a weak reference, it would keep both for ever.
_attached: WeakKeyDictionary[Optimizer, ReferenceType[Guard]] = WeakKeyDictionary()


def attach(  # noqa: PLR0913 - the public door; all but two are keywords with defaults
    optimizer: Optimizer,
    policy: Policy | str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    scheduler: object | None = None,
    scaler: object | None = None,
    ema: object | None = None,
    checkpoint: Callable[[], object] | None = None,
    snapshots: str | os.PathLike[str] = "device",
    rng: bool = False,
    tier: str = "auto",
    mode: str = "act",
    seed: int = 0,
    prior: str | os.PathLike[str] | None = None,
) -> Guard:
    """Guard every update of an optimizer by a policy, and return the guard.

    Args:
        optimizer: any torch optimizer, or a wrapper that holds one as `.optimizer`.
        policy: a loaded policy, or what `load` takes.
        model: needed by policies that read activations, freeze by them, or roll back.
        scheduler: restored by a rollback together with the weights.
        scaler: restored by a rollback, likewise.
        ema: restored by a rollback, likewise; a module's tensors in place.
        checkpoint: called by the action `checkpoint`, without arguments, before the update.
        snapshots: where those for `rollback` lie: `device` (beside the weights), `host`, or a directory.
        rng: whether a rollback restores the random number generators too, so that the same data diverges again.
        tier: where reflexes act: `device`, without the host waiting for a step's numbers (levels then act one
            step later), `host`, or `auto`: on a GPU the device if all of the policy fits there, else the host.
        mode: `act`, or `shadow` to decide and record without changing anything.
        seed: of the risk models.
        prior: a file that `lbw risk learn` wrote, to start from instead of the prior that ships with the package.

    Raises:
        AttachError: the policy does not fit, or not the tier, the optimizer is guarded already, the snapshots
            need more memory than there is, or the prior cannot be used.
        PolicyError: the policy does not check.
    """
    inner = _innermost(optimizer)
    if not isinstance(policy, Policy):
        policy = load(policy)
    _check_call(inner, mode)
    risks = _risks(policy, seed, prior)
    layers = Layers.of(inner, model)
    groups = match_groups(policy, layers)
    check_fit(policy, inner, layers, groups, checkpoint)
    device = choose_tier(tier, policy, inner, layers)
    extras = {"scheduler": scheduler, "scaler": scaler, "ema": ema, "rng": Generators() if rng else None}
    present = {name: extra for name, extra in extras.items() if extra is not None}
    given = Given(
        snapshots=Snapshots(inner, model, present, snapshots) if SnapshotSchedule.of(policy) else None,
        scheduled="scheduler" in present,
        groups=groups,
        checkpoint=checkpoint,
    )
    if given.snapshots and mode == "act":
        _reserve(given.snapshots)
    plugged = Plugged(policy, inner, model)
    plan = evolve(plan_for(policy, model), plugins=plugged.measures, groups=groups, waits=device is None)
    parts = _parts(policy, inner, layers, given, plan)
    parts.plugged = plugged
    if device is not None:
        parts.ahead = Ahead(parts.session, parts.collector, parts.effects, TensorOperations(device))
    parts.risks.update(risks)
    guard = Guard(parts, mode)
    guard.hooks = Hooks(inner, guard)
    _attached[inner] = ref(guard)
    return guard


def _parts(policy: Policy, optimizer: Optimizer, layers: Layers, given: Given, plan: Plan) -> Parts:
    watch = Stopwatch() if policy.limits.overhead else None
    session = Session(policy, lagged=not plan.waits)
    return Parts(
        policy=policy,
        collector=Collector(optimizer, layers, plan, watch),
        risks={},
        session=session,
        effects=Effects(optimizer, layers, given),
        ledger=Ledger(),
        thinning=_thinning(policy, session, plan, watch) if watch else None,
    )


def _thinning(policy: Policy, session: Session, plan: Plan, watch: Stopwatch) -> Thinning:
    pace, bound = Pace(wants(policy), ranks=bool(plan.layer_statistics - set(plan.every))), slack(policy)
    longest = bound.every if bound else 0
    return Thinning(policy.limits.overhead or 1.0, pace, Meter(watch), session.schedule, longest, _is_alone)


def _is_alone() -> bool:
    """Tell whether this process trains by itself."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def _risks(policy: Policy, seed: int, prior: str | os.PathLike[str] | None) -> dict[str, RiskModel]:
    try:
        return risk_models(policy, seed, None if prior is None else read_prior(prior))
    except StateError as error:
        raise AttachError(f"the prior cannot be used: {error}") from error


def _reserve(snapshots: Snapshots) -> None:
    began = time.perf_counter()
    snapshots.reserve()
    log.info("snapshots for rollback take %s, reserved in %.2g s", snapshots, time.perf_counter() - began)


def _innermost(optimizer: object) -> Optimizer:
    seen = optimizer
    while isinstance(getattr(seen, "optimizer", None), Optimizer):
        seen = seen.optimizer  # type: ignore[attr-defined]  # the line above looked
    if not isinstance(seen, Optimizer):
        raise AttachError(f"expected a torch optimizer, found `{type(optimizer).__name__}`")
    return seen


def _check_call(optimizer: Optimizer, mode: str) -> None:
    if mode not in ("act", "shadow"):
        raise AttachError(f"expected mode `act` or `shadow`, found `{mode}`")
    known = _attached.get(optimizer)
    guard = known() if known else None
    if guard is not None and guard.hooks is not None:
        raise AttachError("the optimizer is guarded already; call `detach()` on its guard first")
