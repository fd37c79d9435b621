"""Every architecture of the lab is a real training: it learns, under every optimizer, the same way each time."""

import math

import pytest
import torch

from lbw_policy.lab.architectures import ARCHITECTURES, TRAININGS, task_of
from lbw_policy.lab.digits import digits
from lbw_policy.lab.language import ByteLanguage
from lbw_policy.lab.recipes import OPTIMIZERS, Recipe
from lbw_policy.lab.ssm import SsmBlock, SsmShape
from lbw_policy.lab.training import Run
from lbw_policy.lab.trouble import CALM

_STEPS = 30


def _trained(name: str, optimizer: str = "adamw", precision: str = "fp32", steps: int = _STEPS) -> Run:
    rate = TRAININGS[name].rates[optimizer]
    run = Run(task_of(name), Recipe(steps, 1, rate, warmup=5, optimizer=optimizer, precision=precision), CALM)
    for _ in range(steps):
        run.step()
    return run


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [*((name, "adamw") for name in ARCHITECTURES), *(("mlp", optimizer) for optimizer in OPTIMIZERS[1:])],
)
def test_a_short_run_ends_below_its_start(name: str, optimizer: str) -> None:
    run = _trained(name, optimizer)
    assert sum(run.losses[-5:]) / 5 < run.losses[0] - 0.03
    assert run.held_out() < task_of(name).held_out(task_of(name).model(1)) - 0.03


@pytest.mark.parametrize("name", TRAININGS)
def test_the_same_seed_gives_the_same_run_bit_for_bit_in_either_precision(name: str) -> None:
    runs = []
    for precision in ("fp32", "bf16"):
        one, same = (_trained(name, precision=precision, steps=4) for _ in range(2))
        assert one.losses == same.losses
        assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), same.model.parameters(), strict=True))
        assert all(weight.dtype is torch.float32 for weight in one.model.parameters())
        runs.append(one.losses)
    assert runs[0] != runs[1]


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if isinstance(task_of(name), ByteLanguage)])
def test_no_sequence_model_looks_ahead(name: str) -> None:
    task = task_of(name)
    model, tokens = task.model(0), task.batch(0, 0).inputs[:2]
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 256
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


def test_the_scan_in_matrix_form_is_the_recurrence() -> None:
    """Step by step, `h = exp(-pace a) h + pace b x` and `y = c h + d x`, as the papers write it."""
    block, source = SsmBlock(SsmShape(width=8, heads=2, state=3)), torch.Generator().manual_seed(0)
    x = torch.randn(2, 7, 2, 8, generator=source)
    b, c = torch.randn(2, 2, 7, 3, generator=source)
    pace = torch.rand(2, 7, 2, generator=source)
    state, expected = torch.zeros(2, 2, 8, 3), []
    for t in range(7):
        fading = (-pace[:, t] * block.decay.exp()).exp()[..., None, None]
        state = fading * state + (pace[:, t, :, None] * x[:, t])[..., None] * b[:, t, None, None, :]
        expected.append((state * c[:, t, None, None, :]).sum(-1) + block.direct[:, None] * x[:, t])
    torch.testing.assert_close(block._scan(x, b, c, pace), torch.stack(expected, 1))


def test_top_two_routing_uses_two_experts_a_token_and_balances_them() -> None:
    model = task_of("moe").model(0)
    tokens = task_of("moe").batch(0, 0).inputs
    model(tokens)
    assert 0 < model.penalty.item() < 0.1
    experts = model.get_submodule("blocks.0.experts")
    stream = torch.randn(1, 5, 32)
    scores = experts.router(stream)
    best, chosen = scores.topk(2, dim=-1)
    gates = best.softmax(-1)
    for token in range(5):
        parts = [
            gates[0, token, n] * (torch.nn.functional.gelu(stream[0, token] @ experts.up[e]) @ experts.down[e])
            for n, e in enumerate(chosen[0, token].tolist())
        ]
        torch.testing.assert_close(experts(stream)[0, token], sum(parts))


def test_held_out_images_are_never_trained_on() -> None:
    found = digits()
    assert len(found.train.labels) + len(found.held_out.labels) == 1797
    assert found.train.pixels.min() == -1
    assert found.train.pixels.max() == 1
    known = {tuple(row.tolist()) for row in found.train.pixels.flatten(1)}
    assert not known & {tuple(row.tolist()) for row in found.held_out.pixels.flatten(1)}


def test_judging_a_net_with_batch_statistics_leaves_them_and_its_mode_alone() -> None:
    run = _trained("cnn_bn", steps=3)
    before = {name: value.clone() for name, value in run.model.named_buffers()}
    assert run.held_out() == run.held_out()
    assert run.model.training
    assert all(torch.equal(value, before[name]) for name, value in run.model.named_buffers())


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedules_warm_up_and_fall_to_a_tenth_or_stay(schedule: str) -> None:
    recipe = Recipe(steps=200, warmup=10, schedule=schedule)
    factors = [recipe.factor(step) for step in range(240)]
    assert factors[0] == pytest.approx(0.1, rel=1e-3)
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert factors[200:] == pytest.approx([1.0 if schedule == "constant" else 0.1] * 40)


def test_a_loop_that_clips_never_takes_a_longer_step() -> None:
    recipe = Recipe(steps=8, rate=1.0, optimizer="sgd", clip=1e-3, warmup=1, schedule="constant")
    run = Run(task_of("mlp"), recipe, CALM)
    before = [weight.detach().clone() for weight in run.model.parameters()]
    run.step()
    moved = [weight.detach() - old for weight, old in zip(run.model.parameters(), before, strict=True)]
    assert math.sqrt(sum(float(part.square().sum()) for part in moved)) == pytest.approx(1e-3, rel=1e-3)


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer"):
        Recipe(steps=10, optimizer="adamax")
