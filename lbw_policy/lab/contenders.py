"""What a run is trained under in a comparison: nothing, a remedy everybody knows, the truth, or our guard."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

from attrs import evolve, field, frozen
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import lbw_policy as lbw
from lbw_policy.lab.recipes import OPTIMIZERS, Recipe
from lbw_policy.lab.results import Intervention
from lbw_policy.lab.training import Attach, Guarding
from lbw_policy.lab.trouble import Fault
from lbw_policy.semantics.policy import Place

OURS = "ours:"
"""What stands before a preset or a file in the name of a contender."""
CLIPPED = "clip+"
"""What stands before any contender in a loop that clips to a norm of 1."""
LATE = 10
"""Steps after which the oracle is told."""


@frozen(eq=False)
class Contender:
    """A way to train through trouble.

    `identity` changes whenever its runs may come out otherwise, `source` says where it is from. A remedy that is no
    guard changes the recipe (a lower rate, another optimizer), the oracle the fault itself; `attach` puts a guard on a
    run that knows its fault. It takes part in the runs of some `optimizers` only.
    """

    name: str
    identity: str
    source: str
    attach: Callable[[Fault], Attach] | None = field(default=None, repr=False)
    recipe: Callable[[Recipe], Recipe] = field(default=lambda recipe: recipe, repr=False)
    fault: Callable[[Fault], Fault] = field(default=lambda fault: fault, repr=False)
    optimizers: tuple[str, ...] = OPTIMIZERS


class Bystander:
    """A guard that does nothing: what the guards of a comparison begin with.

    `observe` is called between the backward pass and the update. What is done goes into `interventions`.
    """

    def __init__(self, optimizer: Optimizer, model: nn.Module) -> None:
        self.optimizer, self.model = optimizer, model
        self.interventions: list[Intervention] = []
        self.tick = -1

    def observe(self, *, loss: Tensor) -> None:
        """Take note of this step's loss."""
        self.tick += 1
        self.judge(float(loss.detach()))

    def judge(self, loss: float, /) -> None:
        """Do what there is to do about this step's update."""

    def clip_grad_norm_(self, max_norm: float, /) -> Tensor:
        """Clip as torch does."""
        return nn.utils.clip_grad_norm_(self.model.parameters(), max_norm)

    def detach(self) -> None:
        """Leave the run alone from now on."""

    def acted(self, action: str) -> None:
        """Note what was done."""
        self.interventions.append(Intervention(self.tick, action, "granted", type(self).__name__))

    def skip(self) -> None:
        """Leave this step's update out: torch's optimizers pass over parameters without a gradient."""
        for weight in self.model.parameters():
            weight.grad = None


@frozen(eq=False)
class Memory:
    """A run as it was: weights, buffers and the optimizer's state."""

    tick: int
    model: dict[str, Any]
    optimizer: dict[str, Any]

    @classmethod
    def of(cls, guard: Bystander) -> Memory:
        """Copy a run."""
        return cls(guard.tick, copy.deepcopy(guard.model.state_dict()), copy.deepcopy(guard.optimizer.state_dict()))

    def restore(self, guard: Bystander) -> None:
        """Put the run back; the schedule of the learning rate goes on, and this step has no update."""
        rates = [group["lr"] for group in guard.optimizer.param_groups]
        guard.model.load_state_dict(self.model)
        guard.optimizer.load_state_dict(self.optimizer)
        for group, now in zip(guard.optimizer.param_groups, rates, strict=True):
            group["lr"] = now
        guard.skip()


class Oracle(Bystander):
    """Told of the fault ten steps late: the cause is removed then, and the run is put back to where it struck."""

    def __init__(self, optimizer: Optimizer, model: nn.Module, start: int) -> None:
        super().__init__(optimizer, model)
        self._start = start
        self._before = Memory.of(self)
        optimizer.register_step_post_hook(lambda *_: self._keep())

    def judge(self, _: float, /) -> None:
        """Put the run back when it is time."""
        if self.tick == self._start + LATE:
            self._before.restore(self)
            self.acted("rollback")

    def _keep(self) -> None:
        # A fault in the weights strikes before the forward pass: what is healthy is the end of the step before.
        if self.tick == self._start - 1:
            self._before = Memory.of(self)


def clipped(contender: Contender) -> Contender:
    """Return a contender in a loop that clips to a norm of 1."""
    before = contender.recipe
    return evolve(
        contender,
        name=CLIPPED + contender.name,
        identity=CLIPPED + contender.identity,
        recipe=lambda recipe: evolve(before(recipe), clip=1.0),
    )


def ours(policy: str) -> Contender:
    """Return our guard under a preset or the policy of a file.

    Raises:
        PolicyError: the policy does not check.
        ResourceError: there is no such preset.
    """
    loaded = lbw.load(policy)

    def attach(optimizer: Optimizer, model: nn.Module, scheduler: LRScheduler) -> Guarding:
        return lbw.attach(optimizer, loaded, model=model, scheduler=scheduler)

    return Contender(OURS + policy, OURS + _meaning(loaded), f"this package, `{policy}`", lambda _: attach)


def _meaning(policy: lbw.Policy) -> str:
    """Return a digest of what a policy does: other comments, tests and names of files leave it as it is."""
    bare = evolve(
        policy,
        name="",
        doc="",
        digest="",
        reflexes=tuple(evolve(one, place=Place("", 0)) for one in policy.reflexes),
        levels=tuple(evolve(one, place=Place("", 0)) for one in policy.levels),
        alerts=tuple(evolve(one, place=Place("", 0)) for one in policy.alerts),
    )
    return hashlib.sha256(repr(bare).encode()).hexdigest()


def _oracle() -> Contender:
    def attach(fault: Fault) -> Attach:
        return lambda optimizer, model, _: Oracle(optimizer, model, fault.start if fault.length else -2 * LATE)

    def cured(fault: Fault) -> Fault:
        return evolve(fault, length=min(LATE, fault.length)) if fault.group != "benign" else fault

    return Contender("oracle", "oracle 1", f"told of the fault {LATE} steps late", attach, fault=cured)


NONE = Contender("none", "none", "unguarded")
"""No remedy: what all others are compared with."""
_TENTH = Contender("lr/10", "lr/10", "the learning rate divided by 10", recipe=lambda r: evolve(r, rate=r.rate / 10))
_CLIP = Contender("clip", "clip 1.0", "gradients clipped to a norm of 1", recipe=lambda r: evolve(r, clip=1.0))

PLAIN: dict[str, Callable[[], Contender]] = {
    "none": lambda: NONE,
    "clip": lambda: _CLIP,
    "lr/10": lambda: _TENTH,
    "oracle": _oracle,
}
"""Contenders that need nothing but the lab."""
