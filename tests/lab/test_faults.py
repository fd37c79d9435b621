"""Each fault strikes in its window, at its place, and leaves nothing else changed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lbw_policy.lab.faults import CALM, FAULTS, BitFlip, CorruptBatches, Fault, LrGlitch, NanBatch, flip_exponent_bit
from lbw_policy.lab.tasks import ByteLanguage, Draw


@given(st.integers(0, 1000), st.integers(0, 50), st.integers(0, 1100))
def test_a_fault_is_active_in_its_window_and_only_there(start: int, length: int, step: int) -> None:
    assert Fault(start, length).active(step) == (step in range(start, start + length))


@given(st.integers(0, 10_000))
def test_calm_is_never_active(step: int) -> None:
    assert not CALM.active(step)


def test_faults_are_found_by_their_names() -> None:
    assert all(FAULTS[name].name == name for name in FAULTS)
    assert all(kind(start=4).active(4) for kind in FAULTS.values())


_WEIGHTS = st.floats(2**-20, 1.75, width=32) | st.floats(-1.75, -(2**-20), width=32)


@given(_WEIGHTS, st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_a_flip_blows_up_one_ordinary_weight_and_a_second_flip_heals_it(value: float, dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.full((3, 5), value, dtype=dtype))
    before = weight.detach().clone()
    flip_exponent_bit(weight)
    changed = weight.detach().flatten() != before.flatten()
    assert changed.nonzero().flatten().tolist() == [7]
    broken = weight.detach().flatten()[7].item()
    assert not math.isfinite(broken) or abs(broken) > 1e30
    flip_exponent_bit(weight)
    assert torch.equal(weight.detach(), before)


def test_the_bit_flip_strikes_one_matrix_of_the_model(task: ByteLanguage) -> None:
    model, untouched = task.model(0), task.model(0)
    BitFlip(start=0).on_weights(model)
    pairs = zip(model.parameters(), untouched.parameters(), strict=True)
    assert [int((a != b).sum()) for a, b in pairs if not torch.equal(a, b)] == [1]


def test_a_nan_batch_makes_the_loss_and_every_gradient_nan(task: ByteLanguage) -> None:
    model = task.model(0)
    loss = task.loss(model, NanBatch(start=0).on_batch(Draw(task, 0, 0)))
    loss.backward()
    assert loss.isnan()
    assert all(weight.grad is not None and weight.grad.isnan().any() for weight in model.parameters())


def test_corrupt_batches_are_heavy_noise(task: ByteLanguage) -> None:
    draw = Draw(task, 0, 3)
    batch = CorruptBatches(start=3).on_batch(draw)
    assert batch.weight == 10
    assert torch.equal(batch.inputs, draw.noise().inputs)


def _optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (0.1, 0.3)])


@given(st.floats(1e-6, 1.0), st.floats(0.01, 1.0))
def test_a_glitch_composes_with_a_guard_that_scales_the_rate_around_the_update(rate: float, factor: float) -> None:
    optimizer, seen = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=rate), []

    def scale(*_: object) -> None:
        optimizer.param_groups[0]["unscaled"] = optimizer.param_groups[0]["lr"]
        optimizer.param_groups[0]["lr"] *= factor
        seen.append(optimizer.param_groups[0]["lr"])

    def restore(*_: object) -> None:
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["unscaled"]

    optimizer.register_step_pre_hook(scale)
    optimizer.register_step_post_hook(restore)
    with LrGlitch(start=0).on_update(optimizer):
        optimizer.step()
    assert seen == [rate * 30 * factor]
    assert optimizer.param_groups[0]["lr"] == rate


def _fail_within(glitch: LrGlitch, optimizer: torch.optim.Optimizer) -> None:
    with glitch.on_update(optimizer):
        assert [group["lr"] for group in optimizer.param_groups] == [0.1 * 30, 0.3 * 30]
        raise ZeroDivisionError


def test_a_glitch_multiplies_every_group_and_ends_even_if_the_step_raises() -> None:
    optimizer = _optimizer()
    with pytest.raises(ZeroDivisionError):
        _fail_within(LrGlitch(start=0), optimizer)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.3]
