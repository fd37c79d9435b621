"""Both tiers agree, decision for decision and bit for bit, and the device tier waits for nothing before an update."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn, optim
from torch.utils._python_dispatch import TorchDispatchMode

import lbw_policy as lbw
from lbw_policy.runtime.ondevice import TensorOperations
from lbw_policy.semantics.policy import Policy
from lbw_policy.telemetry import gradients
from lbw_policy.telemetry.readings import Sent
from tests.runtime.device_runs import OPTIMIZERS, Run, Told, fused, policies, same, tellings
from tests.runtime.hostile_world import ExplosionError, Picture, alike
from tests.runtime.loops import acted, at, loss_of, policy, small, train

RELAXED = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
kinds = st.sampled_from(tuple(OPTIMIZERS))


@contextmanager
def no_second_look() -> Iterator[None]:
    """Let an overflowed norm count for infinite on the host too, as it must where nobody waits."""
    with pytest.MonkeyPatch.context() as patch:
        real = gradients.settle
        patch.setattr(gradients, "settle", lambda norms, _: real(norms, None))
        yield


def went(run: Run, seen: Counter[str]) -> None:
    """Count what a run granted, its steps, and those whose numbers nobody waited for."""
    seen.update(record.action for record in run.guard.interventions if record.outcome in ("granted", "reduced"))
    seen.update({"steps": run.step, "gone on": run.gone_on})


def test_without_levels_both_tiers_do_and_record_the_same() -> None:
    seen = Counter[str]()

    @RELAXED
    @given(policy=policies(levels=False), told=tellings(), kind=kinds)
    def check(policy: Policy, told: list[Told], kind: str) -> None:
        with no_second_look():
            runs = [Run.of(kind, policy, tier) for tier in ("device", "host")]
            for one in told:
                for run in runs:
                    run.go(one)
            same(*runs)
        assert runs[0].guard.tier == "device"
        went(runs[0], seen)

    check()
    assert min(seen[action] for action in ("skip", "clip", "scale_lr")) > 0, seen
    assert seen["gone on"] > 0.6 * seen["steps"]


def test_with_levels_a_run_that_does_not_wait_is_one_that_waits_for_every_tick() -> None:
    seen = Counter[str]()

    @settings(RELAXED, max_examples=100)
    @given(policy=policies(levels=True), told=tellings(), kind=kinds)
    def check(policy: Policy, told: list[Told], kind: str) -> None:
        runs = [Run.of(kind, policy, "device") for _ in range(2)]
        runs[1].guard._parts.ahead.trusted = False  # every tick waits for its numbers
        for one in told:
            for run in runs:
                run.go(one)
        same(*runs)
        went(runs[0], seen)

    check()
    assert min(seen[action] for action in ("skip", "clip", "scale_lr", "freeze")) > 0, seen
    assert seen["gone on"] > 0.2 * seen["steps"]


# What a step does

RULES = """
reflex broken { when not finite(loss) or not finite(grad)  do skip }
reflex spike  { when grad > 4 * median(grad, 32 steps)     do skip }
reflex tall   { when grad > 1.2 * median(grad, 32 steps)   do clip to median(grad, 32 steps) }
reflex slow   { when zscore(loss, 32 steps) > 0.5          do scale_lr by 0.5 }
"""
LEVELS = """
reflex broken { when not finite(grad) do skip }
levels normal -> caution
level caution {
  enter when loss > 3 * median(loss, 32 steps)    for 2 of 3 steps
  leave when loss < 1.5 * median(loss, 32 steps)  for 3 steps
  do rollback at most 20 steps
  do scale_lr by 0.5  restore over 4 steps
}
"""


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def backward(model: nn.Module, step: int) -> torch.Tensor:
    """Make a step's gradients, as a closure does."""
    model.zero_grad()
    loss = spoilt(loss_of(model, step), step)
    loss.backward()
    return loss


def spoilt(loss: torch.Tensor, step: int) -> torch.Tensor:
    return loss * {30: 1e3, 31: 1e3, 40: math.nan, 50: 3.0}.get(step, 1.0)


def test_a_real_training_is_the_same_in_both_tiers() -> None:
    results = []
    for tier in ("host", "device"):
        model, optimizer, guard = fused(RULES, tier=tier)
        train(model, optimizer, range(60), guard, spoilt)
        results.append((weights(model), str(guard.summary()).replace(tier, "-"), guard.interventions))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert repr(results[0][2]) == repr(results[1][2])
    assert {record.action for record in results[0][2]} == {"skip", "clip", "scale_lr"}


