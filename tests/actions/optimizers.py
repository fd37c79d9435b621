"""Every supported torch optimizer with the options that change its code path, and small models to move."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn, optim

Maker = Callable[[Iterable[torch.nn.Parameter]], optim.Optimizer]

OPTIMIZERS: dict[str, Maker] = {
    "sgd": partial(optim.SGD, lr=0.1),
    "sgd decay": partial(optim.SGD, lr=0.1, weight_decay=0.1),
    "sgd momentum": partial(optim.SGD, lr=0.1, momentum=0.9),
    "sgd nesterov": partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "sgd fused": partial(optim.SGD, lr=0.1, momentum=0.9, fused=True),
    "adam": partial(optim.Adam, lr=0.01),
    "adam l2": partial(optim.Adam, lr=0.01, weight_decay=0.1),
    "adamw single": partial(optim.AdamW, lr=0.01, weight_decay=0.1, foreach=False),
    "adamw foreach": partial(optim.AdamW, lr=0.01, weight_decay=0.1, foreach=True),
    "adamw fused": partial(optim.AdamW, lr=0.01, weight_decay=0.1, fused=True),
    "adamw amsgrad": partial(optim.AdamW, lr=0.01, amsgrad=True),
    "adamw maximize": partial(optim.AdamW, lr=0.01, maximize=True),
    "rmsprop": partial(optim.RMSprop, lr=0.01, momentum=0.9, centered=True),
    "nadam": partial(optim.NAdam, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "radam": partial(optim.RAdam, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "adagrad": partial(optim.Adagrad, lr=0.1, lr_decay=0.01),
    "adadelta": partial(optim.Adadelta, lr=1.0),
    "adamax": partial(optim.Adamax, lr=0.01),
    "adafactor": partial(optim.Adafactor, lr=0.01, weight_decay=0.1),
    "adafactor above its cap": partial(optim.Adafactor, lr=0.9, weight_decay=0.1),
}
"""The optimizers whose update can be scaled and left out."""

STUBBORN: dict[str, Maker] = {"asgd": partial(optim.ASGD, lr=0.1), "rprop": partial(optim.Rprop, lr=0.1)}
"""Optimizers that can be held still but whose update the learning rate does not scale."""


class Small(nn.Module):
    """Two linear layers with batch norm between and a buffer that no state_dict shows."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 3)
        self.register_buffer("hidden", torch.zeros(2), persistent=False)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return three numbers for each row."""
        self.hidden += 1
        return self.last(torch.tanh(self.norm(self.first(batch))))


def batch_of(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets that depend on the seed only."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(16, 6, generator=random), torch.randn(16, 3, generator=random)


def backward(model: nn.Module, optimizer: optim.Optimizer, seed: int) -> float:
    """Fill the gradients for one batch and return the loss."""
    inputs, targets = batch_of(seed)
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(inputs), targets)
    loss.backward()
    return loss.item()


def train(model: nn.Module, optimizer: optim.Optimizer, seeds: Iterable[int]) -> list[float]:
    """Take one step for each seed and return the losses."""
    losses = []
    for seed in seeds:
        losses.append(backward(model, optimizer, seed))
        optimizer.step()
    return losses


def started(name: str, steps: int = 3) -> tuple[Small, optim.Optimizer]:
    """Return a model and its optimizer after a few steps, the same on every call."""
    model = Small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = (OPTIMIZERS | STUBBORN)[name](model.parameters())
        train(model, optimizer, range(steps))
    return model, optimizer


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of all parameters and buffers."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


def state(optimizer: optim.Optimizer) -> dict[str, object]:
    """Return copies of the state of every parameter, by its place."""
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        f"{place}.{key}": value.detach().clone() if isinstance(value, torch.Tensor) else value
        for place, parameter in enumerate(held)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def same(one: dict[str, object], other: dict[str, object]) -> bool:
    """Tell whether two tables hold the same bits (NaN equals itself)."""
    return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)


def _same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(_bits(one), _bits(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)
