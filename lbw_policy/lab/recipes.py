"""How a run is trained: optimizer, learning rate and its schedule, precision, clipping; everything but the task."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from attrs import field, frozen, validators
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

OPTIMIZERS = ("adamw", "adam", "sgd")
PRECISIONS = ("fp32", "bf16")
SCHEDULES = ("cosine", "linear", "constant")
_END = 0.1


@frozen
class Recipe:
    """How to train: by default AdamW, linear warm-up, then a cosine down to a tenth of the learning rate.

    `sgd` has Nesterov-free momentum of 0.9. `bf16` is a forward pass under autocast with fp32 weights. `clip` is
    the L2 norm that the loop itself clips all gradients to. `weight_decay` is decoupled, and AdamW's only.
    """

    steps: int = field()
    seed: int = 0
    rate: float = 3e-3
    warmup: int = 30
    optimizer: str = field(default="adamw", validator=validators.in_(OPTIMIZERS))
    schedule: str = field(default="cosine", validator=validators.in_(SCHEDULES))
    precision: str = field(default="fp32", validator=validators.in_(PRECISIONS))
    clip: float | None = None
    beta2: float = 0.95
    weight_decay: float = 0.1

    def factor(self, step: int) -> float:
        """Return the schedule's factor of the learning rate at a step."""
        return min(1.0, (step + 1) / self.warmup) * (_END + (1 - _END) * self._falling(min(1.0, step / self.steps)))

    def optimizer_of(self, model: nn.Module) -> Optimizer:
        """Return a new optimizer of all the model's parameters."""
        match self.optimizer:
            case "adamw":
                return AdamW(model.parameters(), lr=self.rate, betas=(0.9, self.beta2), weight_decay=self.weight_decay)
            case "adam":
                return Adam(model.parameters(), lr=self.rate, betas=(0.9, self.beta2))
        return SGD(model.parameters(), lr=self.rate, momentum=0.9)

    def casting(self) -> AbstractContextManager[object]:
        """Return the context of the forward pass."""
        return torch.autocast("cpu", torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def _falling(self, done: float) -> float:
        match self.schedule:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * done))
            case "linear":
                return 1 - done
        return 1.0
