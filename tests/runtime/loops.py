"""Small guarded trainings and short policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn, optim

import lbw_policy as lbw
from lbw_policy.runtime import Guard

HEAD = """lbw 1
policy p { doc "for a test" }
signal loss = telemetry.loss
signal grad = telemetry.grad_norm
"""
LIMITS = """limits {
  scale_lr  within [0.1, 1]
  skip      at most 3 in a row, at most 10 per 100 steps
  clip      at most 50 per 100 steps
  rollback  at most 20 steps back, at most 2 per 100 steps
  freeze    at most 50% of layers, for at most 20 steps
  intervene at most 60 per 100 steps
}
"""


def policy(rules: str, limits: str = LIMITS) -> lbw.Policy:
    """Return a policy of the given rules over `loss` and `grad`."""
    return lbw.load(HEAD + rules + limits)


class Small(nn.Module):
    """Two linear layers with batch norm between."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 3)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return three numbers for each row."""
        return self.last(torch.tanh(self.norm(self.first(batch))))


def small(make: Callable[..., optim.Optimizer] = optim.AdamW, **options: object) -> tuple[Small, optim.Optimizer]:
    """Return a model and its optimizer."""
    model = Small()
    return model, make(model.parameters(), **({"lr": 0.01} | options))


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    """Return the loss on a batch that depends on the step only."""
    random = torch.Generator().manual_seed(step)
    inputs = torch.randn(16, 6, generator=random)
    return nn.functional.mse_loss(model(inputs), inputs[:, :3] * 2)


Spoil = Callable[[torch.Tensor, int], torch.Tensor]


def train(
    model: nn.Module,
    optimizer: optim.Optimizer,
    steps: Iterable[int],
    guard: Guard | None = None,
    spoil: Spoil = lambda loss, step: loss,
) -> list[float]:
    """Train for the given steps; `spoil` may alter a step's loss. Return the losses."""
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = spoil(loss_of(model, step), step)
        loss.backward()
        if guard is not None:
            guard.observe(loss=loss.detach())
        optimizer.step()
        losses.append(loss.item())
    return losses


def at(steps: Iterable[int], factor: float) -> Spoil:
    """Return a spoiler that multiplies the loss at the given steps."""
    wanted = set(steps)
    return lambda loss, step: loss * factor if step in wanted else loss


def acted(guard: Guard, action: str) -> list[int]:
    """Return the ticks at which an action was granted."""
    return [r.tick for r in guard.interventions if r.action == action and r.outcome in ("granted", "reduced")]
