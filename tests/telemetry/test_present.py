"""Readings before the transfer are the very numbers that come over, also if the loop goes on meanwhile."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from lbw_policy.telemetry import Collector, Layers, Packet, Plan
from lbw_policy.telemetry.readings import Present

WANTED = ("loss", "own", "lr", "grad_norm", "nonfinite_grads", "step_time")
PLAN = Plan({name: 1 for name in WANTED if name != "own"}, observed=frozenset({"own"}), clips=True, waits=False)
numbers = st.sampled_from((1.5, 0.0, -2.0, 1e300, math.nan, math.inf, -math.inf))
rates = numbers.map(abs) | numbers.map(abs).map(lambda rate: torch.tensor(rate, dtype=torch.float64))


def told(value: Present) -> float | None:
    return float(value) if isinstance(value, torch.Tensor) else value


def run(*rates: Any) -> tuple[list[nn.Parameter], optim.Optimizer]:  # noqa: ANN401
    held = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
    groups = [{"params": [one], "lr": rate} for one, rate in zip(held, rates, strict=True)]
    return held, optim.SGD(groups, lr=0.1)


@frozen
class Loop:
    """What a loop does before a step: gradients of these sizes, and all that it tells and sets."""

    sizes: tuple[float | None, float | None]
    loss: float | None
    own: Present
    rates: tuple[Any, Any]
    limit: float | None
    scale: float | None


size = st.sampled_from((1.0, 3.5, 0.0, 1e30, math.nan, math.inf, None))
loops = st.builds(
    Loop,
    sizes=st.tuples(size, size),
    loss=numbers | st.none(),
    own=numbers.map(torch.tensor) | numbers | st.none(),
    rates=st.tuples(rates, rates),
    limit=st.none() | st.floats(0.1, 3.0),
    scale=st.none() | st.sampled_from((8.0, 3.0)),
)


@settings(deadline=None)
@given(loop=loops)
def test_what_is_there_before_the_transfer_comes_over(loop: Loop) -> None:
    held, optimizer = run(*loop.rates)
    collector = Collector(optimizer, Layers.of(optimizer), PLAN)
    for parameter, one in zip(held, loop.sizes, strict=True):
        parameter.grad = None if one is None else torch.full_like(parameter, one)
    if loop.scale is not None:
        optimizer.grad_scale = torch.tensor(loop.scale)
    if loop.limit is not None:
        collector.clip_gradients(loop.limit)
    said = {"loss": loop.loss, "own": loop.own}
    collector.observe({name: value for name, value in said.items() if value is not None})
    packet = collector.measure(0)
    present = {name: told(value) for name, value in collector.present(WANTED).items()}
    norm, sent = told(collector.present_norm()), packet.send()
    _go_on(held, optimizer, collector)
    readings = collector.settle(sent.unpack())
    assert repr(present) == repr({name: readings.values[name] for name in present})
    assert repr(norm) == repr(readings.norm)
    assert set(present) == set(WANTED)


def _go_on(held: list[nn.Parameter], optimizer: optim.Optimizer, collector: Collector) -> None:
    """Do what a loop does before the numbers are read: the next step's loss, gradients, rates."""
    for parameter in held:
        parameter.grad = torch.full_like(parameter, 77.0)
    collector.clip_gradients(0.1)
    collector.observe({"loss": 7.0, "own": 8.0})
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(9.0)
        else:
            group["lr"] = 9.0


def test_what_is_told_after_the_measuring_belongs_to_the_next_tick() -> None:
    _, optimizer = run(0.1, 0.1)
    collector = Collector(optimizer, Layers.of(optimizer), PLAN)
    collector.observe({"loss": 1.0})
    sent = collector.measure(0).send()
    collector.observe({"loss": 2.0})
    assert collector.settle(sent.unpack()).values["loss"] == 1.0
    assert collector.read(1).values["loss"] == 2.0


def test_a_source_that_takes_the_host_is_left_out() -> None:
    _, optimizer = run(0.1, 0.1)
    collector = Collector(optimizer, Layers.of(optimizer), Plan({"param_norm": 1, "loss": 1}))
    collector.measure(0)
    assert collector.present(("param_norm", "loss")) == {"loss": None}


def test_where_the_host_waits_an_overflow_is_looked_at_again_and_where_it_does_not_it_counts_for_infinite() -> None:
    held, optimizer = run(0.1, 0.1)
    for parameter in held:
        parameter.grad = torch.full_like(parameter, 1e30)
    plan = {"grad_norm": 1, "nonfinite_grads": 1, "nonfinite_params": 1}
    found = [Collector(optimizer, Layers.of(optimizer), Plan(plan, waits=waits)).read(0) for waits in (True, False)]
    assert found[0].values["grad_norm"] == pytest.approx(math.sqrt(7) * 1e30)
    assert (found[0].values["nonfinite_grads"], found[0].values["nonfinite_params"]) == (0.0, 0.0)
    assert (found[1].values["grad_norm"], found[1].values["nonfinite_grads"]) == (math.inf, 2.0)


def test_a_packet_that_is_sent_is_a_copy_sorted_by_name() -> None:
    source, packet = torch.tensor([1.0, 2.0]), Packet()
    packet.add("a", source)
    packet.add("b", torch.tensor(3.0, dtype=torch.float64))
    packet.add("a", torch.tensor([4.0]))
    sent, here = packet.send(), packet.unpack()
    source.zero_()
    assert sent.unpack() == here == {"a": [1.0, 2.0, 4.0], "b": [3.0]}
    assert Packet().send().unpack() == {}
