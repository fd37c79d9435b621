"""Gradient norms and non-finite counts against plain computation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import Net, backward, collector, norm, only
from torch import nn, optim

from lbw_policy.telemetry import Collector, Layers, Plan

SOURCES = ("grad_norm", "grad_norm_max", "nonfinite_grads")
NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 1.0, 1e30, -3e38, math.nan, math.inf, -math.inf])


@settings(max_examples=150, deadline=None)
@given(values=st.lists(st.lists(NUMBERS, min_size=1, max_size=5), min_size=1, max_size=5))
def test_the_counts_are_exact_and_the_norm_is_right_for_any_numbers(values: list[list[float]]) -> None:
    gradients = [torch.tensor(row) for row in values]
    found = only(gradients, *SOURCES).values
    broken = sum(not bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert found["nonfinite_grads"] == broken
    if broken:
        assert not math.isfinite(found["grad_norm"])
    else:
        expected = [norm([gradient]) for gradient in gradients]
        assert found["grad_norm"] == pytest.approx(math.hypot(*expected), rel=1e-5, abs=1e-18)
        assert found["grad_norm_max"] == pytest.approx(max(expected), rel=1e-5, abs=1e-18)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_low_precision_neither_overflows_nor_rounds(dtype: torch.dtype) -> None:
    gradient = torch.full((100_000,), 300.0, dtype=dtype)
    found = only([gradient, torch.ones(3)], *SOURCES).values
    assert found["grad_norm"] == pytest.approx(math.sqrt(9e4 * 1e5 + 3), rel=2e-4)
    assert found["nonfinite_grads"] == 0


def test_finite_gradients_whose_squares_overflow_are_finite() -> None:
    found = only([torch.full((4,), 1e30), torch.ones(2), torch.full((2,), 1e200, dtype=torch.float64)], *SOURCES).values
    assert found["nonfinite_grads"] == 0
    assert found["grad_norm"] == pytest.approx(math.sqrt(2) * 1e200)


def test_nan_and_inf_tensors_are_counted_once_each_beside_an_overflow() -> None:
    broken = [torch.tensor([math.nan, math.inf]), torch.tensor([-math.inf, 1.0]), torch.full((4,), 1e30), torch.ones(1)]
    found = only(broken, *SOURCES).values
    assert found["nonfinite_grads"] == 2
    assert math.isnan(found["grad_norm"])
    assert math.isnan(found["grad_norm_max"])


def test_parameters_without_gradient_are_left_out() -> None:
    assert only([None, torch.tensor([3.0, 4.0])], *SOURCES).values == {
        "grad_norm": 5.0,
        "grad_norm_max": 5.0,
        "nonfinite_grads": 0.0,
    }


def test_no_gradient_at_all_is_no_reading() -> None:
    assert only([None, None], *SOURCES).values == dict.fromkeys(SOURCES)


def test_sparse_gradients_count_with_repeated_indices_added_up() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    (3 * table(torch.tensor([1, 1, 4]))).sum().backward()
    found = only([table.weight.grad], *SOURCES).values
    assert found["grad_norm"] == pytest.approx(norm([table.weight.grad.to_dense()]))


def test_complex_gradients_count_both_parts() -> None:
    assert only([torch.tensor([3 + 4j])], *SOURCES).values["grad_norm"] == pytest.approx(5.0)


def test_gradients_a_fused_optimizer_has_yet_to_unscale_are_read_unscaled() -> None:
    scaled = optim.SGD([nn.Parameter(torch.ones(1))])
    scaled.grad_scale = torch.tensor(8.0)
    found = only([torch.tensor([24.0, 32.0])], *SOURCES, optimizer=scaled).values
    assert found["grad_norm"] == pytest.approx(5.0)


def test_layers_have_the_norms_of_a_real_backward_pass() -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters())
    layers = Layers.of(optimizer, model)
    found = Collector(optimizer, layers, Plan({"grad_norm": 1, "grad_norm_max": 1}, frozenset({"grad_norm"})))
    backward(model, optimizer, 1)
    readings = found.read(10)
    expected = {name: norm([p.grad for p in held]) for name, held in layers.parameters.items()}
    assert readings.layers["grad_norm"] == pytest.approx(expected, rel=1e-5)
    assert readings.values["grad_norm_max"] == pytest.approx(max(expected.values()), rel=1e-5)
    assert readings.values["grad_norm"] == pytest.approx(norm([p.grad for p in model.parameters()]), rel=1e-5)


@pytest.mark.parametrize("damage", [math.nan, math.inf, -math.inf])
def test_one_broken_weight_is_found_and_a_huge_one_is_not_called_broken(damage: float) -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters())
    found = collector(model, optimizer, "nonfinite_params")
    with torch.no_grad():
        model.table.weight[10, 15] = 2e38
    assert found.read(1).values["nonfinite_params"] == 0
    with torch.no_grad():
        model.hidden.weight[3, 7] = damage
    assert found.read(2).values["nonfinite_params"] == 1
