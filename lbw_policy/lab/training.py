"""One training run, step by step, with or without a guard: the loop a user would write."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from attrs import field, frozen
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lbw_policy.errors import Halted
from lbw_policy.lab.faults import CALM, Fault
from lbw_policy.lab.tasks import Draw, Task


class Guarding(Protocol):
    """The part of a guard that a training loop uses."""

    @property
    def interventions(self) -> Sequence[Any]:
        """Return what was done, each with `tick`, `action`, `outcome` and `rule`."""
        ...

    def observe(self, *, loss: Tensor) -> object:
        """Take note of this step's loss."""
        ...

    def detach(self) -> object:
        """Leave the optimizer and the model as they were before."""
        ...


Attach = Callable[[Optimizer, nn.Module, LRScheduler], Guarding]
"""Puts a guard on a run and returns it."""


@frozen
class Recipe:
    """How to train: AdamW, linear warm-up, then a cosine down to a tenth of the learning rate."""

    steps: int = field()
    seed: int = 0
    rate: float = 3e-3
    warmup: int = 30

    def factor(self, step: int) -> float:
        """Return the schedule's factor of the learning rate at a step."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return min(1.0, (step + 1) / self.warmup) * (0.1 + 0.9 * cosine)


class Run:
    """A training run that is driven one step at a time.

    `losses` has the loss of every finished step, `seconds` its wall time, `halted` the step at
    which a guard stopped the run, if one did; a halted run ignores further steps.
    """

    def __init__(self, task: Task, recipe: Recipe, fault: Fault, attach: Attach | None = None) -> None:
        self.model = task.model(recipe.seed)
        self.optimizer = AdamW(self.model.parameters(), lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.1)
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
        fault = self._fault if self._fault.active(step) else CALM
        loss = self._backward(step, fault)
        if self.guard is not None:
            self.guard.observe(loss=loss)
        with fault.on_update(self.optimizer):
            self.optimizer.step()
        self.scheduler.step()
        return float(loss.detach())

    def _backward(self, step: int, fault: Fault) -> Tensor:
        batch = fault.on_batch(Draw(self._task, self._recipe.seed, step))
        fault.on_weights(self.model)
        loss = self._task.loss(self.model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        fault.on_gradients(self.model)
        return loss
