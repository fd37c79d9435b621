"""Sampled estimates against full computation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import Net, backward, collector, norm, tick
from torch import nn, optim

from lbw_policy.telemetry import Collector, Layers, Plan

SOURCES = ("param_norm", "update_norm", "update_ratio", "curvature")


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return all numbers in one fp64 vector."""
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def measured(width: int, steps: int, make: object) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Return estimate and truth of every step of a real training."""
    model = Net(width)
    optimizer = make(model.parameters())
    found = collector(model, optimizer, *SOURCES)
    pairs, before, gradient, change = [], None, None, None
    for number in range(steps):
        backward(model, optimizer, number)
        weights, current = flat(list(model.parameters())), flat([p.grad for p in model.parameters()])
        readings = tick(found, optimizer, number).values
        truth = {"param_norm": float(weights.norm())}
        if change is not None:
            truth |= {
                "update_norm": float(change.norm()),
                "update_ratio": float(change.norm() / before.norm()),
                "curvature": float((current - gradient) @ change / (change @ change)),
            }
            pairs.append((readings, truth))
        before, gradient = weights, current
        change = flat(list(model.parameters())) - weights
    return pairs


def test_small_tensors_are_measured_exactly() -> None:
    for readings, truth in measured(16, 5, lambda p: optim.SGD(p, lr=0.5, momentum=0.9)):
        assert readings == pytest.approx(truth, rel=1e-3)


@pytest.mark.parametrize("kind", [optim.AdamW, optim.SGD])
def test_large_tensors_are_estimated_within_ten_percent_in_a_real_training(kind: type[optim.Optimizer]) -> None:
    pairs = measured(256, 12, lambda p: kind(p, lr=1e-2))
    for name in ("param_norm", "update_norm", "update_ratio"):
        for readings, truth in pairs:
            assert readings[name] == pytest.approx(truth[name], rel=0.1)


def test_the_curvature_of_a_quadratic_is_its_curvature() -> None:
    weight = nn.Parameter(torch.linspace(1, 2, 50))
    optimizer = optim.SGD([weight], lr=0.01)
    found = Collector(optimizer, Layers.of(optimizer), Plan({"curvature": 1}))
    for number in range(4):
        optimizer.zero_grad()
        (3.5 * weight.square().sum()).backward()
        reading = tick(found, optimizer, number).values["curvature"]
        assert reading == (None if number == 0 else pytest.approx(7.0, rel=1e-3))


def test_nothing_is_known_before_two_ticks_nor_after_forgetting() -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters())
    found = collector(model, optimizer, *SOURCES)
    known = []
    for number in range(8):
        backward(model, optimizer, number)
        readings = tick(found, optimizer, number).values
        known.append([readings[name] is not None for name in ("update_norm", "update_ratio", "curvature")])
        if number == 3:
            found.forget()
    assert [all(row) for row in known] == [False, True, True, True, False, True, True, True]
    assert [any(row) for row in known] == [all(row) for row in known]


def test_forgetting_before_the_update_covers_that_update() -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters())
    found = collector(model, optimizer, *SOURCES)
    backward(model, optimizer, 0)
    found.read(0)
    found.forget()
    optimizer.step()
    assert found.read(1).values["update_norm"] is None


def test_a_step_that_moves_nothing_has_no_curvature_and_a_zero_update() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    found = collector(model, optimizer, *SOURCES)
    for number in range(3):
        backward(model, optimizer, number)
        readings = tick(found, optimizer, number).values
    assert readings["update_norm"] == 0
    assert readings["update_ratio"] == 0
    assert readings["curvature"] is None


def test_weights_that_are_all_zero_have_no_ratio() -> None:
    weight = nn.Parameter(torch.zeros(4))
    optimizer = optim.SGD([weight], lr=0.1)
    found = Collector(optimizer, Layers.of(optimizer), Plan({"update_ratio": 1, "update_norm": 1}))
    weight.grad = torch.ones(4)
    tick(found, optimizer, 0)
    readings = found.read(1).values
    assert readings["update_norm"] == pytest.approx(0.2)
    assert readings["update_ratio"] is None


def test_an_update_full_of_nan_is_reported_as_it_is() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=math.nan)
    found = collector(model, optimizer, *SOURCES)
    backward(model, optimizer, 0)
    tick(found, optimizer, 0)
    assert all(math.isnan(value) for value in found.read(1).values.values() if value is not None)
    assert math.isnan(found.read(2).values["param_norm"])


def test_parameters_that_gain_or_lose_a_gradient_do_not_disturb_the_curvature() -> None:
    kept, other = nn.Parameter(torch.linspace(1, 2, 50)), nn.Parameter(torch.ones(30))
    optimizer = optim.SGD([kept, other], lr=0.01)
    found = Collector(optimizer, Layers.of(optimizer), Plan({"curvature": 1}))
    for number in range(5):
        optimizer.zero_grad()
        (3.5 * kept.square().sum() + (100 * other.sum() if number == 2 else 0)).backward()
        reading = tick(found, optimizer, number).values["curvature"]
        if number in (1, 2, 4):
            assert reading == pytest.approx(7.0, rel=1e-3)
        if number == 3:
            assert 0 < reading < 7


def test_sampling_now_and_then_measures_the_update_before_the_tick() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = collector(model, optimizer, *SOURCES, every=4)
    change = 0.0
    for number in range(13):
        backward(model, optimizer, number)
        before = [p.detach().clone() for p in model.parameters()]
        readings = tick(found, optimizer, number).values
        if number and number % 4 == 0:
            assert readings["update_norm"] == pytest.approx(change, rel=1e-3)
            assert readings["curvature"] is not None
        elif number % 4:
            assert set(readings.values()) == {None}
        change = norm([p - b for p, b in zip(model.parameters(), before, strict=True)])


def test_scaled_gradients_do_not_scale_the_curvature() -> None:
    weight = nn.Parameter(torch.linspace(1, 2, 50))
    optimizer = optim.SGD([weight], lr=0.01)
    found = Collector(optimizer, Layers.of(optimizer), Plan({"curvature": 1}))
    for number, scale in enumerate((1.0, 64.0, 128.0)):
        weight.grad = 7 * weight.detach() * scale
        optimizer.grad_scale = torch.tensor(scale)
        reading = found.read(number).values["curvature"]
        with torch.no_grad():
            weight.sub_(0.01 * weight.grad / scale)
    assert reading == pytest.approx(7.0, rel=1e-3)


def test_a_closure_that_runs_again_and_again_is_one_update() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = optim.SGD([weight], lr=0.1)
    found = Collector(optimizer, Layers.of(optimizer), Plan({"update_norm": 1, "grad_norm": 1}))
    seen = []
    for number in range(3):
        for _ in range(4):
            weight.grad = torch.ones(3)
            seen.append(found.read(number).values)
            with torch.no_grad():
                weight += 1.0
    assert all(values["grad_norm"] == pytest.approx(math.sqrt(3)) for values in seen)
    assert [values["update_norm"] for values in seen[::4]] == [None, *[pytest.approx(4 * math.sqrt(3))] * 2]
    assert all(values["update_norm"] is None for number, values in enumerate(seen) if number % 4)


class Line(nn.Module):
    """One parameter after another, for a loss of any shape."""

    def __init__(self, start: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start))


@settings(deadline=None, max_examples=40)
@given(rate=st.floats(0.01, 3.0), bend=st.floats(0.1, 10.0))
def test_on_a_quadratic_the_overshoot_is_rate_times_curvature(rate: float, bend: float) -> None:
    model = Line([1.0, -2.0, 0.5])
    optimizer = optim.SGD(model.parameters(), lr=rate / bend)
    found = collector(model, optimizer, "overshoot")
    for number in range(2):
        optimizer.zero_grad()
        (0.5 * bend * model.weight.square().sum()).backward()
        reading = tick(found, optimizer, number).values["overshoot"]
    assert reading == pytest.approx(rate, rel=1e-3)


def test_preconditioned_or_not_the_overshoot_judges_the_step_that_was_made() -> None:
    model = Line([1.0, 1.0])
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    found = collector(model, optimizer, "overshoot", "curvature")
    steep = torch.tensor([100.0, 1.0])
    for number in range(2):
        optimizer.zero_grad()
        (0.5 * steep * model.weight.square()).sum().backward()
        values = found.read(number).values
        with torch.no_grad():
            model.weight -= 1.5 * model.weight.grad / steep
    assert values["overshoot"] == pytest.approx(1.5, rel=1e-4)


def test_a_step_against_the_slope_has_no_overshoot() -> None:
    model = Line([1.0, 1.0])
    optimizer = optim.SGD(model.parameters(), lr=0.1, maximize=True)
    found = collector(model, optimizer, "overshoot")
    for number in range(2):
        optimizer.zero_grad()
        model.weight.square().sum().backward()
        values = tick(found, optimizer, number).values
    assert values == {"overshoot": None}


def test_agreement_is_the_cosine_of_two_gradients_whatever_their_length() -> None:
    model = Line([1.0, 1.0])
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    found = collector(model, optimizer, "grad_agreement")
    seen = []
    for number, gradient in enumerate(([1.0, 0.0], [7.0, 0.0], [0.0, 1e-3], [0.0, -5.0], [0.0, 0.0], [1.0, 1.0])):
        model.weight.grad = torch.tensor(gradient)
        seen.append(found.read(number).values["grad_agreement"])
    assert seen == [None, pytest.approx(1.0), pytest.approx(0.0), pytest.approx(-1.0), None, None]


def test_the_largest_update_of_a_layer_is_found() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = collector(model, optimizer, "update_ratio_max", "update_ratio")
    backward(model, optimizer, 0)
    found.read(0)
    weight = norm([model.hidden.weight, model.hidden.bias])
    with torch.no_grad():
        model.hidden.bias += 3.0
    values = found.read(1).values
    assert values["update_ratio_max"] == pytest.approx(3 * math.sqrt(32) / weight, rel=1e-4)
    assert values["update_ratio"] < values["update_ratio_max"]
