"""The gradient beside the optimizer's moments, against plain computation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import Net, backward, collector, tick
from torch import nn, optim

from lbw_policy.errors import AttachError
from lbw_policy.telemetry import Collector, Layers, Plan, lacking

SOURCES = ("momentum_agreement", "moment_rms", "moment_lag")


def truth(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, float]:
    """Return all three from every element, in double precision."""
    gradients, moments, squares, ratios = [], [], [], []
    for module in model.modules():
        sums, count = 0.0, 0
        for parameter in module.parameters(recurse=False):
            state, gradient = optimizer.state[parameter], parameter.grad.double()
            (group,) = (g for g in optimizer.param_groups if any(parameter is p for p in g["params"]))
            decay, step = group["betas"][1], float(state["step"])
            gradients.append(gradient.flatten())
            moments.append(state["exp_avg"].double().flatten())
            squares.append((state["exp_avg_sq"].double() / (1 - decay**step)).flatten())
            coming = state["exp_avg_sq"].double() * decay + gradient.square() * (1 - decay)
            sums += float((gradient.square() / (coming / (1 - decay ** (step + 1))).clamp(min=1e-16)).sum())
            count += gradient.numel()
        ratios += [math.sqrt(sums / count)] if count else []
    g, m, v = torch.cat(gradients), torch.cat(moments), torch.cat(squares)
    return {
        "momentum_agreement": float(g @ m / g.norm() / m.norm()),
        "moment_rms": max(ratios),
        "moment_lag": math.sqrt(float(v.sum() / g.square().sum())),
    }


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam])
@pytest.mark.parametrize("options", [{}, {"foreach": True}])
def test_adams_moments_are_read_as_they_are(kind: type[optim.Optimizer], options: dict[str, bool]) -> None:
    model = Net()
    optimizer = kind(model.parameters(), lr=0.01, betas=(0.9, 0.95), **options)
    found = collector(model, optimizer, *SOURCES)
    for number in range(5):
        backward(model, optimizer, number)
        expected = pytest.approx(truth(model, optimizer), rel=1e-4) if number else dict.fromkeys(SOURCES)
        assert tick(found, optimizer, number).values == expected


@pytest.mark.parametrize("options", [{"fused": True}, {"lr": torch.tensor(0.01)}, {"amsgrad": True}])
def test_every_kind_of_step_keeps_them_readable(options: dict[str, object]) -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters(), **{"lr": 0.01, **options})
    found = collector(model, optimizer, *SOURCES)
    for number in range(3):
        backward(model, optimizer, number)
        expected = pytest.approx(truth(model, optimizer), rel=1e-4) if number else dict.fromkeys(SOURCES)
        assert tick(found, optimizer, number).values == expected


def test_groups_may_have_betas_of_their_own() -> None:
    model = Net()
    groups = [{"params": model.table.parameters(), "betas": (0.9, 0.99)}, {"params": model.norm.parameters()}]
    rest = [*model.hidden.parameters(), *model.head.parameters()]
    optimizer = optim.AdamW([*groups, {"params": rest, "betas": (0.5, 0.9)}], lr=0.01)
    found = collector(model, optimizer, *SOURCES)
    for number in range(4):
        backward(model, optimizer, number)
        expected = pytest.approx(truth(model, optimizer), rel=1e-4) if number else dict.fromkeys(SOURCES)
        assert tick(found, optimizer, number).values == expected


def constant(optimizer: optim.Optimizer, parameter: nn.Parameter, size: float, steps: int) -> None:
    """Step with a constant gradient."""
    for _ in range(steps):
        parameter.grad = torch.full_like(parameter, size)
        optimizer.step()


@settings(deadline=None, max_examples=30)
@given(size=st.floats(1e-3, 1e3), factor=st.floats(1e-2, 1e2), steps=st.integers(1, 30))
def test_a_gradient_that_changes_by_a_factor_shows_in_both(size: float, factor: float, steps: int) -> None:
    parameter = nn.Parameter(torch.ones(5))
    optimizer = optim.AdamW([parameter], lr=1e-6, betas=(0.9, 0.99))
    found = Collector(optimizer, Layers.of(optimizer), Plan(dict.fromkeys(SOURCES, 1)))
    constant(optimizer, parameter, size, steps)
    parameter.grad = torch.full_like(parameter, size * factor)
    values = found.read(steps).values
    # v is size^2 after correction, so v' is a mix of size^2 and (factor * size)^2.
    kept = 0.99 * (1 - 0.99**steps) / (1 - 0.99 ** (steps + 1))
    assert values["moment_lag"] == pytest.approx(1 / factor, rel=1e-3)
    assert values["moment_rms"] == pytest.approx(factor / math.sqrt(kept + (1 - kept) * factor**2), rel=1e-3)
    assert values["momentum_agreement"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda p: optim.RMSprop(p, lr=1e-6, alpha=0.9), "square_avg"),
        (lambda p: optim.Adadelta(p, lr=1e-6, rho=0.9), "square_avg"),
    ],
)
def test_other_squares_are_read_without_correction(make: object, key: str) -> None:
    parameter = nn.Parameter(torch.ones(5))
    optimizer = make([parameter])
    found = Collector(optimizer, Layers.of(optimizer), Plan({"moment_rms": 1, "moment_lag": 1}))
    constant(optimizer, parameter, 3.0, 4)
    kept = float(optimizer.state[parameter][key][0])
    parameter.grad = torch.full((5,), 6.0)
    values = found.read(4).values
    assert values["moment_lag"] == pytest.approx(math.sqrt(kept) / 6)
    assert values["moment_rms"] == pytest.approx(6 / math.sqrt(0.9 * kept + 3.6), rel=1e-5)


@pytest.mark.parametrize(
    ("optimizer", "source", "needs"),
    [
        (optim.SGD, "moment_rms", "second moments"),
        (optim.SGD, "moment_lag", "second moments"),
        (optim.Adamax, "moment_lag", "second moments"),
        (optim.Adafactor, "moment_rms", "second moments"),
        (optim.SGD, "momentum_agreement", "momentum"),
        (optim.RMSprop, "momentum_agreement", "momentum"),
        (optim.Adagrad, "momentum_agreement", "momentum"),
        (optim.Rprop, "momentum_agreement", "momentum"),
    ],
)
def test_an_optimizer_without_such_moments_is_refused(
    optimizer: type[optim.Optimizer], source: str, needs: str
) -> None:
    made = optimizer([nn.Parameter(torch.ones(2))], lr=0.1)
    with pytest.raises(AttachError, match=f"`{source}` needs an optimizer with {needs}.*`{optimizer.__name__}`"):
        Collector(made, Layers.of(made), Plan({source: 1}))


class Own(optim.SGD):
    """An optimizer of somebody's own."""


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9),
        optim.RMSprop([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9),
        optim.Adamax([nn.Parameter(torch.ones(1))]),
        Own([nn.Parameter(torch.ones(1))], lr=0.1),
    ],
)
def test_what_has_momentum_or_may_have_it_is_accepted(optimizer: optim.Optimizer) -> None:
    assert lacking("momentum_agreement", optimizer, Layers.of(optimizer)) is None


