"""A step is left out, shortened or slowed by numbers that only the device knows, to the bit as the host would do it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn, optim

from lbw_policy.actions import Gradients, Switch, UpdateScale, unswitchable, unswitchable_now
from tests.runtime.hostile_world import Picture, alike, copied

FUSED: dict[str, Callable[[list[nn.Parameter]], optim.Optimizer]] = {
    "adam": lambda held: optim.Adam(held, lr=0.01, fused=True),
    "adamw": lambda held: optim.AdamW(held, lr=0.01, amsgrad=True, fused=True),
    "sgd": lambda held: optim.SGD(held, lr=0.05, fused=True),
    "sgd momentum": lambda held: optim.SGD(held, lr=0.05, momentum=0.9, fused=True),
    "adagrad": lambda held: optim.Adagrad(held, lr=0.05, fused=True),
}


def run(kind: str, dtype: torch.dtype = torch.float32, steps: int = 2) -> optim.Optimizer:
    """Return an optimizer after some steps, with gradients in place for the next one."""
    torch.manual_seed(0)
    held = [nn.Parameter(torch.randn(size, dtype=dtype)) for size in ((5, 3), (7,), ())]
    optimizer = FUSED[kind](held)
    for step in range(steps + 1):
        for parameter in held:
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)).to(dtype)
        if step < steps:
            optimizer.step()
    return optimizer


def gradients(optimizer: optim.Optimizer) -> list[torch.Tensor]:
    return [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("skip", [True, False])
def test_a_bit_decides_whether_a_step_is_made(kind: str, skip: bool) -> None:
    optimizer, twin = run(kind), run(kind)
    before = Picture.of(optimizer)
    for gradient in gradients(optimizer) if skip else []:
        gradient.fill_(math.nan)
    switch = Switch(optimizer)
    switch.apply(torch.tensor(skip))
    optimizer.step()
    switch.release()
    if not skip:
        twin.step()
    after, expected = Picture.of(optimizer), before if skip else Picture.of(twin)
    assert alike([after.weights, after.state, after.rates], [expected.weights, expected.state, expected.rates])
    assert not hasattr(optimizer, "found_inf")


@pytest.mark.parametrize(
    ("own", "skip", "made"), [(0.0, False, True), (1.0, False, False), (0.0, True, False), (2.0, True, False)]
)
def test_what_a_scaler_found_is_kept_and_given_back(own: float, skip: bool, made: bool) -> None:
    optimizer = run("adamw")
    found = optimizer.found_inf = torch.tensor([own])
    before, switch = Picture.of(optimizer), Switch(optimizer)
    switch.apply(torch.tensor(skip))
    assert float(optimizer.found_inf) in (0.0, 1.0)
    optimizer.step()
    switch.release()
    assert optimizer.found_inf is found
    assert alike(before.weights, Picture.of(optimizer).weights) != made


def test_what_the_run_sets_meanwhile_stands() -> None:
    optimizer = run("sgd")
    switch, other = Switch(optimizer), torch.tensor(0.0)
    switch.apply(torch.tensor(True))
    optimizer.found_inf = other
    switch.release()
    switch.release()
    assert optimizer.found_inf is other


def test_which_optimizers_cannot_leave_a_step_out_on_the_device() -> None:
    held = [nn.Parameter(torch.ones(2))]
    assert unswitchable(optim.AdamW(held, fused=True)) is None
    assert "`AdamW` is not fused" in (unswitchable(optim.AdamW(held)) or "")
    assert "`RMSprop` is not fused" in (unswitchable(optim.RMSprop(held)) or "")
    mixed = optim.SGD([{"params": held, "fused": False}], fused=True)
    assert unswitchable(mixed) is not None


def test_fused_momentum_cannot_before_each_gradient_has_its_buffer() -> None:
    optimizer = run("sgd momentum", steps=0)
    assert unswitchable_now(optimizer)
    optimizer.step()
    assert not unswitchable_now(optimizer)
    assert not unswitchable_now(run("sgd", steps=0))
    assert not unswitchable_now(run("adamw", steps=0))


@pytest.mark.parametrize("factor", [0.3, 0.1 + 0.2, 1.0, 0.0, 1e-9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_shortened_as_by_a_number(factor: float, dtype: torch.dtype) -> None:
    one, other = run("sgd", dtype), run("sgd", dtype)
    Gradients(one).shorten(torch.tensor(factor, dtype=torch.float64))
    Gradients(other).clip(factor)
    assert alike(gradients(one), gradients(other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_factor_is_not_rounded_to_a_half_type(dtype: torch.dtype) -> None:
    optimizer = run("sgd", dtype)
    before = [copied(gradient) for gradient in gradients(optimizer)]
    Gradients(optimizer).shorten(torch.tensor(0.1 + 0.2, dtype=torch.float64))
    expected = [(gradient.float() * torch.tensor(0.1 + 0.2)).to(dtype) for gradient in before]
    assert alike(gradients(optimizer), expected)


@pytest.mark.parametrize("factor", [math.nan, 1.5, -0.5, math.inf])
def test_a_factor_that_is_none_changes_nothing(factor: float) -> None:
    optimizer = run("adamw")
    before, rate = [copied(gradient) for gradient in gradients(optimizer)], optimizer.param_groups[0]["lr"]
    Gradients(optimizer).shorten(torch.tensor(factor, dtype=torch.float64))
    scale = UpdateScale(optimizer)
    scale.apply_late(torch.tensor(factor, dtype=torch.float64))
    assert alike(before, gradients(optimizer))
    assert float(optimizer.param_groups[0]["lr"]) == rate


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("tensor", [False, True])
def test_a_rate_is_scaled_on_the_device_and_given_back(kind: str, tensor: bool) -> None:
    one, other = run(kind), run(kind)
    for optimizer in (one, other) if tensor else ():
        optimizer.param_groups[0]["lr"] = torch.tensor(optimizer.param_groups[0]["lr"])
    rate = one.param_groups[0]["lr"]
    was = copied(rate)
    late, plain = UpdateScale(one), UpdateScale(other)
    late.apply_late(torch.tensor(0.37, dtype=torch.float64))
    plain.apply(0.37)
    for optimizer in (one, other):
        optimizer.step()
    late.release()
    plain.release()
    assert one.param_groups[0]["lr"] is rate
    assert alike(was, rate)
    assert alike(Picture.of(one).weights, Picture.of(other).weights)


def test_a_rate_that_the_run_sets_meanwhile_stands() -> None:
    optimizer = run("sgd")
    scale = UpdateScale(optimizer)
    scale.apply_late(torch.tensor(0.5, dtype=torch.float64))
    optimizer.param_groups[0]["lr"] = 0.2
    scale.release()
    assert optimizer.param_groups[0]["lr"] == 0.2


def test_dense_real_gradients_are_told_from_others() -> None:
    optimizer = run("sgd")
    assert Gradients(optimizer).reals()
    optimizer.param_groups[0]["params"][1].grad = torch.randn(7).to_sparse()
    assert not Gradients(optimizer).reals()
