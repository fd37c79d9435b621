"""Layers by the names of the modules that own them."""

import pytest
import torch
from runs import Net
from torch import nn, optim

from lbw_policy.errors import AttachError
from lbw_policy.telemetry import Layers


def test_parameters_are_grouped_by_the_module_that_owns_them() -> None:
    model = Net()
    layers = Layers.of(optim.SGD(model.parameters()), model)
    assert {name: len(held) for name, held in layers.parameters.items()} == {
        "table": 1,
        "norm": 2,
        "hidden": 2,
        "head": 1,
    }
    assert layers.parameters["hidden"] == (model.hidden.weight, model.hidden.bias)
    assert layers.modules["hidden"] is model.hidden
    assert layers.tied == frozenset()


def test_a_parameter_of_the_model_itself_is_in_the_root_layer() -> None:
    model = nn.Linear(2, 2)
    assert list(Layers.of(optim.SGD(model.parameters()), model).parameters) == ["root"]


def test_without_a_model_each_parameter_is_a_layer() -> None:
    model = nn.Linear(2, 2)
    layers = Layers.of(optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}]))
    assert layers.parameters == {"group0.0": (model.weight,), "group1.0": (model.bias,)}
    assert layers.modules == {}


def test_only_what_the_optimizer_owns_counts() -> None:
    model = Net()
    layers = Layers.of(optim.SGD([model.hidden.weight]), model)
    assert layers.parameters == {"hidden": (model.hidden.weight,)}
    assert list(layers.modules) == ["hidden"]


def test_parameters_outside_the_model_are_not_lost() -> None:
    model, extra = nn.Linear(2, 2), nn.Parameter(torch.ones(1))
    layers = Layers.of(optim.SGD([*model.parameters(), extra]), model)
    assert layers.parameters["group0.2"] == (extra,)
    assert len(layers.distinct()) == 3


def test_layers_that_share_a_parameter_are_tied_and_it_counts_once() -> None:
    model = Net(16)
    model.head = nn.Linear(16, 11, bias=False)
    model.head.weight = model.table.weight
    layers = Layers.of(optim.SGD(model.parameters()), model)
    assert layers.tied == {"table", "head"}
    assert len(layers.distinct()) == 5


def test_a_model_that_the_optimizer_does_not_train_is_refused() -> None:
    with pytest.raises(AttachError, match="model"):
        Layers.of(optim.SGD(Net().parameters()), Net())
