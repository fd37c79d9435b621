"""Leaving gradients out, and shortening them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizers import OPTIMIZERS, STUBBORN, backward, same, started, state, train, weights
from torch import nn, optim

from lbw_policy.actions import Gradients, unskippable


def moving(model: nn.Module) -> dict[str, object]:
    """Return copies of the parameters only: a forward pass moves buffers, a step does not."""
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS | STUBBORN)
def test_a_skipped_step_leaves_weights_and_state_bit_identical(name: str, steps: int) -> None:
    model, optimizer = started(name, steps)
    backward(model, optimizer, 99)
    for parameter in model.parameters():
        parameter.grad[:] = math.nan
    before, state_before = moving(model), state(optimizer)
    gradients = Gradients(optimizer)
    gradients.drop()
    optimizer.step()
    gradients.release()
    assert same(moving(model), before)
    assert same(state(optimizer), state_before)
    assert all(parameter.grad.isnan().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS | STUBBORN)
def test_training_goes_on_after_a_skip_as_if_the_batch_had_not_been(name: str) -> None:
    model, optimizer = started(name, 3)
    other, reference = started(name, 3)
    backward(model, optimizer, 99)
    backward(other, reference, 99)
    gradients = Gradients(optimizer)
    gradients.drop()
    optimizer.step()
    gradients.release()
    train(model, optimizer, range(10, 13))
    train(other, reference, range(10, 13))
    assert same(weights(model), weights(other))
    assert same(state(optimizer), state(reference))


def test_a_dropped_layer_stays_while_the_others_move() -> None:
    model, optimizer = started("adamw foreach", 3)
    backward(model, optimizer, 99)
    before, state_before = moving(model), state(optimizer)
    gradients = Gradients(optimizer)
    gradients.drop(model.first.parameters())
    optimizer.step()
    gradients.release()
    changed = {name for name, tensor in moving(model).items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if not name.startswith("first")}
    assert torch.equal(state(optimizer)["0.exp_avg"], state_before["0.exp_avg"])
    assert model.first.weight.grad is not None


def test_a_gradient_that_came_meanwhile_is_not_replaced() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    gradients = Gradients(optim.SGD([weight]))
    gradients.drop()
    fresh = torch.zeros(2)
    weight.grad = fresh
    gradients.release()
    assert weight.grad is fresh


@settings(max_examples=50, deadline=None)
@given(
    factor=st.floats(0, 1, allow_subnormal=False), name=st.sampled_from([torch.float32, torch.bfloat16, torch.float16])
)
def test_clipping_multiplies_every_gradient_in_place(factor: float, name: torch.dtype) -> None:
    held = [
        nn.Parameter(torch.ones(3, dtype=name)),
        nn.Parameter(torch.ones(2, 2, dtype=name)),
        nn.Parameter(torch.ones(1)),
    ]
    held[0].grad, held[1].grad = torch.full((3,), 2.0, dtype=name), torch.full((2, 2), -3.0, dtype=name)
    first = held[0].grad
    Gradients(optim.SGD(held)).clip(factor)
    assert held[0].grad is first
    torch.testing.assert_close(first, (torch.full((3,), 2.0) * factor).to(name))
    torch.testing.assert_close(held[1].grad, (torch.full((2, 2), -3.0) * factor).to(name))


def test_sparse_gradients_are_clipped_too() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 1, 3])).sum().backward()
    Gradients(optim.SparseAdam(table.parameters())).clip(0.25)
    assert torch.equal(table.weight.grad.to_dense()[1], torch.full((2,), 0.5))


@pytest.mark.parametrize("factor", [math.nan, math.inf, -0.1, 1.0001])
def test_a_clip_that_could_lengthen_a_gradient_is_refused(factor: float) -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    with pytest.raises(ValueError, match="clip factor"):
        Gradients(optim.SGD([weight])).clip(factor)
    assert torch.equal(weight.grad, torch.ones(2))


def test_only_lbfgs_cannot_be_skipped() -> None:
    assert "LBFGS" in str(unskippable(optim.LBFGS([nn.Parameter(torch.ones(2))])))
    assert all(unskippable(started(name, 0)[1]) is None for name in OPTIMIZERS | STUBBORN)


def test_some_gradients_are_clipped_each_by_its_own_factor() -> None:
    held = [nn.Parameter(torch.ones(2)) for _ in range(4)]
    for parameter in held[:3]:
        parameter.grad = torch.full((2,), 8.0)
    gradients = Gradients(optim.SGD(held))
    gradients.clip_some({held[0]: 0.5, held[1]: 1.0, held[3]: 0.5})
    assert [float(parameter.grad[0]) for parameter in held[:3]] == [4.0, 8.0, 8.0]
    with pytest.raises(ValueError, match="clip factors"):
        gradients.clip_some({held[0]: 0.5, held[2]: 1.5})
    assert float(held[0].grad[0]) == 4.0


def test_gradients_that_come_again_within_a_step_are_held_back_too() -> None:
    weight = nn.Parameter(torch.ones(2))
    gradients = Gradients(optim.SGD([weight]))
    gradients.drop()
    weight.grad = fresh = torch.ones(2)
    gradients.hold()
    assert weight.grad is None
    gradients.release()
    assert weight.grad is fresh
