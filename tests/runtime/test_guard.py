"""The guard on real optimizers: it acts exactly, gives everything back, and never spreads its own failures."""

from __future__ import annotations

import math

import pytest
import torch
from torch import optim

import lbw_policy as lbw
from tests.actions.optimizers import OPTIMIZERS, STUBBORN, same, state, weights
from tests.runtime.loops import acted, at, loss_of, policy, small, train

NAN_SKIP = "reflex broken { when not finite(loss) or not finite(grad) do skip }\n"
ALWAYS = "grad >= 0"


@pytest.mark.parametrize("name", [*OPTIMIZERS, *STUBBORN])
def test_a_skipped_step_leaves_weights_and_optimizer_state_to_the_bit(name: str) -> None:
    model, optimizer = small((OPTIMIZERS | STUBBORN)[name])
    train(model, optimizer, range(3))
    guard = lbw.attach(
        optimizer, policy(NAN_SKIP, "limits { skip at most 3 in a row, at most 3 per 9 steps }"), model=model
    )
    before = weights(model), state(optimizer)

    train(model, optimizer, [3], guard, at([3], math.nan))
    running = {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}  # the forward pass moved these

    assert acted(guard, "skip") == [0]
    assert same({k: v for k, v in before[0].items() if k not in running},
                {k: v for k, v in weights(model).items() if k not in running})  # fmt: skip
    assert same(before[1], state(optimizer))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scaled_update_is_the_factor_times_the_unscaled_one(name: str) -> None:
    model, optimizer = small(OPTIMIZERS[name])
    twin, other = small(OPTIMIZERS[name])
    train(model, optimizer, range(3))
    train(twin, other, range(3))
    start = weights(model)
    guard = lbw.attach(optimizer, policy(f"reflex slow {{ when {ALWAYS} do scale_lr by 0.25 }}\n",
                                         "limits { scale_lr within [0.1, 1] }"), model=model)  # fmt: skip

    train(model, optimizer, [3], guard)
    train(twin, other, [3])

    for key, full in twin.named_parameters():
        expected = start[key] + 0.25 * (full.detach() - start[key])
        torch.testing.assert_close(dict(model.named_parameters())[key].detach(), expected, rtol=0, atol=1e-6)
    assert same(state(optimizer), state(other))
    assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in other.param_groups]


def test_a_rollback_restores_weights_buffers_and_state_to_the_bit() -> None:
    rules = """levels normal -> recover
    level recover { enter when loss > 1000  leave when loss < 1000  do rollback at most 20 steps }
    """
    model, optimizer = small()
    guard = lbw.attach(
        optimizer, policy(rules, "limits { rollback at most 20 steps back, at most 2 per 100 steps }"), model=model
    )
    seen = {}
    for step in range(40):
        train(model, optimizer, [step], guard, at([35], 1e6))
        seen[guard.progress] = weights(model), state(optimizer)
        if acted(guard, "rollback"):
            break
    record = guard.interventions[-1]
    expected = seen[int(record.granted or 0)]

    assert record.tick == 35
    assert 35 - 20 <= (record.granted or 0) <= 35
    assert same(expected[0], weights(model))
    assert same(expected[1], state(optimizer))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_clip_shortens_the_gradients_to_the_norm() -> None:
    model, optimizer = small(optim.SGD, lr=1.0)
    twin, other = small(optim.SGD, lr=1.0)
    guard = lbw.attach(optimizer, policy("reflex tall { when grad > 0.01 do clip to 0.01 }\n",
                                         "limits { clip at most 9 per 9 steps }"), model=model)  # fmt: skip
    start = weights(model)
    train(model, optimizer, [0], guard)
    moved = math.sqrt(sum(((p.detach() - start[k]) ** 2).sum().item() for k, p in model.named_parameters()))

    train(twin, other, [0])

    assert moved == pytest.approx(0.01, rel=1e-3)


