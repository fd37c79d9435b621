"""Guarded runs in either tier, on gradients that are made up: what each step left, to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from attrs import define, field, frozen
from hypothesis import strategies as st
from torch import nn, optim

import lbw_policy as lbw
from lbw_policy.semantics.expressions import Arithmetic, Constant
from lbw_policy.semantics.policy import (
    Budget,
    Clip,
    FreezeLimit,
    Limits,
    Place,
    Policy,
    Reflex,
    RollbackLimit,
    ScaleLimit,
    ScaleLr,
    Signal,
    Skip,
    SkipLimit,
)
from tests.runtime.hostile_world import Picture, alike, copied
from tests.strategies import (
    SIGNALS,
    anything,
    foreseeable_conditions,
    foreseeable_numbers,
    missing_rules,
    unchecked_policies,
)

Make = Callable[[Sequence[nn.Parameter]], optim.Optimizer]
OPTIMIZERS: Mapping[str, Make] = {
    "adamw": lambda held: optim.AdamW(held, lr=0.01, fused=True),
    "adamw tensor lr": lambda held: optim.AdamW(held, lr=torch.tensor(0.01), fused=True),
    "adam amsgrad": lambda held: optim.Adam(held, lr=0.01, amsgrad=True, weight_decay=0.1, fused=True),
    "sgd": lambda held: optim.SGD(held, lr=0.05, fused=True),
    "sgd momentum": lambda held: optim.SGD(held, lr=0.05, momentum=0.9, weight_decay=0.01, fused=True),
    "adagrad": lambda held: optim.Adagrad(held, lr=0.05, fused=True),
}
GRADIENTS = (1.0, 1.0, 1.0, 1.0, 1.0, 0.7, 3.0, 50.0, 0.0, 1e30, math.nan, math.inf, None)
"""What a step's gradients are multiplied by; None: there are none."""


@frozen
class Told:
    """What a loop tells before a step: its loss, a number of its own, and what becomes of the gradients."""

    loss: float | torch.Tensor | None
    own: float | torch.Tensor | None
    size: float | None


@define
class Run:
    """A model, its optimizer and its guard; `seen` has what each step left behind."""

    optimizer: optim.Optimizer
    guard: lbw.Guard
    model: nn.Module
    step: int = 0
    saved: int = 0
    seen: list[tuple[Any, ...]] = field(factory=list)

    @classmethod
    def of(cls, kind: str, policy: Policy, tier: str) -> Run:
        """Attach a guard to a fresh run."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        optimizer = OPTIMIZERS[kind](list(model.parameters()))
        return cls(optimizer, lbw.attach(optimizer, policy, model=model, checkpoint=lambda: None, tier=tier), model)

    def tell(self, told: Told) -> None:
        """Fill the gradients, and tell the guard."""
        random = torch.Generator().manual_seed(self.step)
        for parameter in self.model.parameters():
            noise = torch.randn(parameter.shape, generator=random)
            parameter.grad = None if told.size is None else noise * told.size
        said = {"loss": told.loss, "outliers": told.own}
        self.guard.observe(**{name: value for name, value in said.items() if value is not None})

    def go(self, told: Told) -> None:
        """Make one step, and keep what it left."""
        self.tell(told)
        halted = ""
        try:
            self.optimizer.step()
        except lbw.Halted as error:
            halted = str(error)
        self.step += 1
        after = Picture.of(self.optimizer)
        gradients = [copied(parameter.grad) for parameter in self.model.parameters()]
        self.seen.append((after.weights, _moved(after), after.rates, gradients, halted))

    def records(self) -> list[str]:
        """Return all records, the last step's too, as text."""
        self.guard.catch_up()
        return [repr(record) for record in self.guard.interventions]


def _moved(picture: Picture) -> list[dict[str, Any]]:
    """Return the optimizer's state, without that of parameters that no update has touched: skips may make it."""
    return [{} if not float(one.get("step", 1.0)) else one for one in picture.state]


def same(one: Run, other: Run) -> None:
    """Check that two runs came to the same, step by step and record by record."""
    for number, (here, there) in enumerate(zip(one.seen, other.seen, strict=True)):
        assert alike(list(here), list(there)), number
    assert one.records() == other.records()
    assert not [record for record in one.guard.interventions if record.action == "failure"]
    assert (one.guard.level, one.guard.progress, one.guard.tick) == (
        other.guard.level,
        other.guard.progress,
        other.guard.tick,
    )


# Strategies


@st.composite
def tellings(draw: st.DrawFn) -> list[Told]:
    """Draw 12 to 32 steps, most of them ordinary."""
    palette = draw(st.lists(st.floats(0.5, 4.0, width=32), min_size=2, max_size=4))
    number = st.sampled_from([*palette * 4, *draw(st.lists(anything, max_size=2)), None, 40.0])
    value = st.builds(_given, number, st.sampled_from((None, torch.float32, torch.float64)))
    return draw(st.lists(st.builds(Told, value, value, st.sampled_from(GRADIENTS)), min_size=12, max_size=32))


def _given(value: float | None, kind: torch.dtype | None) -> float | torch.Tensor | None:
    return value if value is None or kind is None else torch.tensor(value, dtype=kind)


@st.composite
def policies(draw: st.DrawFn, *, levels: bool) -> Policy:
    """Draw a policy that fits the device tier: reflexes skip, clip and scale; levels may do anything."""
    amount = foreseeable_numbers()
    share = st.builds(Arithmetic, st.just("*"), amount, st.sampled_from((0.1, 0.5)).map(Constant))
    action = st.just(Skip()) | st.builds(Clip, amount | share) | st.builds(ScaleLr, amount | share)
    actions = st.lists(action, min_size=1, max_size=2).map(tuple)
    names = st.integers(0, 99).map("r{}".format)
    reflex = st.builds(Reflex, names, foreseeable_conditions(), actions, st.just(Place("p.lbw", 1)))
    drawn = draw(unchecked_policies())
    signals = (
        Signal("loss", "loss", missing=draw(missing_rules())),
        Signal("grad", "grad_norm"),
        Signal("outliers", "outliers", observed=True, every=draw(st.integers(1, 3)), missing=draw(missing_rules())),
    )
    assert tuple(signal.name for signal in signals) == SIGNALS
    return Policy(
        name="p", doc="", digest="0", params=(), signals=signals, risks=(), alerts=(), limits=draw(_limits()),
        reflexes=tuple(draw(st.lists(reflex, min_size=1, max_size=3, unique_by=lambda one: one.name))),
        levels=drawn.levels if levels else drawn.levels[:1], quarantine=draw(st.integers(1, 20)),
    )  # fmt: skip


@st.composite
def _limits(draw: st.DrawFn) -> Limits:
    budget = st.builds(Budget, st.integers(1, 8), st.integers(1, 16))
    scale = st.builds(ScaleLimit, st.sampled_from((0.01, 0.3)), st.sampled_from((0.9, 1.0)))
    limited = st.sampled_from((True, True, True, False))
    return Limits(
        scale_lr=draw(scale) if draw(limited) else None,
        skip=draw(st.builds(SkipLimit, st.integers(1, 4), budget)) if draw(limited) else None,
        clip=draw(budget) if draw(limited) else None,
        rollback=RollbackLimit(draw(st.integers(2, 12)), draw(budget)),
        freeze=FreezeLimit(0.6, draw(st.integers(1, 6))),
        reset_moments=draw(budget),
        checkpoint=draw(budget),
        intervene=draw(st.none() | budget),
    )