@pytest.mark.parametrize(
    "condition",
    [
        "ewma(loss / median(grad, 32 steps), 16 steps) > 1.05 * median(loss / grad, 32 steps)",
        "prev(loss * grad, 3 steps) > 2 * median(loss * grad, 32 steps)",
        "zscore(ewma(grad, 8 steps), 32 steps) > 2",
        "own > 3 or (own > prev(own) and loss > median(loss, 32 steps))",
    ],
)
def test_trends_follow_alike_in_both_tiers_where_readings_are_missing(condition: str) -> None:
    results = []
    for tier in ("host", "device"):
        model, optimizer, guard = fused(
            f"signal own = observed.own {{ missing hold 2 steps }} reflex a {{ when {condition} do skip }}", tier=tier
        )
        for step in range(80):
            loss = backward(model, step)
            if step % 7:
                guard.observe(loss=loss.detach())
            if step % 4 == 0:
                guard.observe(own=torch.tensor(step % 5))
            if step % 11 == 0:
                optimizer.zero_grad()
            optimizer.step()
        guard.catch_up()
        results.append((weights(model), repr(guard.interventions)))
    assert alike(*results)  # the NaN of step 40 may get through: none of these rules looks out for it
    assert "granted" in results[0][1]


class Reading(TorchDispatchMode):
    """Notes every operation that reads a number from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's own
        name = func._schema.name.removeprefix("aten::")
        if name in ("_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero", "_assert_async"):
            self.read.append(name)
        return func(*args, **(kwargs or {}))


def test_before_an_update_nothing_is_read_but_the_last_steps_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step reads once, at its beginning, what the step before has sent; its own packet is left alone."""
    model, optimizer, guard = fused(RULES)
    train(model, optimizer, range(40), guard)
    lists, packets = [], list[tuple[int, Any]]()
    read, unpack = torch.Tensor.tolist, Sent.unpack
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: lists.append(guard.tick) or read(tensor))
    monkeypatch.setattr(Sent, "unpack", lambda sent: packets.append((step, sent)) or unpack(sent))
    for step in range(40, 60):
        optimizer.zero_grad()
        loss = spoilt(loss_of(model, step), step)
        loss.backward()
        with Reading() as mode:
            guard.observe(loss=loss.detach())
            guard.before_update()
            guard.after_update()
        assert mode.read == []
        optimizer.zero_grad()
    assert [number for number, _ in packets] == list(range(40, 60))
    assert len(lists) == 20


def test_a_flood_is_skipped_as_often_as_the_limits_allow_and_no_more() -> None:
    """Three in a row; the fourth NaN reaches the weights, for nobody may keep it out."""
    model, optimizer, guard = fused("reflex broken { when not finite(grad) do skip }")
    train(model, optimizer, range(10), guard)
    for number in range(10, 14):
        assert bool(weights(model).isfinite().all())
        train(model, optimizer, [number], guard, at([number], math.nan))
    assert not bool(weights(model).isfinite().any())
    guard.catch_up()
    assert acted(guard, "skip") == [10, 11, 12]


def test_a_step_is_recorded_when_the_next_one_begins() -> None:
    model, optimizer, guard = fused("reflex broken { when not finite(grad) do skip }")
    train(model, optimizer, range(10), guard, at([9], math.nan))
    assert (guard.tick, guard.progress, acted(guard, "skip")) == (10, 9, [])
    train(model, optimizer, [10], guard)
    assert acted(guard, "skip") == [9]
    assert guard.summary().progress == 10
    assert guard.tick == 11


def test_a_rollback_brings_back_what_was_there_after_an_update_buffers_and_all() -> None:
    model, optimizer, guard = fused(LEVELS)
    past = []
    for number in range(60):
        train(model, optimizer, [number], guard, at(range(40, 46), 50.0))
        past.append(Picture.of(optimizer, model))
    (back,) = acted(guard, "rollback")
    found = past[back]
    assert back == 42  # the second high loss is at step 41, and levels act one step later
    assert any(alike([found.weights, found.state], [one.weights, one.state]) for one in past[: back - 1])
    assert guard.tier == "device"
    assert not [record for record in guard.interventions if record.action == "failure"]


def test_a_snapshot_holds_the_buffers_of_its_own_step() -> None:
    """It is taken after the update: the next batch, which may be the broken one, has not touched the statistics yet."""
    model, optimizer, guard = fused(LEVELS)
    train(model, optimizer, range(1), guard)
    buffers = [buffer.clone() for buffer in model.buffers()]
    train(model, optimizer, [1], guard)
    guard._parts.effects.snapshots.restore(1)
    assert alike(buffers, list(model.buffers()))


