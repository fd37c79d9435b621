"""Each fault strikes in its window, at its place, with its severity, and leaves nothing else changed."""

import json
import math
import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lbw_policy.lab.data_faults import BadInput, CorruptBatches, NanBatch, Poison
from lbw_policy.lab.faults import BENIGN_SHIFTS, CALM, FAULTS, GROUPS, KINDS, Fault
from lbw_policy.lab.gradient_faults import GradientFlip, GradientNan, GradientScale, HalfOverflow, NoiseCreep
from lbw_policy.lab.moment_faults import MomentFlip, MomentsLost, StaleMoments
from lbw_policy.lab.rate_faults import LrGlitch, LrRamp, LrRestart
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.shifts import BatchSize, Curriculum, DomainShift, HardBatches, LabelNoise, Spikes
from lbw_policy.lab.tasks import Batch, Draw, Task
from lbw_policy.lab.training import Run
from lbw_policy.lab.trouble import ROUTER, Now, flip_bits
from lbw_policy.lab.weight_faults import BitFlip, LogitGrowth, OutputGrowth, RouterCollapse, WeightNoise

_RECIPE = Recipe(steps=20, warmup=4)
_KINDS = sorted(set(KINDS) - {CALM.name})


def _now(step: int = 0) -> Now:
    return Now(step, _RECIPE)


def _source(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - not for secrets


def _task(tasks: dict[str, Task], kind: type[Fault]) -> Task:
    return tasks["moe" if ROUTER in kind.needs else "gpt"]


# Every kind


@given(st.integers(0, 1000), st.integers(0, 50), st.integers(0, 1100))
def test_a_fault_is_active_in_its_window_and_only_there(start: int, length: int, step: int) -> None:
    assert Fault(start, length).active(step) == (step in range(start, start + length))


@given(st.integers(0, 10_000))
def test_calm_is_never_active(step: int) -> None:
    assert not CALM.active(step)


def test_the_catalogue_is_broad_and_every_kind_has_its_group_and_its_words() -> None:
    assert len(FAULTS) >= 14
    assert len(BENIGN_SHIFTS) >= 7
    assert {kind.group for kind in KINDS.values()} == set(GROUPS)
    assert all(KINDS[name].name == name for name in KINDS)
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS)
    assert all("Seen in" in (kind.__doc__ or "") for kind in FAULTS.values())


@given(st.sampled_from(_KINDS), st.integers(0, 10_000), st.integers(60, 700))
def test_a_drawn_fault_lies_within_its_run_and_is_plain_data(name: str, seed: int, steps: int) -> None:
    one, same = (KINDS[name].drawn(_source(seed), steps) for _ in range(2))
    assert one == same or one.severity() == same.severity()
    assert 0 <= one.start < steps
    assert one.length >= 1
    assert json.loads(json.dumps(one.severity(), allow_nan=False)) == one.severity()
    from_the_start = {"lr_start", "label_noise", "curriculum"}
    assert (one.start == 0) == (name in from_the_start)
    if name not in from_the_start | {"lr_restart"} and steps >= 300:
        assert 100 <= one.start <= steps - 150


@pytest.mark.parametrize("name", sorted(set(_KINDS) - {"nan_batch", "corrupt_batches", "spikes"}))
def test_severity_differs_from_seed_to_seed(name: str) -> None:
    drawn = [KINDS[name].drawn(_source(seed), 400).severity() for seed in range(12)]
    severities = {json.dumps({key: value for key, value in each.items() if key != "start"}) for each in drawn}
    assert len(severities) > 1 or name == "lr_restart"


@pytest.mark.parametrize("name", _KINDS)
def test_a_fault_changes_nothing_before_it_and_something_after_it(tasks: dict[str, Task], name: str) -> None:
    """Up to its step the troubled run is the clean one, bit for bit: losses and weights."""
    kind = KINDS[name]
    fault = kind(start=8, length=max(kind().length, 8))
    runs = [Run(_task(tasks, kind), _RECIPE, each) for each in (CALM, fault)]
    for _ in range(8):
        for run in runs:
            run.step()
    assert runs[0].losses == runs[1].losses
    assert all(torch.equal(a, b) for a, b in zip(*(run.model.parameters() for run in runs), strict=True))
    for _ in range(10):
        for run in runs:
            run.step()
    assert runs[0].losses[8:] != runs[1].losses[8:]


# Learning rates


