"""One training run, step by step, with or without a guard: the loop a user would write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lbw_policy.errors import Halted
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.tasks import Batch, Draw, Task
from lbw_policy.lab.trouble import CALM, Fault, Now


class Guarding(Protocol):
    """The part of a guard that a training loop uses."""

    @property
    def interventions(self) -> Sequence[Any]:
        """Return what was done, each with `tick`, `action`, `outcome` and `rule`."""
        ...

    def observe(self, *, loss: Tensor) -> object:
        """Take note of this step's loss."""
        ...

    def clip_grad_norm_(self, max_norm: float, /) -> object:
        """Clip the gradients to an L2 norm, for a loop that clips."""
        ...

    def detach(self) -> object:
        """Leave the optimizer and the model as they were before."""
        ...


Attach = Callable[[Optimizer, nn.Module, LRScheduler], Guarding]
"""Puts a guard on a run and returns it."""


class Run:
    """A training run that is driven one step at a time.

    `losses` has the loss of every finished step, `seconds` its wall time, `halted` the step at
    which a guard stopped the run, if one did; a halted run ignores further steps.
    """

    def __init__(self, task: Task, recipe: Recipe, fault: Fault, attach: Attach | None = None) -> None:
        self.model = task.model(recipe.seed)
        self.optimizer = recipe.optimizer_of(self.model)
        self.scheduler = LambdaLR(self.optimizer, recipe.factor)
        self.guard = None if attach is None else attach(self.optimizer, self.model, self.scheduler)
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.halted: int | None = None
        self._task, self._recipe, self._fault = task, recipe, fault

    def step(self) -> None:
        """Train one step and note its loss and wall time."""
        if self.halted is not None:
            return
        began = time.perf_counter()
        try:
            loss = self._train(len(self.losses))
        except Halted:
            self.halted = len(self.losses)
            return
        self.seconds.append(time.perf_counter() - began)
        self.losses.append(loss)

    def held_out(self) -> float:
        """Return the loss on data never trained on; NaN where the model is broken."""
        return self._task.held_out(self.model)

    def _train(self, step: int) -> float:
        fault, now = self._fault if self._fault.active(step) else CALM, Now(step, self._recipe)
        fault.on_weights(self.model, now)
        loss = self._backward(fault.on_batch(Draw(self._task, self._recipe.seed, step)))
        fault.on_gradients(self.model, now)
        self._clip()
        if self.guard is not None:
            self.guard.observe(loss=loss)
        fault.on_moments(self.optimizer, now)
        with fault.on_update(self.optimizer, now):
            self.optimizer.step()
        self.scheduler.step()
        return float(loss.detach())

    def _backward(self, batch: Batch) -> Tensor:
        with self._recipe.casting():
            loss = self._task.loss(self.model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        return loss

    def _clip(self) -> None:
        if self._recipe.clip is None:
            return
        if self.guard is not None:
            self.guard.clip_grad_norm_(self._recipe.clip)
        else:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._recipe.clip)