def test_shadow_changes_nothing_and_records_what_it_would_have_done() -> None:
    results = []
    for tier in ("host", "device"):
        model, optimizer, guard = fused(RULES, tier=tier, mode="shadow")
        train(model, optimizer, range(60), guard, spoilt)
        guard.catch_up()
        results.append((weights(model), repr(guard.interventions)))
    model, optimizer = small(lambda held, **given: optim.AdamW(held, fused=True, **given))
    train(model, optimizer, range(60), None, spoilt)
    assert results[0][1] == results[1][1] != "()"
    assert alike(results[1][0], weights(model))


def test_a_run_that_is_saved_and_resumed_is_one_that_was_not() -> None:
    whole, _, _ = results = fused(LEVELS)
    train(*results[:2], range(70), results[2], at(range(40, 46), 50.0))
    model, optimizer, guard = fused(LEVELS)
    train(model, optimizer, range(43), guard, at(range(40, 46), 50.0))
    state = guard.state_dict(snapshots=True)
    json.dumps({name: part for name, part in state.items() if name != "snapshots"}, allow_nan=True)
    other = fused(LEVELS)
    other[0].load_state_dict(model.state_dict())
    other[1].load_state_dict(optimizer.state_dict())
    other[2].load_state_dict(state)
    train(*other[:2], range(43, 70), other[2], at(range(40, 46), 50.0))
    assert torch.equal(weights(other[0]), weights(whole))
    results[2].catch_up()
    other[2].catch_up()
    assert repr(other[2].interventions) == repr(results[2].interventions)


def test_a_state_of_the_host_tier_goes_on_in_the_device_tier() -> None:
    model, optimizer, guard = fused(LEVELS, tier="host")
    train(model, optimizer, range(30), guard)
    state = guard.state_dict(snapshots=True)
    guard.detach()
    resumed = lbw.attach(optimizer, policy(LEVELS), model=model, tier="device")
    resumed.load_state_dict(state)
    train(model, optimizer, range(30, 60), resumed, at([40], math.nan))
    assert resumed.summary().actions == {"skip": {"granted": 1}}
    assert resumed.tick == 60


@pytest.mark.parametrize("unscale", [False, True])
def test_with_a_gradient_scaler_both_tiers_agree_and_its_own_verdict_is_kept(unscale: bool) -> None:
    results = []
    for tier in ("host", "device"):
        model, optimizer, guard = fused(RULES, tier=tier)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=10)
        for step in range(60):
            optimizer.zero_grad()
            loss = spoilt(loss_of(model, step), step)
            scaler.scale(loss).backward()
            if step == 25:
                next(iter(model.parameters())).grad[0, 0] = math.inf
            if unscale:
                scaler.unscale_(optimizer)
            guard.observe(loss=loss.detach())
            scaler.step(optimizer)
            scaler.update()
            assert not hasattr(optimizer, "found_inf")
        guard.catch_up()
        results.append((weights(model), scaler.get_scale(), repr(guard.interventions)))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:]
    assert bool(results[0][0].isfinite().all())


def test_with_a_closure_both_tiers_agree() -> None:
    results = []
    for tier in ("host", "device"):
        model, optimizer, guard = fused(RULES, tier=tier)
        for step in range(60):
            optimizer.step(partial(backward, model, step))
        guard.catch_up()
        results.append((weights(model), repr(guard.interventions)))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1] != "()"


@pytest.mark.parametrize("way", ["guard", "told"])
def test_in_a_loop_that_clips_both_tiers_agree(way: str) -> None:
    results = []
    for tier in ("host", "device"):
        model, optimizer, guard = fused(RULES, tier=tier)
        for step in range(60):
            loss = backward(model, step)
            if way == "guard":
                guard.clip_grad_norm_(0.5)
                guard.observe(loss=loss.detach())
            else:
                norm = nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                guard.observe(loss=loss.detach(), grad_norm=norm)
            optimizer.step()
        guard.catch_up()
        results.append((weights(model), repr(guard.interventions)))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1] != "()"


def test_a_group_that_is_not_fused_makes_its_steps_wait() -> None:
    model, optimizer, guard = fused("reflex broken { when not finite(grad) do skip }")
    train(model, optimizer, range(3), guard)
    assert guard._left is not None
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "fused": False})
    train(model, optimizer, range(3, 5), guard, at([4], math.nan))
    assert (guard._left, acted(guard, "skip")) == (None, [4])