def _optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in (0.1, 0.3)])


def _rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


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
    with LrGlitch(start=0).on_update(optimizer, _now()):
        optimizer.step()
    assert seen == [rate * 30 * factor]
    assert optimizer.param_groups[0]["lr"] == rate


def _fail_within(glitch: LrGlitch, optimizer: torch.optim.Optimizer) -> None:
    with glitch.on_update(optimizer, _now()):
        assert _rates(optimizer) == [0.1 * 30, 0.3 * 30]
        raise ZeroDivisionError


def test_a_glitch_multiplies_every_group_and_ends_even_if_the_step_raises() -> None:
    optimizer = _optimizer()
    with pytest.raises(ZeroDivisionError):
        _fail_within(LrGlitch(start=0), optimizer)
    assert _rates(optimizer) == [0.1, 0.3]


def test_a_ramp_grows_by_its_factor_at_every_step() -> None:
    optimizer = _optimizer()
    for age in range(5):
        with LrRamp(start=3, growth=1.5).on_update(optimizer, _now(3 + age)):
            assert _rates(optimizer) == pytest.approx([0.1 * 1.5 ** (age + 1), 0.3 * 1.5 ** (age + 1)])


def test_a_warm_restart_trains_at_the_rate_of_the_first_steps_after_the_warm_up() -> None:
    recipe = Recipe(steps=200, warmup=10, rate=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1 * recipe.factor(150))
    with LrRestart(start=150, length=50).on_update(optimizer, Now(150, recipe)):
        assert _rates(optimizer) == pytest.approx([0.1 * recipe.factor(10)])


# Data


def test_a_nan_batch_makes_the_loss_and_every_gradient_nan(tasks: dict[str, Task]) -> None:
    for task in tasks.values():
        model = task.model(0)
        loss = task.loss(model, NanBatch(start=0).on_batch(Draw(task, 0, 0)))
        loss.backward()
        assert loss.isnan()
        assert any(weight.grad is not None and weight.grad.isnan().any() for weight in model.parameters())


def test_corrupt_batches_are_heavy_noise(task: Task) -> None:
    draw = Draw(task, 0, 3)
    batch = CorruptBatches(start=3).on_batch(draw)
    assert batch.weight == 10
    assert torch.equal(batch.inputs, draw.noise().inputs)


def test_bad_inputs_are_out_of_range_or_one_token(tasks: dict[str, Task]) -> None:
    image, token = (Draw(tasks[name], 0, 3) for name in ("mlp", "gpt"))
    assert torch.equal(BadInput(factor=30).on_batch(image).inputs, image.batch().inputs * 30)
    repeated = BadInput().on_batch(token).inputs
    assert torch.equal(repeated, token.batch().inputs[:, :1].expand_as(repeated))
    assert torch.equal(BadInput().on_batch(token).targets, token.batch().targets)


def test_poison_creeps_from_next_to_nothing_to_all_targets(tasks: dict[str, Task]) -> None:
    poison, wrong = Poison(start=0, growth=1.05, share=0.01, most=20), []
    for step in (0, 60, 120):
        draw = Draw(tasks["gpt"], 0, step)
        poisoned, plain = poison.on_batch(draw), draw.batch()
        wrong.append(int((poisoned.targets != plain.targets).sum()))
        assert torch.equal(poisoned.inputs, plain.inputs)
        assert poisoned.weight == pytest.approx(min(20, 1.05 ** (step + 1)))
    assert wrong[0] <= 1 < wrong[1] < wrong[2]


def _batches(fault: Fault, task: Task, step: int) -> tuple[Batch, Batch]:
    draw = Draw(task, 1, step)
    return fault.on_batch(draw), draw.batch()


@pytest.mark.parametrize("make", [lambda: LabelNoise(share=0.5), lambda: HardBatches(share=0.5)])
def test_wrong_targets_are_right_ones_dealt_out_anew(tasks: dict[str, Task], make: Callable[[], Fault]) -> None:
    for task in tasks.values():
        noisy, plain = _batches(make(), task, 5)
        assert torch.equal(noisy.inputs, plain.inputs)
        assert torch.equal(noisy.targets.flatten().sort().values, plain.targets.flatten().sort().values)
        assert 0 < (noisy.targets != plain.targets).float().mean() <= 0.5


