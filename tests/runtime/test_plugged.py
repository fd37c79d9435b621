"""Plugins at run time: measured once when due, called within their limits, and a failing one stops nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import lbw_policy as lbw
from lbw_policy.semantics import plugins

CODE = """
import torch
from lbw_policy.plugins import ActionPlugin, SignalPlugin

measured, acted = [], []

def measure(context):
    measured.append(context.tick)
    weight = next(context.model.parameters())
    return weight.detach().norm() if context.tick % 4 else float(weight.shape[0])

def act(context):
    acted.append((context.tick, context.amount))
    for group in context.optimizer.param_groups:
        group["weight_decay"] = context.amount

def fail(context):
    raise RuntimeError("no luck")

size = SignalPlugin("size", "norm", "model", "size of the first weight", measure)
broken = SignalPlugin("broken_signal", "norm", "optimizer", "raises", fail)
odd = SignalPlugin("odd_signal", "norm", "optimizer", "no number", lambda context: torch.ones(3))
decay = ActionPlugin("set_decay", "ratio", act, "sets the weight decay")
stumble = ActionPlugin("stumble", None, fail, "raises")
"""
ENTRIES = """
[lbw_policy.signals]
size = runtime_plugins:size
broken_signal = runtime_plugins:broken
odd_signal = runtime_plugins:odd
[lbw_policy.actions]
set_decay = runtime_plugins:decay
stumble = runtime_plugins:stumble
"""
POLICY = """
lbw 1
policy plugged { %s }
signal size = telemetry.size { every 2 steps }
signal broken = telemetry.broken_signal { missing skip }
signal odd = telemetry.odd_signal
signal loss = observed.loss_told
reflex wide { when loss > 5  do set_decay with loss / 1  do stumble  do skip }
alert never info when size > 1e6 or broken > 1 or odd > 1 "never"
limits {
  set_decay within [0, 0.5], at most 2 per 100 steps
  stumble at most 9 per 100 steps
  skip at most 9 in a row, at most 9 per 100 steps
}
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    metadata = tmp_path / "runtime_plugins-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: runtime_plugins\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "runtime_plugins.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.forget()
    yield tmp_path
    sys.modules.pop("runtime_plugins", None)
    plugins.forget()


def run(guard: lbw.Guard, model: nn.Module, optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
    for loss in losses:
        optimizer.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
        guard.observe(loss_told=loss)
        optimizer.step()


def guarded(settings: str = "", mode: str = "act") -> tuple[lbw.Guard, nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return lbw.attach(optimizer, POLICY % settings, model=model, mode=mode), model, optimizer


def test_signals_are_measured_when_due_and_actions_are_held_to_their_limits(site: Path) -> None:
    guard, model, optimizer = guarded()
    run(guard, model, optimizer, [1.0, 0.3, 6.0, 7.0, 8.0, 1.0])
    module = sys.modules["runtime_plugins"]

    assert module.measured == [0, 2, 4]
    assert module.acted == [(2, 0.5), (3, 0.5)]
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    outcomes = [record.outcome for record in guard.interventions if record.action == "set_decay"]
    assert outcomes == ["reduced", "reduced", "refused"]


def test_a_plugin_that_raises_is_recorded_and_the_run_goes_on_guarded(site: Path) -> None:
    guard, model, optimizer = guarded()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    run(guard, model, optimizer, [6.0, 6.0])

    failures = [(record.tick, record.reason) for record in guard.interventions if record.action == "failure"]
    assert failures[0] == (0, "the plugin signal `broken_signal` failed: RuntimeError: no luck")
    assert failures[1][1].startswith("the plugin signal `odd_signal` failed: TypeError: expected `odd_signal` to be")
    assert failures[2:] == [(tick, "the plugin action `stumble` failed: RuntimeError: no luck") for tick in (0, 1)]
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))  # skipped


def test_on_failure_halt_holds_for_plugins_too(site: Path) -> None:
    guard, model, optimizer = guarded("on failure halt")

    with pytest.raises(lbw.Halted, match="broken_signal"):
        run(guard, model, optimizer, [1.0])


def test_shadow_mode_calls_no_plugin_action(site: Path) -> None:
    guard, model, optimizer = guarded(mode="shadow")
    run(guard, model, optimizer, [6.0])

    assert sys.modules["runtime_plugins"].acted == []
    assert any(record.action == "set_decay" for record in guard.interventions)


def test_a_signal_that_needs_the_model_is_refused_without_one(site: Path) -> None:
    optimizer = torch.optim.SGD(nn.Linear(3, 2).parameters(), lr=0.01)

    with pytest.raises(lbw.AttachError, match=r"`telemetry\.size`, which needs `model=`"):
        lbw.attach(optimizer, POLICY % "")


def test_a_resumed_run_keeps_the_budgets_of_plugins(site: Path) -> None:
    guard, model, optimizer = guarded()
    run(guard, model, optimizer, [6.0, 6.0])
    state = guard.state_dict()
    guard.detach()
    guard = lbw.attach(optimizer, POLICY % "", model=model)
    guard.load_state_dict(state)
    run(guard, model, optimizer, [6.0])

    assert len(sys.modules["runtime_plugins"].acted) == 2
