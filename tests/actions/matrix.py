"""Every torch optimizer in every way it can be run, and what a guard may do to it: the table behind docs/actions.md."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterable, Iterator
from functools import cache

import torch
from attrs import frozen
from torch import nn, optim

import lbw_policy as lbw
from lbw_policy.errors import AttachError

KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "Adadelta": ("Adadelta", {"weight_decay": 0.1}),
    "Adafactor": ("Adafactor", {"weight_decay": 0.1}),
    "Adagrad": ("Adagrad", {"lr_decay": 0.01}),
    "Adam": ("Adam", {"weight_decay": 0.1}),
    "AdamW": ("AdamW", {"amsgrad": True}),
    "Adamax": ("Adamax", {}),
    "ASGD": ("ASGD", {}),
    "LBFGS": ("LBFGS", {"max_iter": 3}),
    "Muon": ("Muon", {}),
    "NAdam": ("NAdam", {"weight_decay": 0.1}),
    "RAdam": ("RAdam", {}),
    "RMSprop": ("RMSprop", {"momentum": 0.9, "centered": True}),
    "Rprop": ("Rprop", {}),
    "SGD": ("SGD", {"weight_decay": 0.1}),
    "SGD, momentum": ("SGD", {"momentum": 0.9, "dampening": 0.1}),
    "SGD, Nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "SparseAdam": ("SparseAdam", {}),
}
WAYS: dict[str, dict[str, object]] = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
RATES = ("float", "tensor")
ACTIONS: dict[str, str] = {
    "skip": "skip at most 9 in a row, at most 9 per 100 steps",
    "clip to 0.01": "clip at most 9 per 100 steps",
    "clip layers to 0.01": "clip at most 9 per 100 steps",
    "scale_lr by 0.3": "scale_lr within [0.1, 1]",
    "rollback at most 4 steps": "rollback at most 4 steps back, at most 9 per 100 steps",
    "freeze top 50% of layers by grad_norm": "freeze at most 50% of layers, for at most 9 steps",
    "reset_moments": "reset_moments at most 9 per 100 steps",
    "checkpoint": "checkpoint at most 9 per 100 steps",
    "halt": "",
}
NOT_OFFERED = "torch does not offer it"


@frozen
class Cell:
    """One way to run one optimizer."""

    kind: str
    way: str
    rate: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.way}/{self.rate}"

    def options(self) -> dict[str, object]:
        """Return the arguments of the optimizer, the learning rate among them."""
        lr = 0.5 if self.kind == "Adadelta" else 0.02
        return {**KINDS[self.kind][1], "lr": torch.tensor(lr) if self.rate == "tensor" else lr} | self._way()

    def _way(self) -> dict[str, object]:
        """Return what chooses the way; an optimizer that knows one way only takes no argument for it."""
        known = inspect.signature(getattr(optim, KINDS[self.kind][0])).parameters
        return {} if "foreach" not in known and self.way == "single" else WAYS[self.way]

    def start(self) -> tuple[nn.Module, optim.Optimizer]:
        """Return a model and its optimizer, the same on every call; raises what torch raises where it offers none."""
        model = Bare() if self.kind == "Muon" else Looked() if self.kind == "SparseAdam" else Normed()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model, getattr(optim, KINDS[self.kind][0])(model.parameters(), **self.options())


class Normed(nn.Module):
    """Two linear layers with batch norm between."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, seed: int) -> torch.Tensor:
        """Return the loss on a batch that depends on the seed only."""
        inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
        return (self.last(torch.tanh(self.norm(self.first(inputs)))) - inputs[:, :3]).pow(2).sum()


class Bare(nn.Module):
    """Matrices only, as Muon wants them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 5, bias=False), nn.Linear(5, 3, bias=False)

    def forward(self, seed: int) -> torch.Tensor:
        """Return the loss on a batch that depends on the seed only."""
        inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
        return (self.last(torch.tanh(self.first(inputs))) - inputs[:, :3]).pow(2).sum()


class Looked(nn.Module):
    """Two tables with sparse gradients, as SparseAdam wants them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Embedding(7, 4, sparse=True), nn.Embedding(7, 4, sparse=True)

    def forward(self, seed: int) -> torch.Tensor:
        """Return the loss on a batch that depends on the seed only; some rows come twice."""
        rows = torch.randint(0, 7, (6,), generator=torch.Generator().manual_seed(seed))
        return (self.first(rows) * self.last(rows) - 1).pow(2).sum()


def step(model: nn.Module, optimizer: optim.Optimizer, seed: int) -> float:
    """Take one step; the closure is for LBFGS only."""

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(seed)
        loss.backward()
        return loss

    if isinstance(optimizer, optim.LBFGS):
        return float(optimizer.step(closure).detach())
    loss = closure()
    optimizer.step()
    return float(loss.detach())


@cache
def policy(action: str) -> lbw.Policy:
    """Return a policy that does an action whenever the loop observes `now = 1`."""
    return lbw.load(f"""lbw 1
policy cell {{ doc "one action" }}
signal now = observed.now {{ missing hold 1 steps }}
reflex told {{ when now > 0 do {action} }}
limits {{ {ACTIONS[action]}  intervene at most 50 per 100 steps }}
""")


@cache
def unoffered(cell: Cell) -> str:
    """Return why torch itself cannot run this, or nothing."""
    try:
        model, optimizer = cell.start()
        step(model, optimizer, 0)
    except (RuntimeError, TypeError, ValueError) as error:
        return f"{NOT_OFFERED}: {error}"
    return ""


@cache
def refusal(cell: Cell, action: str) -> str:
    """Return why `attach` refuses an action here, or nothing."""
    model, optimizer = cell.start()
    try:
        lbw.attach(optimizer, policy(action), model=model, checkpoint=lambda: None).detach()
    except AttachError as error:
        return str(error)
    return ""


def cells() -> Iterator[Cell]:
    """Yield every way that torch offers."""
    every = (Cell(kind, way, rate) for kind in KINDS for way in WAYS for rate in RATES)
    yield from (cell for cell in every if hasattr(optim, KINDS[cell.kind][0]) and not unoffered(cell))


def table() -> str:
    """Return the matrix in Markdown: a row for each optimizer, a column for each action."""
    names = [re.split(" to | by | at | top ", action)[0] for action in ACTIONS]
    lines = [
        "| optimizer | ways | " + " | ".join(f"`{name}`" for name in names) + " |",
        "|---" * (2 + len(names)) + "|",
    ]
    notes: dict[str, int] = {}
    offered = list(cells())
    for kind in KINDS:
        own = [cell for cell in offered if cell.kind == kind]
        lines.append(f"| {kind} | {_ways(own)} | " + " | ".join(_mark(own, action, notes) for action in ACTIONS) + " |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in notes.items())]) + "\n"


def _ways(own: Iterable[Cell]) -> str:
    found: dict[str, list[str]] = {}
    for cell in own:
        found.setdefault(cell.way, []).append(cell.rate)
    return ", ".join(way if len(rates) == len(RATES) else f"{way} ({rates[0]} lr)" for way, rates in found.items())


def _mark(own: Iterable[Cell], action: str, notes: dict[str, int]) -> str:
    refusals = {refusal(cell, action).partition("does not fit: ")[2] for cell in own}
    assert len(refusals) == 1, "a refusal must not depend on the way an optimizer is run"
    (reason,) = refusals
    return f"refused ({notes.setdefault(reason, len(notes) + 1)})" if reason else "works"
