"""Signals that the loop and the guard make together."""

from typing import Literal

import pytest
import torch
from loops import Small, loss_of, policy, small
from torch import nn, optim

import lbw_policy as lbw
from lbw_policy.errors import AttachError

CLIPS = policy("reflex tall { when grad > 0.5 do clip to 0.5 }\n")
WATCHES = lbw.load("""lbw 1
policy watches { }
signal trace = telemetry.hessian_trace { every 2 steps }
signal bent  = telemetry.gradient_curvature
alert a info when trace > 0 or bent > 0 "{trace} {bent}"
""")


def norm(model: nn.Module) -> float:
    """Return the norm of all gradients."""
    return float(torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in model.parameters()])))


def backward(model: nn.Module, optimizer: optim.Optimizer, step: int, size: float = 1.0) -> torch.Tensor:
    """Fill the gradients of one step."""
    optimizer.zero_grad()
    loss = loss_of(model, step) * size
    loss.backward()
    return loss


def test_a_loop_that_clips_through_the_guard_clips_as_torch_does() -> None:
    outcomes = []
    for guarded in (False, True):
        model, optimizer = small(optim.SGD)
        guard = lbw.attach(optimizer, policy(""), model=model) if guarded else None
        for step in range(5):
            loss = backward(model, optimizer, step)
            if guard is None:
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            else:
                guard.clip_grad_norm_(0.1)
                guard.observe(loss=loss)
            optimizer.step()
        outcomes.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


@pytest.mark.parametrize("told", [True, False])
def test_a_rule_sees_the_norm_before_the_loops_clip_and_clips_the_gradients_there_are(told: bool) -> None:
    model, optimizer = small(optim.SGD, lr=0.0)
    guard = lbw.attach(optimizer, CLIPS, model=model)
    left = []
    optimizer.register_step_pre_hook(lambda *_: left.append(norm(model)))
    for step, limit in enumerate((0.8, 0.2)):
        loss = backward(model, optimizer, step, size=50.0)
        assert norm(model) > 2
        if told:
            guard.observe(grad_norm=nn.utils.clip_grad_norm_(model.parameters(), limit))
        else:
            guard.clip_grad_norm_(limit)
        guard.observe(loss=loss)
        optimizer.step()
    assert left == pytest.approx([0.5, 0.2], rel=1e-4)
    fired = [record for record in guard.interventions if record.action == "clip"]
    assert [record.tick for record in fired] == [0]


def test_a_clip_still_clips_when_the_guard_is_gone() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(""), model=model)
    guard.detach()
    backward(model, optimizer, 0)
    guard.clip_grad_norm_(0.01)
    assert norm(model) == pytest.approx(0.01, rel=1e-3)


def test_second_derivatives_reach_the_policy() -> None:
    model, optimizer = small(optim.SGD)
    guard = lbw.attach(optimizer, WATCHES, model=model)
    for step in range(3):
        optimizer.zero_grad()
        loss = loss_of(model, step)
        guard.curvature(loss)
        loss.backward()
        optimizer.step()
    assert any(record.action == "alert" for record in guard.interventions)


def test_a_model_that_cannot_be_differentiated_twice_is_recorded_once_and_trains_on() -> None:
    model, optimizer = small(optim.SGD)
    guard = lbw.attach(optimizer, WATCHES, model=model)
    for step in range(3):
        loss = loss_of(model, step)
        guard.curvature(loss.detach())
        loss.backward()
        optimizer.step()
    failures = [record for record in guard.interventions if record.action == "failure"]
    assert len(failures) == 1
    assert guard.tick == 3


