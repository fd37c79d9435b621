"""A guard and its risk model: where it starts from, what drove it, and what is said when it is not believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from attrs import evolve
from torch import nn

import lbw_policy as lbw
from lbw_policy.errors import AttachError
from lbw_policy.risk.prior import Prior, shipped, write_prior
from lbw_policy.runtime.guard import Guard

POLICY = """lbw 1
policy watched { doc "" }
signal loss = telemetry.loss
risk divergence { horizon 10 steps  features standard  model MODEL  alarm at most 0.3 false per 1_000 steps
  trust after 40 steps  fallback 0% }
levels normal -> caution
level caution { enter when divergence.alarm  leave when not divergence.alarm for 5 steps  do scale_lr by 0.5 }
alert danger warning when divergence.alarm "it is {divergence}"
alert distrusted info when not divergence.trusted "not believed"
limits { scale_lr within [0.1, 1] }
"""


def _attach(model: str = "logistic", prior: Path | None = None, mode: str = "act") -> tuple[Guard, nn.Linear]:
    torch.manual_seed(0)
    net = nn.Linear(6, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    return lbw.attach(optimizer, POLICY.replace("MODEL", model), model=net, prior=prior, mode=mode), net


def _train(guard: Guard, net: nn.Linear, steps: int, rate: float = 0.05) -> None:
    optimizer = guard._parts.effects._optimizer
    for step in range(steps):
        torch.manual_seed(step)
        inputs = torch.randn(32, 6)
        loss = (net(inputs) - inputs[:, :4]).square().mean() + 1.0
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = rate
        guard.observe(loss=loss)
        optimizer.step()


@pytest.mark.parametrize("model", ["logistic", "trees"])
def test_a_guard_starts_from_what_ships(model: str) -> None:
    """Attached, a risk with standard features knows where its alarms begin, and is trusted once it may be."""
    guard, net = _attach(model)
    base = shipped(model)
    assert base is not None
    assert guard._parts.risks["divergence"].threshold == base.threshold(3e-4)
    _train(guard, net, 80)
    assert guard.risk["divergence"].trusted
    assert "trusted (" in guard.summary().risks["divergence"]
    assert "labels" in str(guard.summary())
    guard.detach()


def test_what_raised_an_alarm_is_in_the_record_and_in_the_alert() -> None:
    """A learning rate 300 times too high: the intervention and the alert name the features that told it."""
    guard, net = _attach()
    _train(guard, net, 80)
    _train(guard, net, 8, rate=15.0)
    acts = [one for one in guard.interventions if one.action == "scale_lr"]
    assert acts
    assert acts[0].drivers[0].startswith("divergence.alarm: standard.lr_jump +")
    alerts = [one for one in guard.interventions if one.rule == "alert danger"]
    assert "(divergence.alarm: standard." in alerts[0].reason
    assert json.loads(json.dumps(acts[0].as_dict()))["drivers"] == list(acts[0].drivers)
    guard.detach()


def test_a_resumed_guard_goes_on_as_the_first_would(tmp_path: Path) -> None:
    """Saved as JSON and restored, records included, the risk says the same at every later tick."""
    one, net = _attach()
    _train(one, net, 90)
    two, other = _attach()
    other.load_state_dict(net.state_dict())
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert two._parts.risks["divergence"].state_dict() == one._parts.risks["divergence"].state_dict()
    assert two.interventions == one.interventions
    for guard in (one, two):
        guard.detach()


def test_loss_of_trust_is_recorded_and_alertable() -> None:
    """A model that breaks is not believed any more: the record says so once, and why, and the alert fires."""
    guard, net = _attach()
    _train(guard, net, 60)
    assert guard.risk["divergence"].trusted
    guard._parts.risks["divergence"]._model.predict = lambda features: float("nan")
    _train(guard, net, 5)
    told = [one for one in guard.interventions if one.rule == "guard" and "no longer believed" in one.reason]
    assert len(told) == 1
    assert told[0].outcome == "warning"
    assert "the model gave no probability" in told[0].reason
    assert [one.rule for one in guard.interventions if one.rule == "alert distrusted"][-1:] == ["alert distrusted"]
    guard.detach()


def test_a_local_prior_is_used_and_a_foreign_one_refused(tmp_path: Path) -> None:
    """`prior=` takes a file that fits: another model's, a damaged or a tampered one is refused with the reason."""
    base = shipped("logistic")
    assert base is not None
    local = tmp_path / "own.json"
    anchored = {**base.model, "anchor": base.model["weights"], "anchor_intercept": base.model["intercept"]}
    write_prior(evolve(base, model=anchored, base=base.digest, thresholds=((3e-4, -1.0),)), local)
    guard, _ = _attach(prior=local)
    assert guard._parts.risks["divergence"].threshold == -1.0
    guard.detach()
    with pytest.raises(AttachError, match="no risk of policy `watched` has `standard` features and model `logistic`"):
        _attach("trees", prior=local)
    write_prior(evolve(base, model=anchored, base="another"), local)
    with pytest.raises(AttachError, match=r"the prior cannot be used: .*learn it again"):
        _attach(prior=local)
    local.write_text("{}")
    with pytest.raises(AttachError, match=r"the prior cannot be used: .*own\.json"):
        _attach(prior=local)
    write_prior(Prior("logistic", 10, {**anchored, "weights": {}}), local)
    with pytest.raises(AttachError):
        _attach(prior=local)