def test_a_foreign_optimizer_without_moments_has_no_reading() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = Own([parameter], lr=0.1)
    found = Collector(optimizer, Layers.of(optimizer), Plan(dict.fromkeys(SOURCES, 1)))
    parameter.grad = torch.ones(2)
    tick(found, optimizer, 0)
    assert found.read(1).values == dict.fromkeys(SOURCES)


def test_parameters_that_join_late_are_left_out_until_they_have_moments() -> None:
    early, late = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = optim.AdamW([early, late], lr=1e-6)
    found = Collector(optimizer, Layers.of(optimizer), Plan(dict.fromkeys(SOURCES, 1)))
    constant(optimizer, early, 2.0, 3)
    early.grad, late.grad = torch.full((3,), 2.0), torch.full((3,), 1e6)
    assert found.read(0).values["moment_lag"] == pytest.approx(1.0)
    assert found.read(1).values["momentum_agreement"] == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_gradients_are_not_hidden(bad: float) -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    found = collector(model, optimizer, *SOURCES)
    for number in range(2):
        backward(model, optimizer, number)
        if number:
            model.head.weight.grad[0, 0] = bad
        readings = tick(found, optimizer, number)
    assert math.isnan(readings.values["momentum_agreement"])
    assert not math.isfinite(readings.values["moment_rms"])
    assert not readings.values["moment_lag"] > 0


def test_a_scaled_gradient_is_compared_unscaled() -> None:
    parameter = nn.Parameter(torch.ones(4))
    optimizer = optim.AdamW([parameter], lr=1e-6, fused=True)
    found = Collector(optimizer, Layers.of(optimizer), Plan(dict.fromkeys(SOURCES, 1)))
    constant(optimizer, parameter, 2.0, 3)
    parameter.grad, optimizer.grad_scale = torch.full((4,), 128.0), torch.tensor(64.0)
    assert found.read(0).values == pytest.approx(dict.fromkeys(SOURCES, 1.0), rel=1e-5)


def test_moments_in_low_precision_are_read() -> None:
    parameter = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = optim.AdamW([parameter], lr=1e-3)
    found = Collector(optimizer, Layers.of(optimizer), Plan(dict.fromkeys(SOURCES, 1)))
    constant(optimizer, parameter, 2.0, 3)
    parameter.grad = torch.full((4,), 2.0, dtype=torch.bfloat16)
    assert found.read(0).values == pytest.approx(dict.fromkeys(SOURCES, 1.0), rel=0.02)
