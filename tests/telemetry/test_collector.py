"""The collector as a whole."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import ACTIVATION_SOURCES, OPTIMIZER_SOURCES, Net, backward, collector, tick
from torch import nn, optim

from lbw_policy.errors import AttachError, StateError
from lbw_policy.telemetry import Collector, Layers, Plan

ALL = (*OPTIMIZER_SOURCES, *ACTIVATION_SOURCES, "loss")
READS = ("item", "tolist", "__float__", "__bool__", "__int__", "__index__", "numpy", "cpu")


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count every way a tensor's numbers can reach the host."""
    counts: Counter[str] = Counter()
    kept = {name: getattr(torch.Tensor, name) for name in READS}

    def counting(name: str) -> object:
        def read(self: torch.Tensor, *args: object, **kwargs: object) -> object:
            counts[name] += 1
            return kept[name](self, *args, **kwargs)

        return read

    for name in READS:
        setattr(torch.Tensor, name, counting(name))
    try:
        yield counts
    finally:
        for name in READS:
            setattr(torch.Tensor, name, kept[name])


def full(model: nn.Module, optimizer: optim.Optimizer) -> Collector:
    """Return a collector of everything there is, each tick."""
    plan = Plan(dict.fromkeys(ALL, 1), frozenset({"grad_norm", "activation_variance"}), frozenset({"reward", "loss"}))
    return Collector(optimizer, Layers.of(optimizer, model), plan)


@pytest.mark.parametrize("poison", [None, math.nan])
def test_a_tick_with_everything_on_reads_from_the_device_once(poison: float | None) -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=torch.tensor(0.01), capturable=False, foreach=False)
    found = full(model, optimizer)
    for number in range(4):
        loss = backward(model, optimizer, number)
        if poison is not None:
            model.head.weight.grad[0] = poison
        with counted() as counts:
            found.observe({"loss": loss, "reward": 1.5})
            readings = found.read(number)
        optimizer.step()
        assert counts == {"tolist": 1}
    assert all(readings.values[name] is not None for name in ALL)


def test_an_infinite_norm_costs_one_more_read_and_no_other_tick_does() -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters())
    found = collector(model, optimizer, "grad_norm", "nonfinite_grads")
    backward(model, optimizer, 0)
    model.head.weight.grad.fill_(1e30)
    with counted() as counts:
        assert found.read(0).values["nonfinite_grads"] == 0
    assert counts == {"tolist": 2}


def test_nothing_is_measured_that_the_plan_does_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters())
    found = collector(model, optimizer, "lr")
    monkeypatch.setattr(torch, "_foreach_norm", None)
    monkeypatch.setattr(torch.Tensor, "as_strided", None)
    backward(model, optimizer, 0)
    assert tick(found, optimizer, 0).values == {"lr": 0.001}
    assert found.read(1).layers == {}


def test_measuring_changes_no_bit_of_the_run() -> None:
    outcomes = []
    for watched in (False, True):
        model = Net()
        optimizer = optim.AdamW(model.parameters(), lr=0.01)
        found = full(model, optimizer) if watched else None
        for number in range(6):
            backward(model, optimizer, number)
            if found is not None:
                tick(found, optimizer, number)
            else:
                optimizer.step()
        outcomes.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


def test_the_same_run_gives_the_same_readings() -> None:
    def readings() -> list[object]:
        model = Net()
        optimizer = optim.AdamW(model.parameters(), lr=0.01)
        found = full(model, optimizer)
        series = []
        for number in range(5):
            found.observe({"loss": backward(model, optimizer, number)})
            series.append(tick(found, optimizer, number))
        return series

    assert readings() == readings()


def bare(*names: str) -> Collector:
    """Return a collector of observed names only."""
    optimizer = optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    return Collector(optimizer, Layers.of(optimizer), Plan({}, observed=frozenset(names)))


@pytest.mark.parametrize(
    "value",
    [
        1.5,
        torch.tensor(1.5),
        torch.tensor([[1.5]]),
        torch.tensor(1.5, dtype=torch.bfloat16),
        np.float32(1.5),
        torch.tensor(1.5, requires_grad=True),
        torch.tensor(1.5, dtype=torch.float64),
    ],
)
def test_numbers_and_one_element_tensors_can_be_observed_for_one_tick(value: object) -> None:
    found = bare("loss", "reward")
    found.observe({"loss": value})
    assert found.read(0).values == {"loss": 1.5, "reward": None}
    assert found.read(1).values == {"loss": None, "reward": None}


@given(value=st.floats())
def test_any_float_comes_through_unchanged(value: float) -> None:
    found = bare("loss")
    for given_value in (value, torch.tensor(value, dtype=torch.float64)):
        found.observe({"loss": given_value})
        read = found.read(0).values["loss"]
        assert read == value or (math.isnan(read) and math.isnan(value))