def test_a_sampled_signal_is_waited_for_in_its_own_ticks_only() -> None:
    model, optimizer, guard = fused(
        "signal update = telemetry.update_ratio { every 5 steps } reflex far { when update > 100 do skip }"
    )
    went_on = []
    for step in range(20):
        train(model, optimizer, [step], guard)
        went_on.append(guard._left is not None)
    assert [step for step, on in enumerate(went_on) if not on] == [0, 5, 10, 15]


def test_fused_momentum_waits_until_each_parameter_has_some() -> None:
    """Its kernel would leave the buffers of a first step that is left out uninitialised."""
    model, optimizer = small(lambda held, **given: optim.SGD(held, momentum=0.9, fused=True, **given))
    guard = lbw.attach(optimizer, policy("reflex broken { when not finite(grad) do skip }"), model=model, tier="device")
    train(model, optimizer, range(2), guard, at(range(2), math.nan))
    assert guard._left is None
    assert acted(guard, "skip") == [0, 1]
    train(model, optimizer, range(2, 4), guard)
    assert guard._left is not None
    assert bool(weights(model).isfinite().all())


# What goes wrong


def test_a_wrong_ruling_is_recorded_and_ends_the_trust_in_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer, guard = fused("reflex broken { when grad > 100 * median(grad, 32 steps) do skip }")
    train(model, optimizer, range(20), guard)
    real = TensorOperations.compare
    with monkeypatch.context() as patch:
        patch.setattr(TensorOperations, "compare", lambda *given: TensorOperations.invert(given[0], real(*given)))
        before = weights(model)
        train(model, optimizer, [20], guard)
        assert torch.equal(before, weights(model))  # it was skipped for nothing
        train(model, optimizer, range(21, 30), guard)
    failures = [record for record in guard.interventions if record.action == "failure"]
    assert [record.tick for record in failures] == [20]
    assert "the device did {'skip': 1.0" in failures[0].reason
    assert (guard.tier, guard.progress, guard.summary().tier) == ("host", 29, "host")
    train(model, optimizer, [30], guard, at([30], 1e6))
    assert acted(guard, "skip") == [30]


def test_a_ruling_that_cannot_be_made_leaves_one_update_unguarded_and_the_next_ones_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, optimizer, guard = fused("reflex broken { when not finite(grad) do skip }")
    train(model, optimizer, range(5), guard)
    monkeypatch.setattr(TensorOperations, "finite", lambda *_: 1 / 0)
    train(model, optimizer, range(5, 9), guard, at([8], math.nan))
    failures = [(record.tick, record.reason) for record in guard.interventions if record.action == "failure"]
    assert failures == [(5, "ZeroDivisionError: division by zero")]
    assert (guard.tier, guard.progress, acted(guard, "skip")) == ("host", 8, [8])
    assert bool(weights(model).isfinite().all())


@pytest.mark.parametrize("lr", [0.01, torch.tensor(0.01)])
@pytest.mark.parametrize("error", [ExplosionError, KeyboardInterrupt])
def test_a_step_that_raises_leaves_everything_as_it_was(error: type[BaseException], lr: Any) -> None:  # noqa: ANN401
    rules = "reflex slow { when loss > 0 do scale_lr by 0.5  do skip }"
    model, optimizer = small(lambda held, **given: optim.AdamW(held, fused=True, **{**given, "lr": lr}))
    guard = lbw.attach(optimizer, policy(rules), model=model, tier="device")

    def explode(*_: object) -> None:
        raise error

    before = weights(model)
    gradients_before: list[torch.Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizer, "_init_group", explode)
        loss_of(model, 0).backward()
        gradients_before += [parameter.grad.clone() for parameter in model.parameters()]
        guard.observe(loss=1.0)
        with pytest.raises(error):
            optimizer.step()
    guard.observe(loss=1.0)
    assert not hasattr(optimizer, "found_inf")
    assert optimizer.param_groups[0]["lr"] is lr or optimizer.param_groups[0]["lr"] == lr
    assert alike(gradients_before, [parameter.grad for parameter in model.parameters()])
    assert torch.equal(before, weights(model))
    assert guard.tick == 1
    guard.catch_up()
    assert (guard.tick, guard.progress, acted(guard, "skip")) == (1, 0, [0])
    train(model, optimizer, range(1, 3), guard)
    guard.detach()
    assert guard.progress == 0


def test_detaching_ends_the_last_step_and_leaves_the_optimizer_bare() -> None:
    model, optimizer, guard = fused("reflex broken { when not finite(grad) do skip }")
    train(model, optimizer, range(5), guard, at([4], math.nan))
    guard.detach()
    assert acted(guard, "skip") == [4]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not hasattr(optimizer, "found_inf")