def test_a_freeze_holds_the_chosen_layers_and_no_others() -> None:
    rules = f"""levels normal -> hold
    level hold {{ enter when {ALWAYS}  stay at most 5 steps  do freeze top 34% of layers by grad_norm }}
    """
    model, optimizer = small()
    limits = "limits { freeze at most 50% of layers, for at most 20 steps }"
    guard = lbw.attach(optimizer, policy(rules, limits), model=model)
    start = weights(model)
    train(model, optimizer, [0], guard)
    (record,) = guard.interventions
    held = {name for name, p in model.named_parameters() if torch.equal(p.detach(), start[name])}

    assert len(record.layers) == 1
    assert held == {name for name in start if name.startswith(record.layers[0] + ".")} - {"norm.running_mean"}
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_halt_raises_before_the_update_and_leaves_everything() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy("reflex stop { when loss > 100 do halt }\n", ""), model=model)
    train(model, optimizer, range(3), guard)
    before = weights(model)
    with pytest.raises(lbw.Halted, match="halted the run at tick 3: reflex stop") as caught:
        train(model, optimizer, [3], guard, at([3], 1e6))
    after = weights(model)

    assert caught.value.tick == 3
    assert all(torch.equal(before[name], after[name]) for name, _ in model.named_parameters())
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert train(model, optimizer, [4, 5], guard)[-1] < 100


# A run that needs nothing is left alone


@pytest.mark.parametrize(
    ("preset", "mode"), [("monitor", "act"), ("conservative", "act"), ("transformer_pretraining", "shadow")]
)
def test_a_healthy_run_is_the_same_to_the_bit_with_and_without_a_guard(preset: str, mode: str) -> None:
    model, optimizer = small(lr=1e-3)
    twin, other = small(lr=1e-3)
    guard = lbw.attach(optimizer, preset, model=model, mode=mode)

    assert train(model, optimizer, range(80), guard) == train(twin, other, range(80))
    assert same(weights(model), weights(twin))


def test_shadow_mode_records_what_it_would_do_and_changes_nothing() -> None:
    model, optimizer = small()
    twin, other = small()
    guard = lbw.attach(
        optimizer, policy("reflex spike { when loss > 100 do skip do scale_lr by 0.5 }\n"), model=model, mode="shadow"
    )
    spoil = at([5, 6], 1e4)

    assert train(model, optimizer, range(20), guard, spoil) == train(twin, other, range(20), spoil=spoil)
    assert acted(guard, "skip") == [5, 6]
    assert {record.mode for record in guard.interventions} == {"shadow"}
    assert guard.progress == 20


def test_schedulers_see_the_learning_rates_they_set() -> None:
    model, optimizer = small(lr=0.1)
    twin, other = small(lr=0.1)
    guard = lbw.attach(optimizer, policy(f"reflex slow {{ when {ALWAYS} do scale_lr by 0.1 }}\n"), model=model)
    rates = []
    for one, net in ((optimizer, model), (other, twin)):
        scheduler = optim.lr_scheduler.ExponentialLR(one, 0.9)
        for step in range(5):
            train(net, one, [step], guard if one is optimizer else None)
            scheduler.step()
        rates.append(scheduler.get_last_lr())

    assert rates[0] == rates[1]


# Ways to call a step


def test_a_closure_is_run_before_the_decision_and_its_loss_is_observed() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(NAN_SKIP), model=model)
    before = weights(model)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, 0) * math.nan
        loss.backward()
        return loss

    optimizer.step(closure)
    after = weights(model)

    assert acted(guard, "skip") == [0]
    assert all(torch.equal(before[name], after[name]) for name, _ in model.named_parameters())
    optimizer.step(closure=lambda: loss_of(model, 1))
    assert guard.tick == 2


def test_a_subclass_that_calls_its_parents_step_is_one_tick() -> None:
    class Child(optim.AdamW):
        def step(self, closure=None):  # noqa: ANN001, ANN202
            return super().step(closure)

    small()  # hooks AdamW itself too
    model, optimizer = small(Child)
    guard = lbw.attach(optimizer, policy(NAN_SKIP), model=model)
    train(model, optimizer, range(4), guard)

    assert guard.tick == 4


