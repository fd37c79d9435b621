"""Fixed samples of tensors."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lbw_policy.telemetry.samples import RUN, WEIGHT_SAMPLE, Pattern, Sampler, stride_for


def total(sampler: Sampler, values: torch.Tensor) -> float:
    """Return what a sample says the sum of all elements is."""
    return float(sampler.dot(sampler.weighted(values), torch.ones_like(values)).sum())


@given(numel=st.integers(1, 10**7), most=st.integers(1, 5000))
def test_a_stride_is_coprime_and_never_samples_too_much(numel: int, most: int) -> None:
    stride = stride_for(numel, most)
    assert math.gcd(stride, numel) == 1
    assert -(-numel // stride) <= most


@given(numel=st.integers(0, 10**7), place=st.integers(0, 10_000))
def test_a_pattern_stays_inside_its_tensor_and_under_its_size(numel: int, place: int) -> None:
    pattern = Pattern.of(numel, place)
    assert pattern.count <= WEIGHT_SAMPLE
    last = pattern.start + sum((size - 1) * step for size, step in zip(pattern.size, pattern.steps, strict=True))
    assert last < numel or numel == 0
    assert pattern.count == numel or numel > WEIGHT_SAMPLE
    assert pattern.count * pattern.stands_for == pytest.approx(numel)


def test_over_all_starts_every_run_is_sampled_equally_often() -> None:
    numel = 3 * WEIGHT_SAMPLE
    distance = Pattern.of(numel, 0).distance
    starts = {Pattern.of(numel, place).start for place in range(200)}
    assert starts == {RUN * start for start in range(distance)}


def test_the_mean_over_all_starts_is_the_truth() -> None:
    weight = torch.randn(40, WEIGHT_SAMPLE // 10, generator=torch.Generator().manual_seed(0)).square()
    distance = Pattern.of(weight.numel(), 0).distance
    by_start: dict[int, float] = {}
    for place in range(200):
        pattern = Pattern.of(weight.numel(), place)
        by_start[pattern.start] = float(pattern.view(weight).double().sum()) * pattern.stands_for
    assert len(by_start) == distance
    assert statistics.fmean(by_start.values()) == pytest.approx(float(weight.double().sum()), rel=2e-3)


def test_a_sample_sees_every_column_of_a_power_of_two_matrix() -> None:
    weight = nn.Parameter(torch.arange(512.0).repeat(512, 1))
    sample = Sampler([weight]).weights().values
    assert sample.numel() <= WEIGHT_SAMPLE
    assert len(set(sample.tolist())) == 512


@pytest.mark.parametrize("divided", [False, True])
def test_the_sample_stands_for_every_element(divided: bool) -> None:
    held = [nn.Parameter(torch.ones(50_001)), nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(0))]
    sampler = Sampler(held, divided=divided)
    assert total(sampler, sampler.weights().values) == pytest.approx(50_013, rel=1e-5)


@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_sums_by_parameter_add_up_to_the_sum_over_all(sizes: list[int], seed: int) -> None:
    source = torch.Generator().manual_seed(seed)
    held = [nn.Parameter(torch.randn(size, generator=source)) for size in sizes]
    whole, parts = Sampler(held), Sampler(held, divided=True)
    assert len(parts.dot(parts.weighted(parts.weights().values), parts.weights().values)) == parts.sums == len(sizes)
    values = parts.weights().values
    found = parts.dot(parts.weighted(values), values)
    expected = [float(p.detach().double().square().sum()) for p in held]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    values = whole.weights().values
    assert float(whole.dot(whole.weighted(values), values)) == pytest.approx(sum(expected), rel=1e-5)


def test_weights_and_gradients_are_sampled_at_the_same_elements_in_any_layout() -> None:
    conv = nn.Conv2d(64, 128, 3).to(memory_format=torch.channels_last)
    conv.weight.grad = conv.weight.detach().clone(memory_format=torch.contiguous_format)
    assert conv.weight.grad.stride() != conv.weight.stride()
    sampler = Sampler([conv.weight])
    assert torch.equal(sampler.weights().values, sampler.gradients().values)


def test_a_sample_stands_while_the_next_one_is_taken() -> None:
    weight = nn.Parameter(torch.ones(10))
    sampler = Sampler([weight])
    first = sampler.weights().values
    with torch.no_grad():
        weight.fill_(2.0)
    second = sampler.weights().values
    assert first[:10].tolist() == [1.0] * 10
    assert second[:10].tolist() == [2.0] * 10


def test_memory_does_not_grow() -> None:
    weight = nn.Parameter(torch.ones(10))
    sampler = Sampler([weight])
    places = {sampler.weights().values.data_ptr() for _ in range(50)}
    assert len(places) == 2


def test_a_weight_whose_storage_was_swapped_is_followed() -> None:
    weight = nn.Parameter(torch.ones(10))
    sampler = Sampler([weight])
    weight.data = torch.full((10,), 2.0)
    assert sampler.weights().values[:10].tolist() == [2.0] * 10


def test_a_weight_with_holes_in_its_storage_is_sampled_live() -> None:
    weight = nn.Parameter(torch.arange(12.0).reshape(3, 4)[:, :2])
    assert not weight.is_contiguous()
    sampler = Sampler([weight])
    with torch.no_grad():
        weight.add_(1)
    assert sampler.weights().values[:6].tolist() == [1, 2, 5, 6, 9, 10]


def test_what_has_no_gradient_is_absent_and_zero() -> None:
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    held = [nn.Parameter(torch.ones(3)), table.weight, nn.Parameter(torch.ones(2))]
    held[0].grad = torch.full((3,), 7.0)
    sampler = Sampler(held)
    sample = sampler.gradients()
    assert sample.absent == {1, 2}
    assert float(sample.values.sum()) == 21
    held[0].grad = None
    sampler.begin()
    assert float(sampler.gradients().values.abs().sum()) == 0


@pytest.mark.parametrize(
    ("dtype", "wide"), [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)]
)
def test_samples_are_at_least_fp32(dtype: torch.dtype, wide: torch.dtype) -> None:
    sampler = Sampler([nn.Parameter(torch.full((5,), 1.5, dtype=dtype))])
    assert sampler.weights().values.dtype is wide
    assert sampler.weights().values[:5].tolist() == [1.5] * 5