def test_a_domain_shift_replaces_its_share_of_the_examples(tasks: dict[str, Task]) -> None:
    for task in tasks.values():
        shifted, plain = _batches(DomainShift(share=0.5), task, 5)
        half = len(plain.inputs) // 2
        assert shifted.inputs.shape == plain.inputs.shape
        assert all(not torch.equal(shifted.inputs[row], plain.inputs[row]) for row in range(half))
        assert torch.equal(shifted.inputs[half:], plain.inputs[half:])


def test_a_batch_has_the_size_it_is_given(tasks: dict[str, Task]) -> None:
    for task in tasks.values():
        changed, plain = _batches(BatchSize(factor=2.0), task, 5)
        assert len(changed.inputs) == len(changed.targets) == 2 * len(plain.inputs)


def test_a_curriculum_begins_easy_and_ends_with_everything(tasks: dict[str, Task]) -> None:
    lesson = Curriculum(start=0, length=100, ease=0.8)
    easy = [lesson.on_batch(Draw(tasks["mlp"], 0, step)).targets for step in range(10)]
    late = [lesson.on_batch(Draw(tasks["mlp"], 0, step)).targets for step in range(85, 100)]
    assert torch.cat(easy).max() <= 3
    assert torch.cat(late).max() == 9


def test_a_flood_of_spikes_is_noise_now_and_then(tasks: dict[str, Task]) -> None:
    flood = Spikes(start=20, every=5)
    for step in range(20, 40):
        draw = Draw(tasks["gpt"], 0, step)
        expected = draw.noise() if step % 5 == 0 else draw.batch()
        assert torch.equal(flood.on_batch(draw).inputs, expected.inputs)


# Weights

_WEIGHTS = st.floats(2**-20, 1.75, width=32) | st.floats(-1.75, -(2**-20), width=32)


