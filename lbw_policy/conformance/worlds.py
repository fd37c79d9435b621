"""Small real models under real optimizers, in states that runs get into."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from attrs import frozen
from torch import nn, optim

Make = Callable[[Iterable[nn.Parameter]], optim.Optimizer]


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.last.weight = self.first.weight

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return six numbers for each row."""
        found: torch.Tensor = self.last(torch.tanh(self.first(batch)))
        return found


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def _embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(12, 4, sparse=True), nn.Flatten(), nn.Linear(24, 3))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "an MLP with batch norm": _perceptron,
    "an embedding with sparse gradients": _embedding,
    "a bf16 linear layer": lambda: nn.Linear(6, 3, dtype=torch.bfloat16),
    "tied weights": Tied,
}
OPTIMIZERS: dict[str, Make] = {
    "SGD with momentum": partial(optim.SGD, lr=0.05, momentum=0.9),
    "AdamW": partial(optim.AdamW, lr=0.01, weight_decay=0.05),
    "fused AdamW": partial(optim.AdamW, lr=0.01, weight_decay=0.05, fused=True),
    "AdamW with a tensor lr": lambda parameters: optim.AdamW(parameters, lr=torch.tensor(0.01), foreach=False),
}
RUNS = (
    ("an MLP with batch norm", "SGD with momentum", 2),
    ("an MLP with batch norm", "AdamW with a tensor lr", 2),
    ("an MLP with batch norm", "AdamW", 0),
    ("an embedding with sparse gradients", "SGD with momentum", 2),
    ("a bf16 linear layer", "fused AdamW", 2),
    ("tied weights", "AdamW", 2),
)
"""Model, optimizer, and how many updates it has made; before the first one an optimizer has no state."""
GRADIENTS = ("ordinary", "no", "some missing", "NaN", "infinite", "zero")


@frozen
class Setting:
    """One state to check in; two worlds of one setting are the same to the bit."""

    model: str
    optimizer: str
    updates: int
    gradients: str

    def __str__(self) -> str:
        fresh = "" if self.updates else " before its first update"
        return f"{self.model} under {self.optimizer}{fresh}, {self.gradients} gradients"


@frozen
class World:
    """A model and its optimizer, gradients in place."""

    model: nn.Module
    optimizer: optim.Optimizer


def settings() -> Iterator[Setting]:
    """Yield every setting of the check."""
    return (Setting(*run, gradients) for run, gradients in itertools.product(RUNS, GRADIENTS))


def build(setting: Setting) -> World:
    """Return a new world, the same on every call; the process's random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(0)
        model = MODELS[setting.model]()
        optimizer = OPTIMIZERS[setting.optimizer](model.parameters())
        world = World(model, optimizer)
        for _ in range(setting.updates):
            differentiate(world)
            optimizer.step()
        differentiate(world)
    _spoil(list(model.parameters()), setting.gradients)
    return world


def differentiate(world: World) -> None:
    """Put gradients in place."""
    world.optimizer.zero_grad()
    batch = torch.randn(8, 6)
    if any(isinstance(module, nn.Embedding) for module in world.model.modules()):
        batch = torch.randint(12, (8, 6))
    batch = batch if batch.dtype == torch.int64 else batch.to(next(world.model.parameters()).dtype)
    (world.model(batch) - 1.0).square().mean().backward()


def _spoil(parameters: list[nn.Parameter], kind: str) -> None:
    if kind in ("no", "some missing"):
        for parameter in parameters if kind == "no" else parameters[:1]:
            parameter.grad = None
    values = [_values(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if kind == "zero":
        for some in values:
            some.zero_()
    if kind in ("NaN", "infinite"):
        values[0].view(-1)[0] = math.nan if kind == "NaN" else math.inf


def _values(gradient: torch.Tensor) -> torch.Tensor:
    return gradient._values() if gradient.is_sparse else gradient
