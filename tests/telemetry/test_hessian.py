"""Second derivatives against the whole Hessian."""

import copy
import math
import statistics

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from lbw_policy.lab.gpt import Gpt, GptShape
from lbw_policy.telemetry import Collector, Layers, Plan

SOURCES = ("gradient_curvature", "hessian_trace")


def net() -> nn.Sequential:
    """Return a small net with curvature."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def loss_of(model: nn.Module) -> Tensor:
    """Return the loss of a fixed batch."""
    inputs = torch.linspace(-2, 2, 12).reshape(4, 3)
    return functional.cross_entropy(model(inputs), torch.tensor([0, 1, 0, 1]))


def collector(model: nn.Module, *sources: str, every: int = 1) -> Collector:
    """Return a collector of second derivatives."""
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    return Collector(optimizer, Layers.of(optimizer, model), Plan(dict.fromkeys(sources or SOURCES, every)))


def whole(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return gradient and Hessian in double precision."""
    twin = copy.deepcopy(model).double()
    inputs = torch.linspace(-2, 2, 12).reshape(4, 3).double()
    loss = functional.cross_entropy(twin(inputs), torch.tensor([0, 1, 0, 1]))
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, twin.parameters(), create_graph=True)])
    rows = [torch.autograd.grad(one, twin.parameters(), retain_graph=True) for one in gradient]
    return gradient.detach(), torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def test_the_curvature_along_the_gradient_is_exact() -> None:
    model = net()
    gradient, hessian = whole(model)
    found = collector(model)
    found.curvature(loss_of(model))
    expected = float(gradient @ hessian @ gradient / (gradient @ gradient))
    assert found.read(0).values["gradient_curvature"] == pytest.approx(expected, rel=1e-4)


def test_the_trace_is_right_on_average() -> None:
    model = net()
    _, hessian = whole(model)
    found, drawn = collector(model, "hessian_trace"), []
    for tick in range(400):
        found.curvature(loss_of(model))
        drawn.append(found.read(tick).values["hessian_trace"])
    expected = math.sqrt(2 * float(hessian.square().sum() - hessian.diagonal().square().sum()))
    assert statistics.fmean(drawn) == pytest.approx(float(hessian.trace()), abs=4 * expected / math.sqrt(400))
    assert statistics.stdev(drawn) == pytest.approx(expected, rel=0.2)


def test_the_same_tick_draws_the_same_signs_and_the_global_source_is_left_alone() -> None:
    model = net()
    state = torch.get_rng_state()
    readings = []
    for _ in range(2):
        found = collector(model, "hessian_trace")
        found.curvature(loss_of(model))
        readings.append(found.read(0).values)
    assert readings[0] == readings[1]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_loop_goes_on_as_if_nothing_had_been_differentiated() -> None:
    watched, plain = net(), net()
    found = collector(watched)
    for model in (watched, plain):
        loss = loss_of(model)
        if model is watched:
            found.curvature(loss)
        assert all(parameter.grad is None for parameter in model.parameters())
        loss.backward()
    pairs = zip(watched.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(one.grad, other.grad) for one, other in pairs)


def test_what_is_not_due_is_not_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    found = collector(model, every=3)
    calls, kept = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: calls.append(1) or kept(*args, **kwargs))
    seen = []
    for tick in range(5):
        before = len(calls)
        found.curvature(loss_of(model))
        seen.append((len(calls) - before, found.read(tick).values["hessian_trace"] is not None))
    assert seen == [(3, True), (0, False), (0, False), (3, True), (0, False)]


def test_only_what_is_asked_for_is_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    found = collector(model, "gradient_curvature")
    calls, kept = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: calls.append(1) or kept(*args, **kwargs))
    found.curvature(loss_of(model))
    assert len(calls) == 2
    assert set(found.read(0).values) == {"gradient_curvature"}


def test_without_a_loss_there_is_no_reading() -> None:
    model = net()
    found = collector(model)
    assert found.read(0).values == dict.fromkeys(SOURCES)


def test_a_policy_that_reads_neither_ignores_the_loss() -> None:
    model = net()
    found = collector(model, "lr")
    found.curvature(loss_of(model))
    assert found.read(0).failures == ()


def test_after_a_resume_the_coming_tick_is_the_next_one() -> None:
    model = net()
    found = collector(model, every=4)
    found.load_state_dict({"tick": 7, "layers": {}, "motion": {}, "exponents": {}})
    found.curvature(loss_of(model))
    assert found.read(8).values["hessian_trace"] is not None


def test_a_linear_loss_has_no_curvature() -> None:
    model = nn.Linear(3, 1)
    found = collector(model)
    found.curvature(model(torch.ones(2, 3)).sum())
    assert found.read(0).values == {"gradient_curvature": 0.0, "hessian_trace": 0.0}


def test_unused_and_fixed_parameters_are_left_out() -> None:
    model = net()
    model.spare = nn.Linear(2, 2)
    model[0].bias.requires_grad_(False)
    found = collector(model)
    inputs = torch.linspace(-2, 2, 12).reshape(4, 3)
    hidden = torch.tanh(model[0](inputs))
    found.curvature(functional.cross_entropy(model[2](hidden), torch.tensor([0, 1, 0, 1])))
    assert all(math.isfinite(value) for value in found.read(0).values.values())


def test_a_model_that_cannot_be_differentiated_twice_is_told_of_once() -> None:
    model = Gpt(GptShape(width=16, layers=1, heads=2, context=8, vocabulary=11))
    tokens = torch.arange(8)[None]
    found, failures = collector(model), []
    for tick in range(3):
        found.curvature(model(tokens).square().mean())
        readings = found.read(tick)
        failures += readings.failures
        assert readings.values == dict.fromkeys(SOURCES)
    assert len(failures) == 1
    assert "`guard.curvature` could not differentiate twice" in failures[0]


def test_the_plain_attention_can_be_differentiated_twice() -> None:
    model = Gpt(GptShape(width=16, layers=1, heads=2, context=8, vocabulary=11))
    found = collector(model)
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
        found.curvature(model(torch.arange(8)[None]).square().mean())
    assert all(value is not None for value in found.read(0).values.values())