def test_a_step_that_raises_leaves_learning_rate_and_gradients() -> None:
    class Fragile(optim.SGD):
        broken = False

        def step(self, closure=None):  # noqa: ANN001, ANN202
            if self.broken:
                raise RuntimeError("cable")
            return super().step(closure)

    model, optimizer = small(Fragile, lr=0.5)
    guard = lbw.attach(optimizer, policy(f"reflex slow {{ when {ALWAYS} do scale_lr by 0.5 }}\n"), model=model)
    train(model, optimizer, range(2), guard)
    optimizer.broken = True
    with pytest.raises(RuntimeError, match="cable"):
        train(model, optimizer, [2], guard)
    optimizer.broken = False
    train(model, optimizer, [3], guard)

    assert optimizer.param_groups[0]["lr"] == 0.5
    assert guard.progress == 3


def test_a_wrapper_that_holds_an_optimizer_is_looked_through() -> None:
    class Wrapper:
        def __init__(self, optimizer: optim.Optimizer) -> None:
            self.optimizer = optimizer

    model, optimizer = small()
    guard = lbw.attach(Wrapper(optimizer), policy(NAN_SKIP), model=model)  # type: ignore[arg-type]
    train(model, optimizer, range(2), guard)

    assert guard.tick == 2


def test_a_fused_step_under_a_grad_scaler_sees_unscaled_norms() -> None:
    model, optimizer = small(fused=True)
    guard = lbw.attach(optimizer, policy('alert seen info when grad > 0 "{grad}"\n', ""), model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss = loss_of(model, 0)
    scaler.scale(loss).backward()
    norm = math.sqrt(sum((p.grad**2).sum().item() for p in model.parameters())) / 1024.0  # type: ignore[operator]
    scaler.step(optimizer)
    scaler.update()

    assert float(guard.interventions[0].reason.split()[-1]) == pytest.approx(norm, rel=1e-3)


# Fit


@pytest.mark.parametrize("name", STUBBORN)
def test_an_optimizer_whose_update_cannot_be_scaled_is_refused_at_once(name: str) -> None:
    model, optimizer = small(STUBBORN[name])

    with pytest.raises(lbw.AttachError, match="`scale_lr` cannot work: "):
        lbw.attach(optimizer, "conservative", model=model)
    assert lbw.attach(optimizer, "monitor", model=model).level == "normal"


def test_lbfgs_is_refused_by_every_policy_that_acts() -> None:
    model, optimizer = small(optim.LBFGS)

    with pytest.raises(lbw.AttachError, match="LBFGS"):
        lbw.attach(optimizer, policy(NAN_SKIP), model=model)


def test_every_reason_a_policy_does_not_fit_is_named() -> None:
    _, optimizer = small(STUBBORN["asgd"])

    with pytest.raises(lbw.AttachError) as caught:
        lbw.attach(optimizer, "transformer_pretraining")
    for words in (
        "signal `outliers` reads `telemetry.activation_outliers`, which needs `model=`",
        "ASGD",
        "`rollback`",
        "`freeze",
    ):
        assert words in str(caught.value)


def test_an_optimizer_is_guarded_once_at_a_time() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, "monitor", model=model)
    with pytest.raises(lbw.AttachError, match="guarded already"):
        lbw.attach(optimizer, "monitor", model=model)
    guard.detach()

    assert lbw.attach(optimizer, "monitor", model=model).tick == 0


def test_what_is_no_optimizer_or_mode_is_refused() -> None:
    model, optimizer = small()
    with pytest.raises(lbw.AttachError, match="expected a torch optimizer, found `Small`"):
        lbw.attach(model, "monitor")  # type: ignore[arg-type]
    with pytest.raises(lbw.AttachError, match="expected mode `act` or `shadow`, found `watch`"):
        lbw.attach(optimizer, "monitor", mode="watch")
    with pytest.raises(lbw.PolicyError, match="LBW001"):
        lbw.attach(optimizer, "monitr")


