"""The norm before the loop's own clip: measured once, or told."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import Net, backward, collector, norm
from torch import nn, optim

from lbw_policy.telemetry import Collector, Layers, Plan

SOURCES = ("grad_norm", "grad_norm_max", "nonfinite_grads")


def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count passes over gradients from here on."""
    calls: list[int] = []
    kept = torch._foreach_norm
    monkeypatch.setattr(torch, "_foreach_norm", lambda *args, **kwargs: calls.append(1) or kept(*args, **kwargs))
    return calls


def gradients(model: nn.Module) -> list[torch.Tensor]:
    """Return copies of all gradients."""
    return [parameter.grad.clone() for parameter in model.parameters()]


@given(limit=st.floats(1e-6, 1e6), size=st.floats(1e-12, 1e12))
def test_the_clip_is_torchs_own_bit_for_bit(limit: float, size: float) -> None:
    source = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.ones(shape)) for shape in (7, 3, 1)]
    for parameter in ours:
        parameter.grad = size * torch.randn(parameter.shape, generator=source)
    theirs = copy.deepcopy(ours)
    for one, other in zip(ours, theirs, strict=True):
        other.grad = one.grad.clone()
    optimizer = optim.SGD(ours)
    found = Collector(optimizer, Layers.of(optimizer), Plan({"grad_norm": 1})).clip_gradients(limit)
    assert torch.equal(found, nn.utils.clip_grad_norm_(theirs, limit))
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(ours, theirs, strict=True))


def test_clipped_gradients_are_passed_over_once_and_read_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = collector(model, optimizer, *SOURCES)
    backward(model, optimizer, 0)
    before, calls = norm(gradients(model)), passes(monkeypatch)
    assert float(found.clip_gradients(before / 10)) == pytest.approx(before)
    readings = found.read(0)
    assert len(calls) == 1
    assert readings.values["grad_norm"] == pytest.approx(before, rel=1e-6)
    assert readings.norm == pytest.approx(norm(gradients(model)), rel=1e-5)
    assert readings.norm == pytest.approx(before / 10, rel=1e-5)


def test_a_clip_that_does_not_bind_leaves_the_norm_as_it_is() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = collector(model, optimizer, *SOURCES)
    backward(model, optimizer, 0)
    found.clip_gradients(1e9)
    readings = found.read(0)
    assert readings.norm == pytest.approx(readings.values["grad_norm"], rel=1e-9)


def changed(model: nn.Module, optimizer: optim.Optimizer, how: str) -> None:
    """Do something to the gradients after they were clipped."""
    with torch.no_grad():
        if how == "scaled":
            model.head.weight.grad.mul_(2)
        elif how == "replaced":
            model.head.weight.grad = model.head.weight.grad * 2
        elif how == "dropped":
            model.head.weight.grad = None
        else:
            optimizer.zero_grad()
    if how == "again":
        backward(model, optimizer, 9)


