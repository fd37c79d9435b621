"""Small trainings to measure."""

from __future__ import annotations

import math

import torch
from torch import nn, optim

from lbw_policy.telemetry import Collector, Layers, Plan, Readings

OPTIMIZER_SOURCES = (
    "grad_norm",
    "grad_norm_max",
    "nonfinite_grads",
    "nonfinite_params",
    "param_norm",
    "update_norm",
    "update_ratio",
    "curvature",
    "lr",
)
ACTIVATION_SOURCES = ("activation_outliers", "activation_variance", "activation_max")


class Net(nn.Module):
    """Embedding, normalisation and two linear layers: every shape a sample must cope with."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, width)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 2 * width)
        self.head = nn.Linear(2 * width, 11, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return scores for each token."""
        return self.head(torch.relu(self.hidden(self.norm(self.table(tokens)))))


def tokens(seed: int) -> torch.Tensor:
    """Return a batch that depends on the seed only."""
    return torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(seed))


def backward(model: nn.Module, optimizer: optim.Optimizer, seed: int) -> torch.Tensor:
    """Fill the gradients for one batch and return the loss."""
    optimizer.zero_grad()
    batch = tokens(seed)
    loss = nn.functional.cross_entropy(model(batch).flatten(0, 1), batch.roll(1, 1).flatten())
    loss.backward()
    return loss


def collector(model: nn.Module, optimizer: optim.Optimizer, *sources: str, every: int = 1) -> Collector:
    """Return a collector of the given sources."""
    return Collector(optimizer, Layers.of(optimizer, model), Plan(dict.fromkeys(sources, every)))


def tick(found: Collector, optimizer: optim.Optimizer, number: int) -> Readings:
    """Read, step, and measure the step."""
    readings = found.read(number)
    optimizer.step()
    return readings


def only(gradients: list[torch.Tensor | None], *sources: str, optimizer: optim.Optimizer | None = None) -> Readings:
    """Return one reading of parameters with the given gradients."""
    held = [
        nn.Parameter(torch.ones_like(g.to_dense() if g is not None and g.is_sparse else g))
        if g is not None
        else nn.Parameter(torch.ones(2))
        for g in gradients
    ]
    for parameter, gradient in zip(held, gradients, strict=True):
        parameter.grad = gradient
    taken = optim.SGD(held, lr=0.1)
    if optimizer is not None:
        taken.grad_scale = optimizer.grad_scale
    return Collector(taken, Layers.of(taken), Plan(dict.fromkeys(sources, 1))).read(1)


def norm(tensors: list[torch.Tensor]) -> float:
    """Return the L2 norm of everything, in double precision."""
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


class Mixed(nn.Module):
    """Attention and a mixture of experts: a model that has every signal."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.router = nn.Linear(width, 3, bias=False)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.head = nn.Linear(width, 11)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return scores for each token."""
        query, key, value = (part.unsqueeze(1) for part in self.qkv(self.table(tokens)).chunk(3, -1))
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True).squeeze(1)
        weights = self.router(seen).softmax(-1)
        mixed = sum(weights[..., n, None] * expert(seen) for n, expert in enumerate(self.experts))
        return self.head(mixed)
