"""Signals over one group of layers, and over layers."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import Net, backward, norm, only, tick
from torch import nn, optim

from lbw_policy.errors import AttachError
from lbw_policy.semantics.signals import group_of, key, source_of
from lbw_policy.telemetry import Collector, Layers, Plan
from lbw_policy.telemetry.scopes import Scopes

GROUPS = {"middle": frozenset({"norm", "hidden"}), "ends": frozenset({"table", "head"})}
GROUPED = (
    "grad_norm",
    "grad_norm_max",
    "grad_norm_min",
    "grad_norm_spread",
    "nonfinite_grads",
    "nonfinite_params",
    "param_norm",
    "update_norm",
    "update_ratio",
    "update_ratio_max",
    "curvature",
    "overshoot",
    "grad_agreement",
    "momentum_agreement",
    "moment_rms",
    "moment_lag",
    "activation_variance",
    "activation_outliers",
    "activation_max",
)


def collector(model: nn.Module, optimizer: optim.Optimizer, *keys: str) -> Collector:
    """Return a collector of the given keys."""
    return Collector(optimizer, Layers.of(optimizer, model), Plan(dict.fromkeys(keys, 1), groups=GROUPS))


@given(source=st.sampled_from(GROUPED), group=st.sampled_from(["", "middle", "a_b"]))
def test_a_key_names_a_source_and_a_group(source: str, group: str) -> None:
    assert (source_of(key(source, group)), group_of(key(source, group))) == (source, group)


def test_a_group_is_measured_as_if_it_were_the_whole() -> None:
    keys = [key(source, "middle") for source in GROUPED]
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    found = collector(model, optimizer, *keys)
    alone = optim.AdamW([*model.norm.parameters(), *model.hidden.parameters()], lr=0.0)
    lonely = Collector(alone, Layers.of(alone, model), Plan(dict.fromkeys(GROUPED, 1)))
    for number in range(4):
        backward(model, optimizer, number)
        # The twin's moments are those of the true optimizer: it reads the same state.
        alone.state.update({parameter: optimizer.state[parameter] for parameter in alone.param_groups[0]["params"]})
        expected, actual = lonely.read(number).values, found.read(number).values
        optimizer.step()
    assert {source: actual[key(source, "middle")] for source in GROUPED} == pytest.approx(expected, rel=1e-5)


def test_groups_and_the_whole_come_from_one_pass() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = collector(model, optimizer, "grad_norm", "grad_norm of middle", "grad_norm of ends")
    backward(model, optimizer, 0)
    calls, kept = [], torch._foreach_norm
    torch._foreach_norm = lambda *args, **kwargs: calls.append(1) or kept(*args, **kwargs)
    try:
        values = found.read(0).values
    finally:
        torch._foreach_norm = kept
    assert len(calls) == 1
    parts = values["grad_norm of middle"], values["grad_norm of ends"]
    assert math.hypot(*parts) == pytest.approx(values["grad_norm"], rel=1e-6)
    assert parts[0] == pytest.approx(norm([p.grad for p in (*model.norm.parameters(), *model.hidden.parameters())]))


def test_groups_are_due_on_their_own() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    plan = Plan({"update_norm of ends": 3, "grad_norm of middle": 2}, groups=GROUPS)
    found = Collector(optimizer, Layers.of(optimizer, model), plan)
    seen = []
    for number in range(7):
        backward(model, optimizer, number)
        values = tick(found, optimizer, number).values
        seen.append([values[name] is not None for name in plan.every])
    assert seen == [[number > 0 and number % 3 == 0, number % 2 == 0] for number in range(7)]


def test_a_broken_layer_shows_in_its_group_only() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = collector(model, optimizer, *(f"nonfinite_grads of {group}" for group in GROUPS), "grad_norm of middle")
    backward(model, optimizer, 0)
    model.head.weight.grad[0, 0] = math.nan
    values = found.read(0).values
    assert values["nonfinite_grads of ends"] == 1
    assert values["nonfinite_grads of middle"] == 0
    assert math.isfinite(values["grad_norm of middle"])


def test_a_tied_parameter_counts_in_every_layer_that_holds_it_and_once_in_the_whole() -> None:
    model = Net()
    model.head = nn.Linear(16, 11, bias=False)
    model.hidden = nn.Linear(16, 16)
    model.head.weight = model.table.weight
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    scopes = Scopes(Layers.of(optimizer, model), ["grad_norm", "grad_norm of ends"], GROUPS)
    whole, ends = scopes.of({"grad_norm"})
    assert len(whole.parameters) == 5
    assert len(ends.parameters) == 1
    assert scopes.members["table"] == scopes.members["head"]


@pytest.mark.parametrize("name", ["lr of middle", "loss of middle", "exponent_spread of ends", "step_time of ends"])
def test_what_has_no_layers_is_not_taken_over_a_group(name: str) -> None:
    model = Net()
    with pytest.raises(ValueError, match="not taken over a group"):
        collector(model, optim.SGD(model.parameters()), name)


def test_an_unknown_group_is_refused() -> None:
    model = Net()
    with pytest.raises(ValueError, match="no group of layers `nowhere`"):
        collector(model, optim.SGD(model.parameters()), "grad_norm of nowhere")


SPREAD = ("grad_norm_max", "grad_norm_min", "grad_norm_spread")


@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=8))
def test_over_layers_there_are_a_largest_a_smallest_and_a_spread(sizes: list[float]) -> None:
    found = only([torch.tensor([size]) for size in sizes], *SPREAD).values
    logs = [math.log2(size) for size in sizes if size > 0]
    assert found["grad_norm_max"] == pytest.approx(max(sizes))
    assert found["grad_norm_min"] == pytest.approx(min(sizes))
    if len(logs) > 1:
        assert found["grad_norm_spread"] == pytest.approx(statistics.pstdev(logs), abs=1e-5)
    else:
        assert found["grad_norm_spread"] is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_layer_makes_spread_and_largest_unknown_or_infinite(bad: float) -> None:
    found = only([torch.tensor([bad]), torch.ones(1), torch.ones(2)], *SPREAD).values
    assert not math.isfinite(found["grad_norm_max"])
    assert math.isnan(found["grad_norm_spread"])


def test_freezing_may_rank_layers_by_their_update_or_their_outliers() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    ranks = frozenset({"update_ratio", "activation_outliers"})
    found = Collector(optimizer, Layers.of(optimizer, model), Plan({"update_ratio": 1}, ranks))
    for number in range(11):
        backward(model, optimizer, number)
        before = {name: [p.detach().clone() for p in m.parameters(recurse=False)] for name, m in model.named_modules()}
        readings = tick(found, optimizer, number)
        if number < 10:
            moved = {
                name: norm([p - b for p, b in zip(m.parameters(recurse=False), before[name], strict=True)])
                / norm(before[name])
                for name, m in model.named_modules()
                if before[name]
            }
    assert readings.layers["update_ratio"] == pytest.approx(moved, rel=1e-3)
    assert set(readings.layers["activation_outliers"]) == {"table", "norm", "hidden", "head"}


def test_a_group_without_gradients_has_no_reading() -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    keys = [key(source, "ends") for source in GROUPED if source.startswith(("grad", "moment"))]
    found = collector(model, optimizer, *keys)
    backward(model, optimizer, 0)
    for parameter in (model.table.weight, model.head.weight):
        parameter.grad = None
    assert set(found.read(0).values.values()) == {None}


def test_the_model_is_needed_for_what_its_layers_put_out() -> None:
    optimizer = optim.SGD([nn.Parameter(torch.ones(2))])
    with pytest.raises(AttachError, match="model"):
        Collector(optimizer, Layers.of(optimizer), Plan({"activation_max of a": 1}, groups={"a": frozenset()}))
