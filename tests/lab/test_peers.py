"""The rules of others that the comparison re-implements do what was published, on scripted losses."""

import math
from collections.abc import Sequence

import pytest
import torch
from peers import APART, ENOUGH, EVERY, PEERS, Rollback, SkipStep, contender
from torch import nn

from lbw_policy.lab.contenders import Bystander, Memory
from lbw_policy.lab.trouble import CALM


def _run() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def _drive(guard: Bystander, losses: Sequence[float]) -> None:
    """Train on gradients of one, telling the guard these losses."""
    for loss in losses:
        for weight in guard.model.parameters():
            weight.grad = torch.ones_like(weight)
        guard.observe(loss=torch.tensor(loss))
        guard.optimizer.step()


def _noisy(count: int) -> list[float]:
    return [4.0 + 0.1 * (-1) ** step for step in range(count)]


def _ticks(guard: Bystander) -> list[int]:
    return [each.tick for each in guard.interventions]


def test_skipstep_skips_six_deviations_once_it_has_seen_64_losses() -> None:
    model, optimizer = _run()
    guard = SkipStep(optimizer, model)
    _drive(guard, [9.0, *_noisy(ENOUGH - 2), 9.0, *_noisy(80), 4.5, 4.8, 60.0])
    assert _ticks(guard) == [ENOUGH + 82]


def test_skipstep_freezes_for_a_window_after_one_nan() -> None:
    model, optimizer = _run()
    guard = SkipStep(optimizer, model)
    _drive(guard, [*_noisy(100), math.nan, *_noisy(150)])
    assert _ticks(guard) == list(range(100, 229))


def test_a_skipped_step_changes_no_weight_and_no_moment() -> None:
    model, optimizer = _run()
    guard = SkipStep(optimizer, model)
    _drive(guard, _noisy(100))
    before = Memory.of(guard)
    _drive(guard, [60.0])
    assert all(torch.equal(value, before.model[name]) for name, value in model.state_dict().items())
    assert float(optimizer.state_dict()["state"][0]["step"]) == float(before.optimizer["state"][0]["step"])


def test_the_rollback_restores_a_recent_snapshot_and_no_two_in_a_row() -> None:
    model, optimizer = _run()
    guard = Rollback(optimizer, model)
    _drive(guard, _noisy(EVERY * 4))
    kept = guard._kept[0]  # the newer one was taken one step ago
    _drive(guard, [math.nan])
    assert _ticks(guard) == [EVERY * 4]
    assert guard.tick - kept.tick <= 2 * EVERY
    assert all(torch.equal(value, kept.model[name]) for name, value in model.state_dict().items())
    _drive(guard, [math.nan] * (APART + 1))
    assert _ticks(guard) == [EVERY * 4, EVERY * 4 + APART]


def test_names_of_contenders() -> None:
    assert contender("clip+rollback").name == "clip+rollback"
    assert contender("clip+rollback").identity != contender("rollback").identity
    assert contender("ours:conservative").identity != contender("ours:monitor").identity
    with pytest.raises(KeyError):
        contender("wishful")


@pytest.mark.parametrize("name", [name for name, each in PEERS.items() if each.attach])
def test_every_peer_lets_a_healthy_run_train(name: str) -> None:
    pytest.importorskip(PEERS[name].source.split(",")[0]) if name in ("zclip", "stabilityguard") else None
    found = PEERS[name].attach
    assert found is not None
    model, optimizer = _run()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    guard = found(CALM)(optimizer, model, scheduler)  # none of them looks at the fault
    for _ in range(40):
        optimizer.zero_grad()
        loss = (model(torch.ones(1, 3)) ** 2).mean()
        loss.backward()
        guard.observe(loss=loss)
        optimizer.step()
    assert float(loss.detach()) < 0.1
    assert list(guard.interventions) == []
    guard.detach()
