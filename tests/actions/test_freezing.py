"""Which layers to hold still."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optimizers import Small, backward, started, train
from torch import nn, optim

from lbw_policy.actions import Gradients, select, unfreezable

NAMES = st.lists(st.text("abc.", min_size=1, max_size=4), unique=True, max_size=30)


@given(names=NAMES, data=st.data())
def test_never_more_than_the_share_never_a_tied_layer_and_always_the_highest(
    names: list[str], data: st.DataObject
) -> None:
    values = st.floats() | st.sampled_from([0.0, 1.0])
    ranking = {name: data.draw(values) for name in names if data.draw(st.booleans())}
    tied = frozenset(name for name in names if data.draw(st.booleans()))
    share = data.draw(st.floats(0, 1) | st.sampled_from([0.1, 0.25, 0.29, 0.3, 0.5, 1.0]))
    chosen = select(ranking, dict.fromkeys(names, ()), tied, share)
    assert len(chosen) <= share * len(names)
    assert not set(chosen) & tied
    ranks = {name: value if math.isfinite(value) else math.inf for name, value in ranking.items()}
    left = [name for name in ranking if name not in chosen and name not in tied]
    assert all((-ranks[a], a) < (-ranks[b], b) for a in chosen for b in left)
    if left:
        assert len(chosen) == math.floor(share * len(names)) or (len(chosen) + 1) / len(names) > share


@given(names=NAMES, data=st.data())
def test_the_choice_does_not_depend_on_the_order_of_the_ranking(names: list[str], data: st.DataObject) -> None:
    ranking = {name: data.draw(st.floats()) for name in names}
    shuffled = {name: ranking[name] for name in data.draw(st.permutations(names))}
    layers = dict.fromkeys(names, ())
    assert select(ranking, layers, frozenset(), 0.5) == select(shuffled, layers, frozenset(), 0.5)


def test_thirty_percent_of_ten_layers_are_three() -> None:
    names = [f"l{number}" for number in range(10)]
    assert select(dict.fromkeys(names, 1.0), dict.fromkeys(names, ()), frozenset(), 0.3) == ("l0", "l1", "l2")


@pytest.mark.parametrize("share", [math.nan, -0.1, 1.1, math.inf])
def test_a_share_outside_zero_to_one_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        select({"a": 1.0}, {"a": ()}, frozenset(), share)


def test_fused_sgd_with_momentum_may_freeze_only_once_every_parameter_has_moved() -> None:
    model = Small()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    assert "fused SGD" in str(unfreezable(optimizer))
    train(model, optimizer, [0])
    assert unfreezable(optimizer) is None
    backward(model, optimizer, 1)
    gradients = Gradients(optimizer)
    gradients.drop(model.first.parameters())
    optimizer.step()
    gradients.release()
    train(model, optimizer, [2])
    assert torch.isfinite(model.first.weight).all()


def test_other_optimizers_may_freeze_at_once() -> None:
    assert unfreezable(started("sgd momentum", 0)[1]) is None
    assert unfreezable(started("adamw fused", 0)[1]) is None
    assert unfreezable(optim.SGD([nn.Parameter(torch.ones(1))], fused=True)) is None