def test_observing_what_no_policy_reads_is_an_error_and_what_is_no_number_too() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(NAN_SKIP), model=model)

    with pytest.raises(ValueError, match="did you mean"):
        guard.observe(los=1.0)
    with pytest.raises(TypeError):
        guard.observe(loss="high")


def test_detaching_takes_everything_off() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, "transformer_pretraining", model=model)
    train(model, optimizer, range(3), guard)
    guard.detach()
    train(model, optimizer, range(3))

    assert guard.tick == 3
    assert not optimizer._optimizer_step_pre_hooks
    assert not any(module._forward_hooks for module in model.modules())


# Failures of the guard itself


def _break(guard: lbw.Guard) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    guard._parts.session.machine.decide = fail  # type: ignore[method-assign, assignment]


def test_a_failing_guard_lets_the_run_go_on_and_records_it() -> None:
    model, optimizer = small()
    twin, other = small()
    guard = lbw.attach(optimizer, policy(NAN_SKIP), model=model)
    _break(guard)

    assert train(model, optimizer, range(20), guard) == train(twin, other, range(20))
    assert {record.action for record in guard.interventions} == {"failure"}
    assert guard.interventions[0].reason == "ZeroDivisionError: a bug"
    assert len(guard.interventions) == 10
    assert guard.interventions[-1].reason.endswith("after 10 failures in a row the guard stops trying")


def test_a_failing_guard_halts_the_run_if_the_policy_says_so() -> None:
    model, optimizer = small()
    text = 'lbw 1\npolicy p { doc "" on failure halt }\nsignal loss = telemetry.loss\nalert a info when loss > 0 "x"\n'
    guard = lbw.attach(optimizer, lbw.load(text), model=model)
    _break(guard)

    with pytest.raises(lbw.Halted, match="the guard failed at tick 0: ZeroDivisionError: a bug"):
        train(model, optimizer, [0], guard)
    assert optimizer.param_groups[0]["lr"] == 0.01


FRAGILE = """lbw 1
policy p { doc "" on failure halt }
signal loss = telemetry.loss
reflex slow { when loss > 0 do scale_lr by 0.5 }
limits { scale_lr within [0.1, 1] }
"""


class FailingPlugins:
    """Plugin actions that fail after the guard has acted."""

    def act(self, *_: object) -> list[str]:
        return ["plugin `p` failed"]


def test_a_halt_for_a_plugins_failure_leaves_the_learning_rate_and_counts_the_tick() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, lbw.load(FRAGILE), model=model)
    guard._parts.plugged = FailingPlugins()  # type: ignore[assignment]
    before = weights(model)

    with pytest.raises(lbw.Halted, match="plugin `p` failed"):
        train(model, optimizer, [0], guard)
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert (guard.tick, guard.progress) == (1, 0)


def test_a_run_that_goes_on_after_a_halt_is_guarded_again() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, lbw.load(FRAGILE), model=model)
    decide = guard._parts.session.machine.decide
    _break(guard)
    with pytest.raises(lbw.Halted):
        train(model, optimizer, [0], guard)
    guard._parts.session.machine.decide = decide  # type: ignore[method-assign]
    train(model, optimizer, [1, 2], guard)

    assert (guard.tick, guard.progress) == (3, 2)
    assert acted(guard, "scale_lr") == [1]


def test_a_record_is_made_before_its_action() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy("reflex s { when loss > 0 do skip }\n"), model=model)
    seen: list[int] = []
    apply = guard._parts.effects.apply
    guard._parts.effects.apply = lambda grants: seen.append(len(guard.interventions)) or apply(grants)  # type: ignore[method-assign, func-returns-value]
    train(model, optimizer, [0], guard)

    assert seen == [1]


def test_a_signal_that_the_loop_never_tells_is_pointed_out() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(NAN_SKIP), model=model)
    for step in range(25):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()

    assert [r.reason for r in guard.interventions] == ["signal `loss` was never observed: call `guard.observe(...)`"]