def test_a_whole_number_too_large_for_a_float_is_infinite() -> None:
    found = bare("loss")
    found.observe({"loss": -(10**5000)})
    assert found.read(0).values["loss"] == -math.inf


def test_the_later_of_two_observations_counts_and_an_observed_tensor_may_change_afterwards() -> None:
    found = bare("loss")
    total = torch.tensor(2.0)
    found.observe({"loss": 7.0})
    found.observe({"loss": total})
    total.zero_()
    assert found.read(0).values["loss"] == 2.0


@pytest.mark.parametrize("value", ["1.5", None, torch.ones(2), torch.tensor(1j), [1.0], torch.ones(0)])
def test_what_is_no_number_is_refused_and_nothing_is_kept(value: object) -> None:
    found = bare("loss", "reward")
    with pytest.raises(TypeError, match="expected `loss` to be a number"):
        found.observe({"reward": 1.0, "loss": value})
    assert found.read(0).values == {"loss": None, "reward": None}


def test_an_unknown_name_is_refused_with_the_known_ones_and_a_guess() -> None:
    with pytest.raises(ValueError, match=r"no observed value `rewrad`.*`loss`, `reward`; did you mean `reward`\?"):
        bare("loss", "reward").observe({"rewrad": 1.0})


@pytest.mark.parametrize(
    ("groups", "expected"),
    [([0.1, 0.5], 0.5), ([torch.tensor(0.25), 0.1], 0.25), ([0.1, math.nan], math.nan), ([math.nan, 0.1], math.nan)],
)
def test_the_largest_learning_rate_is_read_from_floats_and_tensors(groups: list[object], expected: float) -> None:
    optimizer = optim.SGD([{"params": [nn.Parameter(torch.ones(1))]} for _ in groups], lr=1.0)
    for group, rate in zip(optimizer.param_groups, groups, strict=True):
        group["lr"] = rate
    found = Collector(optimizer, Layers.of(optimizer), Plan({"lr": 1})).read(0).values["lr"]
    assert found == pytest.approx(expected, nan_ok=True)


def test_a_source_is_none_in_the_ticks_between() -> None:
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5)
    found = Collector(optimizer, Layers.of(optimizer), Plan({"lr": 3, "loss": 2}))
    series = []
    for number in range(1, 7):
        found.observe({"loss": float(number)})
        series.append(tuple(found.read(number).values.values()))
    assert series == [(None, None), (None, 2.0), (0.5, None), (None, 4.0), (None, None), (0.5, 6.0)]


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        (Plan({"activation_max": 1}), AttachError),
        (Plan({}, frozenset({"activation_variance"})), AttachError),
        (Plan({"gradnorm": 1}), ValueError),
        (Plan({"lr": 0}), ValueError),
        (Plan({}, frozenset({"loss"})), ValueError),
        (Plan({"lr": 1}, observed=frozenset({"lr"})), AttachError),
    ],
)
def test_a_plan_that_cannot_be_measured_is_refused_at_once(plan: Plan, error: type[Exception]) -> None:
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))])
    with pytest.raises(error):
        Collector(optimizer, Layers.of(optimizer), plan)


def test_the_memory_survives_a_text_file() -> None:
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    found = full(model, optimizer)
    for number in range(3):
        backward(model, optimizer, number)
        tick(found, optimizer, number)
    saved = json.loads(json.dumps(found.state_dict()))
    found.detach()
    resumed = full(model, optimizer)
    resumed.load_state_dict(saved)
    backward(model, optimizer, 3)
    expected, actual = found.read(3), resumed.read(3)
    for name in ("update_norm", "update_ratio", "grad_norm", "param_norm"):
        assert actual.values[name] == pytest.approx(expected.values[name], rel=1e-12)
    assert actual.values["curvature"] is None
    assert resumed.state_dict()["tick"] == 3


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"tick": "1", "layers": {}, "motion": {}},
        {"tick": True, "layers": {}, "motion": {}},
        {"tick": 1, "layers": {"grad_norm": [1]}, "motion": {}},
        {"tick": 1, "layers": {"grad_norm": {"a": "b"}}, "motion": {}},
        {"tick": 1, "layers": {}, "motion": {"moved": [1.0]}},
        {"tick": 1, "layers": {}, "motion": {"moved": "far"}},
        {"tick": 1, "layers": {}, "motion": None},
    ],
)
def test_a_damaged_state_is_refused(state: dict[str, object]) -> None:
    model = Net()
    with pytest.raises(StateError, match="saved telemetry"):
        full(model, optim.SGD(model.parameters())).load_state_dict(state)


def test_a_gap_between_ticks_makes_motion_unavailable_once() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found = collector(model, optimizer, "update_norm")
    seen = []
    for number in (0, 1, 5, 6):
        backward(model, optimizer, number)
        seen.append(tick(found, optimizer, number).values["update_norm"] is not None)
    assert seen == [False, True, False, True]
