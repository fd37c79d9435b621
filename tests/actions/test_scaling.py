"""Scaling the update."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizers import OPTIMIZERS, backward, same, started, state, weights
from torch import nn, optim

from lbw_policy.actions import UpdateScale, unscalable

FACTORS = st.floats(0.0, 1.0, allow_subnormal=False) | st.sampled_from([0.5, 0.1, 0.01, 1.0])
STEPS = 3


def stepped(name: str, factor: float | None) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Return weights and state after one more step with the given factor."""
    model, optimizer = started(name, STEPS)
    backward(model, optimizer, 99)
    scale = UpdateScale(optimizer)
    if factor is not None:
        scale.apply(factor)
    optimizer.step()
    scale.release()
    return {key: value for key, value in weights(model).items() if "weight" in key or "bias" in key}, state(optimizer)


@pytest.mark.parametrize("name", OPTIMIZERS)
@settings(max_examples=6, deadline=None)
@given(factor=FACTORS)
def test_the_update_is_scaled_and_the_state_is_not(name: str, factor: float) -> None:
    before = weights(started(name, STEPS)[0])
    full, full_state = stepped(name, None)
    scaled, scaled_state = stepped(name, factor)
    assert same(full_state, scaled_state)
    for key, value in scaled.items():
        expected = before[key].double() + factor * (full[key].double() - before[key].double())
        scale = torch.maximum(before[key].abs().max(), full[key].abs().max()).item()
        assert (value.double() - expected).abs().max().item() <= 4 * torch.finfo(torch.float32).eps * scale


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_factor_below_one_really_shortens_the_step(name: str) -> None:
    before = weights(started(name, STEPS)[0])
    full, _ = stepped(name, None)
    half, _ = stepped(name, 0.5)
    whole = math.hypot(*(float((full[k] - before[k]).norm()) for k in full))
    short = math.hypot(*(float((half[k] - before[k]).norm()) for k in full))
    assert whole > 0
    assert short == pytest.approx(whole / 2, rel=1e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_supported_optimizer_can_be_scaled(name: str) -> None:
    assert unscalable(started(name, 0)[1]) is None


@pytest.mark.parametrize("kind", [optim.ASGD, optim.Rprop, optim.LBFGS])
def test_optimizers_that_ignore_their_learning_rate_are_refused_by_name(kind: type[optim.Optimizer]) -> None:
    assert kind.__name__ in str(unscalable(kind([nn.Parameter(torch.ones(2))])))


def test_an_unknown_optimizer_is_refused_and_a_subclass_of_a_known_one_is_not() -> None:
    class Own(optim.Optimizer):
        pass

    class Kin(optim.AdamW):
        pass

    assert "`Own`" in str(unscalable(Own([nn.Parameter(torch.ones(2))], {"lr": 0.1})))
    assert unscalable(Kin([nn.Parameter(torch.ones(2))])) is None


@settings(max_examples=200, deadline=None)
@given(rate=st.floats(0, 1e3), factors=st.lists(FACTORS, min_size=1, max_size=4))
def test_release_puts_back_the_very_bits(rate: float, factors: list[float]) -> None:
    optimizer = optim.SGD(
        [{"params": [nn.Parameter(torch.ones(2))]}, {"params": [nn.Parameter(torch.ones(1))], "lr": 1.0}], lr=rate
    )
    scale = UpdateScale(optimizer)
    for factor in factors:
        scale.apply(factor)
        assert scale.active == (factor != 1)
        assert [group["lr"] for group in optimizer.param_groups] == [rate * factor, factor]
    scale.release()
    scale.release()
    assert [group["lr"] for group in optimizer.param_groups] == [rate, 1.0]
    assert not scale.active


@settings(max_examples=200, deadline=None)
@given(rate=st.floats(0, 1e3, width=32), factor=FACTORS)
def test_a_tensor_learning_rate_shared_by_groups_is_scaled_once_in_place_and_put_back(
    rate: float, factor: float
) -> None:
    lr = torch.tensor(rate)
    groups = [{"params": [nn.Parameter(torch.ones(2))]}, {"params": [nn.Parameter(torch.ones(1))]}]
    optimizer = optim.Adam(groups, lr=lr, foreach=False)
    tensors = [group["lr"] for group in optimizer.param_groups]
    scale = UpdateScale(optimizer)
    scale.apply(factor)
    assert all(torch.equal(tensor, torch.tensor(rate) * factor) for tensor in tensors)
    scale.release()
    assert all(torch.equal(tensor, torch.tensor(rate)) for tensor in tensors)
    assert all(group["lr"] is tensor for group, tensor in zip(optimizer.param_groups, tensors, strict=True))


def test_a_learning_rate_set_by_the_run_after_a_failed_step_is_kept() -> None:
    for rate, fresh in ((1.0, 3.0), (torch.tensor(1.0), torch.tensor(3.0))):
        optimizer = optim.Adam([nn.Parameter(torch.ones(2))], lr=rate, foreach=False)
        scale = UpdateScale(optimizer)
        scale.apply(0.5)
        optimizer.param_groups[0]["lr"] = fresh
        scale.release()
        assert float(optimizer.param_groups[0]["lr"]) == 3.0


def test_a_tensor_learning_rate_filled_by_the_run_after_a_failed_step_is_kept() -> None:
    optimizer = optim.Adam([nn.Parameter(torch.ones(2))], lr=torch.tensor(1.0), foreach=False)
    scale = UpdateScale(optimizer)
    scale.apply(0.5)
    optimizer.param_groups[0]["lr"].fill_(3.0)
    scale.release()
    assert float(optimizer.param_groups[0]["lr"]) == 3.0


def test_applying_again_after_a_step_that_raised_does_not_add_up() -> None:
    optimizer = optim.SGD([nn.Parameter(torch.ones(2))], lr=0.3)
    scale = UpdateScale(optimizer)
    scale.apply(0.5)
    scale.apply(0.5)
    assert optimizer.param_groups[0]["lr"] == 0.15


@pytest.mark.parametrize("factor", [math.nan, math.inf, -0.5, 1.5])
def test_a_factor_that_is_no_scale_is_refused_and_changes_nothing(factor: float) -> None:
    optimizer = optim.SGD([nn.Parameter(torch.ones(2))], lr=0.3)
    with pytest.raises(ValueError, match="update scale"):
        UpdateScale(optimizer).apply(factor)
    assert optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.skipif(not hasattr(optim, "Muon"), reason="this torch has no Muon")
def test_muon_moves_in_proportion_too() -> None:
    def moved(factor: float) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(8, 6))
        optimizer = optim.Muon([weight], lr=0.02, weight_decay=0.1)
        scale = UpdateScale(optimizer)
        for step in range(3):
            weight.grad = torch.randn(8, 6)
            before = weight.detach().clone()
            scale.apply(factor if step == 2 else 1.0)
            optimizer.step()
            scale.release()
        return weight.detach() - before, optimizer.state[weight]["momentum_buffer"]

    (full, kept), (short, held) = moved(1.0), moved(0.25)
    assert torch.equal(kept, held)
    torch.testing.assert_close(short, 0.25 * full, rtol=1e-4, atol=1e-6)


def test_sparse_adam_moves_in_proportion_too() -> None:
    def moved(factor: float) -> torch.Tensor:
        weight = nn.Parameter(torch.ones(4, 2))
        optimizer = optim.SparseAdam([weight], lr=0.1)
        for _ in range(2):
            weight.grad = torch.sparse_coo_tensor(
                [[1, 3]], torch.tensor([[1.0, 2.0], [3.0, 4.0]]), (4, 2), check_invariants=True
            )
            scale = UpdateScale(optimizer)
            before = weight.detach().clone()
            scale.apply(factor if optimizer.state else 1.0)
            optimizer.step()
            scale.release()
        return weight.detach() - before

    assert moved(1.0).abs().max() > 0.05
    torch.testing.assert_close(moved(0.25), 0.25 * moved(1.0), rtol=1e-5, atol=1e-7)
