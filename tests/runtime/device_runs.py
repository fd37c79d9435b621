"""Guarded runs in either tier, on gradients that are made up: what each step left, to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from attrs import define, evolve, field, frozen
from hypothesis import strategies as st
from torch import nn, optim

import lbw_policy as lbw
from lbw_policy.semantics.expressions import Arithmetic, Constant, Reading
from lbw_policy.semantics.policy import Clip, Place, Policy, Reflex, ScaleLr, Signal, Skip
from tests.machine import busy
from tests.runtime.hostile_world import Picture, alike, copied
from tests.runtime.loops import policy as policy_of
from tests.runtime.loops import small
from tests.strategies import anything, foreseeable_conditions, foreseeable_numbers, missing_rules

Make = Callable[[Sequence[nn.Parameter]], optim.Optimizer]
OPTIMIZERS: Mapping[str, Make] = {
    "adamw": lambda held: optim.AdamW(held, lr=0.01, fused=True),
    "adamw tensor lr": lambda held: optim.AdamW(held, lr=torch.tensor(0.01), fused=True),
    "adam amsgrad": lambda held: optim.Adam(held, lr=0.01, amsgrad=True, weight_decay=0.1, fused=True),
    "sgd": lambda held: optim.SGD(held, lr=0.05, fused=True),
    "sgd momentum": lambda held: optim.SGD(held, lr=0.05, momentum=0.9, weight_decay=0.01, fused=True),
    "adagrad": lambda held: optim.Adagrad(held, lr=0.05, fused=True),
}
GRADIENTS = (1.0, 1.0, 1.0, 1.0, 0.2, 0.05, 3.0, 50.0, 0.0, 1e30, math.nan, math.inf, None)
"""What a step's gradients are multiplied by; None: there are none."""


@frozen
class Told:
    """What a loop tells before a step: its loss, two numbers of its own, and what becomes of the gradients."""

    loss: float | torch.Tensor | None
    c: float | torch.Tensor | None
    d: float | torch.Tensor | None
    size: float | None


@define
class Run:
    """A model, its optimizer and its guard; `seen` has what each step left behind."""

    optimizer: optim.Optimizer
    guard: lbw.Guard
    model: nn.Module
    step: int = 0
    gone_on: int = 0
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
        said = {"loss": told.loss, "c": told.c, "d": told.d}
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
        self.gone_on += self.guard._left is not None
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


def fused(rules: str, tier: str = "device", **options: Any) -> tuple[nn.Module, optim.Optimizer, lbw.Guard]:  # noqa: ANN401
    """Return a guarded training on a fused AdamW."""
    model, optimizer = small(lambda held, **given: optim.AdamW(held, fused=True, **given))
    return model, optimizer, lbw.attach(optimizer, policy_of(rules), model=model, tier=tier, **options)


# Strategies


@st.composite
def tellings(draw: st.DrawFn) -> list[Told]:
    """Draw stretches of alike steps, most of them ordinary, so that what is held and what is spent shows."""
    number = st.sampled_from((0.0, 0.0, 0.0, 1.0, 1.0, 1.3, None, draw(anything), draw(anything)))
    value = st.builds(_given, number, st.sampled_from((None, torch.float32, torch.float64)))
    told = st.builds(Told, value, value, value, st.sampled_from(GRADIENTS))
    stretches = draw(st.lists(st.tuples(told, st.integers(1, 8)), min_size=4, max_size=8))
    return [one for one, steps in stretches for _ in range(steps)]


def _given(value: float | None, kind: torch.dtype | None) -> float | torch.Tensor | None:
    return value if value is None or kind is None else torch.tensor(value, dtype=kind)


@st.composite
def policies(draw: st.DrawFn, *, levels: bool) -> Policy:
    """Draw a policy that fits the device tier: reflexes skip, clip and scale; levels may do anything."""
    amount = foreseeable_numbers(busy.SIGNALS) | busy.numbers()
    share = st.builds(Arithmetic, st.just("*"), st.just(Reading("b")) | amount, st.just(Constant(0.5)))
    clip, scale = st.builds(Clip, share | share | amount), st.builds(ScaleLr, share | amount)
    condition = foreseeable_conditions(busy.SIGNALS) | busy.conditions()
    actions = st.lists(st.just(Skip()) | clip | clip | scale, min_size=1, max_size=2).map(tuple)
    reflex = st.builds(Reflex, st.integers(0, 99).map("r{}".format), condition, actions, st.just(Place("p.lbw", 1)))
    drawn = draw(busy.policies())
    signals = (
        Signal("a", "loss", missing=draw(missing_rules())),
        Signal("b", "grad_norm"),
        Signal("c", "c", observed=True, every=draw(st.integers(1, 3)), missing=draw(missing_rules())),
        Signal("d", "d", observed=True),
        *(Signal(name, name) for name in busy.OWN),
    )
    return evolve(
        drawn,
        signals=signals,
        reflexes=tuple(draw(st.lists(reflex, min_size=1, max_size=3, unique_by=lambda one: one.name))),
        levels=drawn.levels if levels else drawn.levels[:1],
    )