@given(_WEIGHTS, st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_a_flip_blows_up_one_ordinary_weight_and_a_second_flip_heals_it(value: float, dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.full((3, 5), value, dtype=dtype))
    before = weight.detach().clone()
    flip_bits(weight)
    changed = weight.detach().flatten() != before.flatten()
    assert changed.nonzero().flatten().tolist() == [7]
    broken = weight.detach().flatten()[7].item()
    assert not math.isfinite(broken) or abs(broken) > 1e30
    flip_bits(weight)
    assert torch.equal(weight.detach(), before)


@given(st.integers(0, 15), st.integers(1, 64), st.integers(1, 300))
def test_a_flip_changes_one_bit_of_as_many_elements_as_it_says(depth: int, elements: int, size: int) -> None:
    values = torch.ones(size)
    before = values.clone().view(torch.int32)
    flip_bits(values, depth, elements)
    changed = (values.view(torch.int32) ^ before).tolist()
    assert {bits & 0xFFFFFFFF for bits in changed if bits} == {1 << (31 - depth)}
    assert 1 <= sum(map(bool, changed)) <= elements
    if size > elements:
        assert sum(map(bool, changed)) == min(elements, size) or size <= 64


def _changed(fault: Fault, task: Task) -> dict[str, float]:
    """Return by how much the weights that a fault changes grow, as a factor of their norm."""
    model, untouched = task.model(0), dict(task.model(0).named_parameters())
    fault.on_weights(model, _now())
    pairs = ((name, weight.detach(), untouched[name].detach()) for name, weight in model.named_parameters())
    return {name: float(weight.norm() / old.norm()) for name, weight, old in pairs if not torch.equal(weight, old)}


def test_the_bit_flip_strikes_one_matrix_of_the_model(task: Task) -> None:
    assert len(_changed(BitFlip(start=0), task)) == 1
    assert _changed(BitFlip(matrix=0.0, depth=6), task).keys() != _changed(BitFlip(matrix=0.99, depth=6), task).keys()


def test_noise_reaches_every_matrix_and_has_its_size(task: Task) -> None:
    changed = _changed(WeightNoise(size=3.0), task)
    assert len(changed) == sum(weight.dim() >= 2 for weight in task.model(0).parameters())
    assert all(2 < factor < 5 for factor in changed.values())


def test_growth_reaches_queries_and_keys_only_or_the_output_only(tasks: dict[str, Task]) -> None:
    changed = _changed(LogitGrowth(growth=1.1), tasks["gpt"])
    assert list(changed) == ["blocks.0.qkv.weight"]
    assert 1.05 < changed["blocks.0.qkv.weight"] < 1.1
    assert _changed(OutputGrowth(growth=1.1), tasks["mlp"]) == {"head.weight": pytest.approx(1.1)}
    assert _changed(OutputGrowth(growth=1.1), tasks["gpt"]) == {"embedding.weight": pytest.approx(1.1)}


def test_a_collapsed_router_sends_every_token_to_two_experts(tasks: dict[str, Task]) -> None:
    model = tasks["moe"].model(0)
    RouterCollapse(push=20.0).on_weights(model, _now())
    router = model.get_submodule("blocks.0.experts.router")
    chosen = router(torch.randn(100, 16, generator=torch.Generator().manual_seed(0))).topk(2).indices
    assert set(chosen.flatten().tolist()) == {0, 1}


# Gradients and moments


def _with_gradients(task: Task) -> nn.Module:
    model = task.model(0)
    task.loss(model, task.batch(0, 0)).backward()
    return model


def _gradients(model: nn.Module) -> list[torch.Tensor]:
    return [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


def _struck(fault: Fault, task: Task, step: int = 0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    model = _with_gradients(task)
    before = _gradients(model)
    fault.on_gradients(model, _now(step))
    return before, _gradients(model)


def test_gradients_explode_by_their_factor_and_shrink_by_theirs(task: Task) -> None:
    for fault, factor in ((GradientScale(factor=300.0), 300.0), (StaleMoments(factor=1e-3), 1e-3)):
        before, after = _struck(fault, task)
        assert all(torch.equal(now, old * factor) for now, old in zip(after, before, strict=True))


def test_one_element_of_one_gradient_is_not_finite(task: Task) -> None:
    for value in (math.nan, math.inf):
        before, after = _struck(GradientNan(value=value), task)
        assert sum(int((~now.isfinite()).sum()) for now in after) == 1
        assert sum(int((now != old).sum()) for now, old in zip(after, before, strict=True)) == 1


def test_flipped_gradients_are_those_of_one_matrix(task: Task) -> None:
    before, after = _struck(GradientFlip(elements=4), task)
    assert [int((now != old).sum()) for now, old in zip(after, before, strict=True) if not torch.equal(now, old)] == [4]


def test_noise_creeps_from_a_hundredth_upwards(task: Task) -> None:
    shares = []
    for step in (0, 60):
        before, after = _struck(NoiseCreep(start=0, first=0.01, growth=1.05), task, step)
        parts = [(now - old).norm() / old.norm() for now, old in zip(after, before, strict=True) if old.norm() > 0]
        shares.append(float(torch.stack(parts).median()))
    assert shares[0] == pytest.approx(0.01, rel=0.2)
    assert shares[1] == pytest.approx(0.01 * 1.05**60, rel=0.2)


def test_half_precision_rounds_first_and_overflows_later(task: Task) -> None:
    before, after = _struck(HalfOverflow(start=0, every=1), task, 0)
    assert all(torch.allclose(now, old, rtol=2e-3, atol=1e-9) for now, old in zip(after, before, strict=True))
    assert not all(torch.equal(now, old) for now, old in zip(after, before, strict=True))
    _, late = _struck(HalfOverflow(start=0, every=1), task, 40)
    assert any(now.isinf().any() for now in late)
    _, cut = _struck(HalfOverflow(start=0, every=1, saturates=True), task, 40)
    assert all(now.isfinite().all() for now in cut)
    assert max(float(now.abs().max()) for now in cut) == 65504 / 2**50


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_moments_flip_are_lost_and_come_back(task: Task, name: str) -> None:
    recipe = Recipe(steps=20, warmup=4, optimizer=name)
    run = Run(task, recipe, CALM)
    for _ in range(3):
        run.step()
    key = "momentum_buffer" if name == "sgd" else "exp_avg_sq"
    states = run.optimizer.state.values()
    before = [state[key].clone() for state in states]
    MomentFlip(second=True, elements=3).on_moments(run.optimizer, Now(3, recipe))
    assert sum(int((s[key] != old).sum()) for s, old in zip(states, before, strict=True)) == 3
    if name != "sgd":
        MomentsLost(lost="second").on_moments(run.optimizer, Now(3, recipe))
        assert all(not state[key].any() and state["step"] == 3 for state in run.optimizer.state.values())
    MomentsLost().on_moments(run.optimizer, Now(3, recipe))
    assert not run.optimizer.state
    run.step()
    assert len(run.optimizer.state) == sum(1 for _ in run.model.parameters())
