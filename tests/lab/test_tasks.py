"""Models and batches come from seeds alone."""

import math

import torch

from lbw_policy.lab.language import ByteLanguage
from lbw_policy.lab.tasks import Draw


def test_batches_depend_on_seed_and_step_and_on_nothing_else(task: ByteLanguage) -> None:
    first = task.batch(3, 7)
    torch.manual_seed(99)
    again = task.batch(3, 7)
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, task.batch(3, 8).inputs)
    assert not torch.equal(first.inputs, task.batch(4, 7).inputs)


def test_the_target_is_the_next_byte(task: ByteLanguage) -> None:
    batch = task.batch(0, 0)
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_models_depend_on_the_seed_and_leave_the_global_random_state_alone(task: ByteLanguage) -> None:
    before = torch.get_rng_state()
    first, again, other = task.model(1), task.model(1), task.model(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_noise_has_the_shape_of_data_and_does_not_repeat(task: ByteLanguage) -> None:
    draw = Draw(task, 0, 5)
    assert draw.noise().inputs.shape == draw.batch().inputs.shape
    assert draw.noise().targets.max() < task.shape.vocabulary
    assert not torch.equal(draw.noise().inputs, Draw(task, 0, 6).noise().inputs)
    assert not torch.equal(draw.noise().inputs[:, 1:], draw.noise().targets[:, :-1])


def test_an_untrained_model_knows_nothing(task: ByteLanguage) -> None:
    assert abs(task.held_out(task.model(0)) - math.log(256)) < 0.2


def test_the_decoder_never_looks_ahead(task: ByteLanguage) -> None:
    model, tokens = task.model(0), task.batch(0, 0).inputs
    changed = tokens.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 256
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])