@pytest.mark.parametrize("how", ["scaled", "replaced", "dropped", "again"])
def test_gradients_that_changed_after_the_clip_are_measured_anew(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = collector(model, optimizer, *SOURCES)
    backward(model, optimizer, 0)
    found.clip_gradients(1e-3)
    changed(model, optimizer, how)
    calls = passes(monkeypatch)
    readings = found.read(0)
    present = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(calls) == 1
    assert readings.values["grad_norm"] == pytest.approx(norm(present), rel=1e-5)
    assert readings.norm == readings.values["grad_norm"]


def test_a_clip_is_forgotten_with_its_tick() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    found = collector(model, optimizer, *SOURCES)
    backward(model, optimizer, 0)
    found.clip_gradients(1e-3)
    found.read(0)
    assert found.read(1).values["grad_norm"] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_a_clip_makes_of_broken_gradients_is_still_counted(bad: float) -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = collector(model, optimizer, *SOURCES)
    backward(model, optimizer, 0)
    model.head.weight.grad[0, 0] = bad
    found.clip_gradients(1.0)
    readings = found.read(0)
    assert not math.isfinite(readings.values["grad_norm"])
    assert readings.values["nonfinite_grads"] == 1
    assert math.isnan(readings.norm)


def test_sparse_gradients_are_clipped_with_repeated_indices_added_up() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    (3 * table(torch.tensor([1, 1, 4]))).sum().backward()
    dense = table.weight.grad.to_dense()
    optimizer = optim.SGD(table.parameters(), lr=0.1)
    found = Collector(optimizer, Layers.of(optimizer), Plan({"grad_norm": 1}))
    assert float(found.clip_gradients(1.0)) == pytest.approx(norm([dense]))
    assert norm([table.weight.grad.to_dense()]) == pytest.approx(1.0, rel=1e-5)
    assert found.read(0).norm == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_clipped_in_place(dtype: torch.dtype) -> None:
    parameter = nn.Parameter(torch.ones(4000, dtype=dtype))
    parameter.grad = torch.full((4000,), 300.0, dtype=dtype)
    optimizer = optim.SGD([parameter])
    found = Collector(optimizer, Layers.of(optimizer), Plan({"grad_norm": 1}))
    assert float(found.clip_gradients(1.0)) == pytest.approx(300 * math.sqrt(4000), rel=1e-3)
    assert parameter.grad.dtype is dtype
    assert norm([parameter.grad]) == pytest.approx(1.0, rel=1e-2)


def test_without_gradients_there_is_nothing_to_clip() -> None:
    optimizer = optim.SGD([nn.Parameter(torch.ones(3))])
    found = Collector(optimizer, Layers.of(optimizer), Plan({"grad_norm": 1}))
    assert float(found.clip_gradients(1.0)) == 0
    assert found.read(0).values["grad_norm"] is None


@pytest.mark.parametrize(
    ("plan", "measured"),
    [
        (Plan({"grad_norm": 1}), False),
        (Plan({"grad_norm": 1}, clips=True), True),
        (Plan({"grad_norm": 1, "nonfinite_grads": 1}), True),
        (Plan({"grad_norm": 1}, frozenset({"grad_norm"})), True),
        (Plan({"grad_norm": 1, "grad_norm of a": 1}, groups={"a": frozenset({"head"})}), True),
    ],
)
def test_a_told_norm_spares_the_pass_unless_something_else_needs_it(
    plan: Plan, measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = Collector(optimizer, Layers.of(optimizer, model), plan)
    backward(model, optimizer, 0)
    calls = passes(monkeypatch)
    found.observe({"grad_norm": torch.tensor(42.0)})
    readings = found.read(0)
    assert readings.values["grad_norm"] == 42
    assert bool(calls) == measured
    assert readings.norm == (pytest.approx(norm(gradients(model)), rel=1e-5) if measured else None)
    assert found.read(1).values["grad_norm"] == pytest.approx(norm(gradients(model)), rel=1e-5)


def test_a_told_norm_scales_those_of_layers_and_groups_as_the_clip_did() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    keys = ("grad_norm", "grad_norm_max", "grad_norm_min", "grad_norm_spread", "grad_norm of a")
    plan = Plan(dict.fromkeys(keys, 1), groups={"a": frozenset({"head"})})
    layers = Layers.of(optimizer, model)
    clipping, plain = Collector(optimizer, layers, plan), Collector(optimizer, layers, plan)
    backward(model, optimizer, 0)
    expected = plain.read(0).values
    clipping.observe({"grad_norm": nn.utils.clip_grad_norm_(model.parameters(), 1e-3)})
    assert clipping.read(0).values == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("told", [math.nan, math.inf, 0.0, 1e-9])
def test_a_told_norm_that_no_clip_explains_changes_no_other(told: float) -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = collector(model, optimizer, "grad_norm", "grad_norm_max")
    backward(model, optimizer, 0)
    expected = max(norm([p.grad for p in m.parameters(recurse=False)]) for m in model.modules())
    found.observe({"grad_norm": told})
    assert found.read(0).values["grad_norm_max"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e6])
def test_a_clip_through_the_guard_does_not_bend_the_curvature(limit: float) -> None:
    weight = nn.Parameter(torch.linspace(1, 2, 50))
    optimizer = optim.SGD([weight], lr=0.01)
    found = Collector(optimizer, Layers.of(optimizer), Plan({"curvature": 1, "grad_norm": 1}))
    for number in range(4):
        optimizer.zero_grad()
        (3.5 * weight.square().sum()).backward()
        found.clip_gradients(limit * 2**-number)
        reading = found.read(number).values["curvature"]
        optimizer.step()
        assert reading == (None if number == 0 else pytest.approx(7.0, rel=0.05))
