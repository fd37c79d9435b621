"""Real small trainings whose data an adversary controls, one that may see what the guard does."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from adversaries import lost, waited_for
from attrs import evolve, field, frozen
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import lbw_policy as lbw
from lbw_policy.lab.architectures import ARCHITECTURES, task_of
from lbw_policy.lab.data_faults import CorruptBatches, Poison
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.shifts import Spikes
from lbw_policy.lab.tasks import Batch, Draw
from lbw_policy.lab.training import Run
from lbw_policy.lab.trouble import CALM, DATA, Fault
from lbw_policy.machine import Session
from lbw_policy.semantics import Policy

WARM = 300
"""Steps of good data before any sabotage."""
NONE = "none"
Choice = Callable[[Draw, Session | None], Batch]
"""What an adversary that sees the session makes of a step's data; without a guard there is none to see."""


@frozen
class Sabotage(Fault):
    """Data of an adversary's choice, from a step on to the end; who trains shows the session to it."""

    name: ClassVar[str] = "sabotage"
    title: ClassVar[str] = "sabotage"
    group: ClassVar[str] = DATA
    start: int = WARM
    length: int = 10**6
    choose: Choice = lambda draw, _: draw.batch()
    sees: list[Session] = field(factory=list)

    def on_batch(self, draw: Draw) -> Batch:
        """Return the batch of the adversary's choice."""
        return self.choose(draw, self.sees[0] if self.sees else None)


@frozen
class Damage:
    """What came of a sabotaged run; `kept` is the mean lr factor over all steps, an update left out counting as 0.

    `refused` counts refusals, `lost` the most updates lost in 1_000 steps. `first` is the step at which the guard first
    acted or spoke. `loss` is the final held-out loss over that of the run with good data; infinite for a broken model.
    """

    policy: str
    loss: float
    broken: bool
    lost: int
    kept: float
    done: dict[str, int]
    refused: int
    alerts: int
    first: int | None


def train(
    name: str, fault: Fault, policy: Policy | None, steps: int, seed: int = 0
) -> tuple[Run, list[float], list[int]]:
    """Train to the end; return the run, the lr factor of each step (0: no update), and progress after each."""
    torch.set_num_threads(1)
    recipe = Recipe(steps, seed, ARCHITECTURES[name].rates["adamw"])
    used: list[float] = []
    progress: list[int] = []
    sessions = fault.sees if isinstance(fault, Sabotage) else []
    sessions.clear()

    def attach(optimizer: Optimizer, model: nn.Module, scheduler: LRScheduler) -> Any:  # noqa: ANN401 - a guard
        guard = lbw.attach(optimizer, policy or "", model=model, scheduler=scheduler)
        sessions.append(guard._parts.session)  # an adversary reads along
        return guard

    run = Run(task_of(name), recipe, fault, attach if policy else None)
    for step in range(steps):
        before = run.guard.progress if run.guard else step  # type: ignore[attr-defined] # a guard of ours
        run.step()
        if run.halted is not None:
            break
        after = run.guard.progress if run.guard else step + 1  # type: ignore[attr-defined] # a guard of ours
        progress.append(after)
        scale = sessions[0].limiter.scale if run.guard and sessions else 1.0
        used.append(scale if after > before else 0.0)
    return run, used, progress


def damage(name: str, fault: Fault, policy: str, steps: int, seed: int = 0) -> Damage:
    """Return what came of a run whose data are sabotaged, under a policy or none."""
    known = None if policy == NONE else lbw.load(policy)
    run, used, progress = train(name, fault, known, steps, seed)
    records = run.guard.interventions if run.guard else ()
    done = [one for one in records if one.outcome in ("granted", "reduced")]
    alerts = [one for one in records if one.action == "alert"]
    held, calm = run.held_out(), _good(name, steps, seed)
    names = dict.fromkeys(one.action for one in done)
    return Damage(
        policy=policy,
        loss=held / calm if math.isfinite(held) else math.inf,
        broken=not math.isfinite(held) or run.halted is not None,
        lost=lost(progress),
        kept=sum(used[WARM:]) / max(1, len(used) - WARM),
        done={action: sum(one.action == action for one in done) for action in names},
        refused=sum(one.outcome == "refused" for one in records),
        alerts=len(alerts),
        first=min((one.tick for one in (*done, *alerts) if one.tick >= fault.start), default=None),
    )


@functools.cache
def _good(name: str, steps: int, seed: int) -> float:
    """Return the final held-out loss of the run with good data and no guard."""
    return train(name, CALM, None, steps, seed)[0].held_out()


# Adversaries


def nan(draw: Draw) -> Batch:
    """Return the batch with a loss of NaN."""
    return evolve(draw.batch(), weight=math.nan)


def noise(draw: Draw, weight: float = 1.0) -> Batch:
    """Return noise in place of data."""
    return evolve(draw.noise(), weight=weight)


def waster(stir: float) -> Sabotage:
    """Return whoever wastes the most and leaves the run alive: keeps new snapshots away, breaks the loss late.

    Snapshots are not taken while a level stands above the calm one, which losses `stir` times too heavy are to see to.
    """
    phases = ["healthy", "late", "rollback"]

    def choose(draw: Draw, session: Session | None) -> Batch:
        if session is None or not session.limiter.left(session.tick, "rollback"):
            return draw.batch()
        if waited_for(phases[0], session, {"rollback"} if session._events["rollbacks"] else set()):
            phases.append(phases.pop(0))
        if phases[0] == "healthy":
            return draw.batch()
        return nan(draw) if phases[0] == "rollback" else evolve(draw.batch(), weight=stir)

    return Sabotage(choose=choose)


def nan_for_ever(start: int = WARM) -> Sabotage:
    """Return whoever breaks every batch."""
    return Sabotage(start, choose=lambda draw, _: nan(draw))


STRIKE, STRUCK = 460, 30
"""When the strike comes, and for how many steps."""


def spender() -> Sabotage:
    """Return whoever has the skips spent on damaged batches, every other one, and then strikes with damaged ones."""

    def choose(draw: Draw, session: Session | None) -> Batch:
        if STRIKE <= draw.step < STRIKE + STRUCK:
            return noise(draw, 10.0)
        spent = session is not None and not session.limiter.left(session.tick, "skip")
        return draw.batch() if spent or draw.step > STRIKE or draw.step % 2 else noise(draw, 10.0)

    return Sabotage(choose=choose)


def striker() -> Fault:
    """Return the strike without what comes before."""
    return CorruptBatches(STRIKE, STRUCK, weight=10.0)


def poisoner(growth: float, start: int = WARM) -> Fault:
    """Return poison in the data that grows by a factor a step."""
    return Poison(start, 10**6, growth=growth)


def spikes() -> Fault:
    """Return a flood of noise batches that do no harm, one in ten, to make a guard overreact."""
    return Spikes(WARM, 10**6, every=10)