def test_a_signal_that_cannot_be_seen_is_a_warning_in_the_record() -> None:
    model, optimizer = small(optim.SGD)
    text = 'lbw 1\npolicy p { }\nsignal a = telemetry.attention_logit_max\nalert x info when a > 50 "{a}"\n'
    guard = lbw.attach(optimizer, lbw.load(text), model=model)
    for step in range(3):
        backward(model, optimizer, step)
        optimizer.step()
    warnings = [record for record in guard.interventions if record.action == "alert"]
    assert len(warnings) == 1
    assert "no attention was seen" in str(warnings[0])


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        ("router_load", "a router: no module of the model is called"),
        ("moment_rms", "an optimizer with second moments"),
        ("momentum_agreement", "an optimizer with momentum"),
    ],
)
def test_what_is_missing_is_named_when_a_policy_is_attached(source: str, needs: str) -> None:
    model, optimizer = small(optim.SGD)
    text = f'lbw 1\npolicy p {{ }}\nsignal a = telemetry.{source}\nalert x info when a > 50 "{{a}}"\n'
    with pytest.raises(AttachError, match=f"signal `a` reads `telemetry.{source}`, which needs {needs}"):
        lbw.attach(optimizer, lbw.load(text), model=model)


def test_layers_may_be_frozen_by_any_layer_statistic() -> None:
    for statistic in ("update_ratio", "activation_outliers", "grad_norm", "activation_variance"):
        model, optimizer = small()
        rule = f"reflex r {{ when grad > 0 do freeze top 50% of layers by {statistic} }}\n"
        guard = lbw.attach(optimizer, policy(rule), model=model)
        for step in range(24):
            guard.observe(loss=backward(model, optimizer, step))
            optimizer.step()
        assert any(record.action == "freeze" and record.outcome == "granted" for record in guard.interventions)


def test_step_time_is_the_time_between_two_steps() -> None:
    model, optimizer = small()
    text = 'lbw 1\npolicy p { }\nsignal t = telemetry.step_time\nalert x info when t > 0 "{t}"\n'
    guard = lbw.attach(optimizer, lbw.load(text), model=model)
    for step in range(3):
        backward(model, optimizer, step)
        optimizer.step()
        assert bool(guard.interventions) == (step > 0)


def test_a_model_is_needed_where_its_outputs_rank_layers() -> None:
    optimizer = optim.SGD(Small().parameters(), lr=0.1)
    rule = "reflex r { when grad > 0 do freeze top 50% of layers by activation_outliers }\n"
    with pytest.raises(AttachError, match=r"`freeze \.\.\. by activation_outliers` needs `model=`"):
        lbw.attach(optimizer, policy(rule))


def test_a_loss_that_is_never_handed_over_for_differentiation_is_warned_of() -> None:
    model, optimizer = small(optim.SGD)
    guard = lbw.attach(optimizer, WATCHES, model=model)
    for step in range(25):
        backward(model, optimizer, step)
        optimizer.step()
    warned = [str(record) for record in guard.interventions if "guard.curvature(loss)" in str(record)]
    assert len(warned) == 2


STEADY = lbw.load("""lbw 1
policy steady { }
signal pace   = observed.pace
signal length = telemetry.update_norm
let unguarded = length / lr_factor
reflex slow { when pace < 1 do scale_lr by 0.5 }
limits { scale_lr within [0.25, 1]  intervene at most 40 per 100 steps }
alert fast info when unguarded > 0 and pace > 1 "{length} {unguarded}"
alert late info when unguarded > 0 and pace < 1 "{length} {unguarded}"
""")


@pytest.mark.parametrize(("mode", "length", "unguarded"), [("act", 0.5, 1.0), ("shadow", 1.0, 2.0)])
def test_the_length_of_an_update_over_the_lr_factor_is_what_it_would_have_been_unguarded(
    mode: Literal["act", "shadow"], length: float, unguarded: float
) -> None:
    """A shadow changes nothing, so there the quotient is by what it would have granted."""
    weight = nn.Parameter(torch.zeros(8))
    optimizer = optim.SGD([weight], lr=0.5)
    guard = lbw.attach(optimizer, STEADY, mode=mode)
    for pace in (2.0, 0.5, 2.0, 0.5):
        weight.grad = torch.full((8,), 2.0)
        guard.observe(pace=pace)
        optimizer.step()
    told = [record.reason.split()[1:] for record in guard.interventions if record.action == "alert"]
    whole = 0.5 * 2.0 * 8**0.5

    assert [[float(one) / whole for one in pair] for pair in told] == [
        pytest.approx(pair, rel=1e-3) for pair in ((1.0, 1.0), (length, unguarded), (1.0, 1.0))
    ]
