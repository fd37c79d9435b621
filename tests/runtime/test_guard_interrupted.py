"""Steps that are cut off, functions that fail, shadows that must not halt: found by the hostile runs, kept as facts."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import optim

import lbw_policy as lbw
from tests.actions.optimizers import same, weights
from tests.runtime.loops import acted, at, policy, small, train

SLOW = "reflex slow { when grad >= 0 do scale_lr by 0.5 }\n"
NAN_SKIP = "reflex broken { when not finite(loss) or not finite(grad) do skip }\n"
HALTING = """lbw 1
policy p { on failure halt }
signal loss = telemetry.loss
alert high info when loss > 0 "x"
"""


class Fragile(optim.SGD):
    """An optimizer whose own step can fail."""

    broken = False

    def step(self, closure: object = None) -> object:
        if self.broken:
            raise RuntimeError("cable")
        return super().step(closure)


def broken_off(rules: str = SLOW) -> tuple[torch.nn.Module, Fragile, lbw.Guard]:
    """Return a run whose third step has raised, after the guard had acted."""
    model, optimizer = small(Fragile, lr=0.5)
    assert isinstance(optimizer, Fragile)
    guard = lbw.attach(optimizer, policy(rules), model=model)
    train(model, optimizer, range(2), guard)
    optimizer.broken = True
    with pytest.raises(RuntimeError, match="cable"):
        train(model, optimizer, [2], guard)
    optimizer.broken = False
    return model, optimizer, guard


def failing(guard: lbw.Guard, error: type[BaseException]) -> None:
    def fail(*_: object) -> None:
        raise error

    guard._parts.session.machine.decide = fail  # type: ignore[method-assign, assignment]


def test_a_checkpoint_of_the_optimizer_after_a_step_that_raised_has_the_runs_own_learning_rate() -> None:
    _, optimizer, _ = broken_off()

    assert optimizer.state_dict()["param_groups"][0]["lr"] == 0.5


def test_a_guard_saved_after_a_step_that_raised_goes_on_with_the_next_tick() -> None:
    model, optimizer, guard = broken_off()
    state = json.loads(json.dumps(guard.state_dict()))
    guard.detach()
    resumed = lbw.attach(optimizer, policy(SLOW), model=model)
    resumed.load_state_dict(state)
    train(model, optimizer, [3], resumed)

    assert optimizer.param_groups[0]["lr"] == 0.5
    assert (resumed.tick, resumed.progress) == (4, 3)
    assert not [record for record in resumed.interventions if record.action == "failure"]


def test_telling_the_guard_something_ends_a_step_that_raised() -> None:
    _, optimizer, guard = broken_off()
    guard.observe(loss=1.0)

    assert optimizer.param_groups[0]["lr"] == 0.5
    assert guard.tick == 3


def test_a_state_dict_in_the_middle_of_a_step_gives_nothing_back_too_early() -> None:
    """A hook of the user's that saves the optimizer must not undo what the guard did to this very update."""
    model, optimizer = small(optim.SGD, lr=0.5)
    guard = lbw.attach(optimizer, policy(SLOW), model=model)
    used: list[float] = []
    optimizer.register_step_pre_hook(
        lambda opt, *_: used.append(opt.state_dict()["param_groups"][0]["lr"]) or used.append(opt.param_groups[0]["lr"])
    )
    train(model, optimizer, [0], guard)

    assert used == [0.25, 0.25]


def test_an_interrupt_from_the_keyboard_inside_the_guard_costs_one_tick_and_no_protection() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(NAN_SKIP), model=model)
    before = weights(model)
    decide = guard._parts.session.machine.decide
    failing(guard, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        train(model, optimizer, [0], guard)
    guard._parts.session.machine.decide = decide  # type: ignore[method-assign]
    train(model, optimizer, [1], guard, at([1], math.nan))

    assert guard.tick == 2
    assert acted(guard, "skip") == [1]
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())


def test_a_checkpoint_that_fails_does_not_let_the_update_through_that_was_to_be_skipped() -> None:
    def save() -> None:
        raise OSError("disk full")

    rules = "reflex broken { when not finite(loss) do checkpoint do skip }\n"
    limits = "limits { checkpoint at most 2 per 10 steps  skip at most 2 in a row, at most 3 per 9 steps }"
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(rules, limits), model=model, checkpoint=save)
    before = weights(model)
    train(model, optimizer, [0], guard, at([0], math.nan))

    assert acted(guard, "skip") == [0]
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    (failure,) = (record for record in guard.interventions if record.action == "failure")
    assert failure.reason == "the function for `checkpoint` failed: OSError: disk full"


def test_a_shadow_never_halts_a_run_not_even_if_it_fails_itself() -> None:
    model, optimizer = small()
    twin, other = small()
    guard = lbw.attach(optimizer, lbw.load(HALTING), model=model, mode="shadow")
    failing(guard, ZeroDivisionError)

    assert train(model, optimizer, range(3), guard) == train(twin, other, range(3))
    assert same(weights(model), weights(twin))
    assert [record.action for record in guard.interventions] == ["failure"] * 3


RECOVER = """levels normal -> recover
level recover { enter when loss > 1000  leave when loss < 1000  stay at most 2 steps  do rollback at most 20 steps }
"""
BACK = "limits { rollback at most 20 steps back, at most 9 per 100 steps }"


@pytest.mark.parametrize("switch", ["in place", "by a state"])
def test_a_shadow_that_begins_to_act_offers_no_snapshot_it_never_took(switch: str) -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(RECOVER, BACK), model=model, mode="shadow")
    train(model, optimizer, range(30), guard)
    if switch == "in place":
        guard.mode = "act"
    else:
        state = guard.state_dict(snapshots=True)
        guard.detach()
        guard = lbw.attach(optimizer, policy(RECOVER, BACK), model=model)
        guard.load_state_dict(state)
    before = weights(model)
    train(model, optimizer, [30], guard, at([30], 1e6))
    (record,) = guard.interventions

    assert (record.action, record.outcome) == ("rollback", "refused")
    assert "no healthy snapshot" in record.reason
    assert not same(before, weights(model))  # guarded, and with nothing to go back to


def test_a_mode_that_is_none_is_refused() -> None:
    _, optimizer = small()
    guard = lbw.attach(optimizer, "monitor")

    with pytest.raises(ValueError, match="expected mode `act` or `shadow`, found `off`"):
        guard.mode = "off"


HOLDING = """levels normal -> hold
level hold { enter when loss > 100  stay at most 9 steps  do freeze top 34% of layers by grad_norm }
"""
HELD = "limits { freeze at most 50% of layers, for at most 20 steps }"


def test_a_resumed_freeze_holds_the_layers_it_held() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(HOLDING, HELD), model=model)
    train(model, optimizer, [0], guard, at([0], 1e6))
    ((frozen,),) = (record.layers for record in guard.interventions)
    state = json.loads(json.dumps(guard.state_dict()))
    guard.detach()
    resumed = lbw.attach(optimizer, policy(HOLDING, HELD), model=model)
    resumed.load_state_dict(state)
    before = weights(model)
    for parameter in model.get_submodule(frozen).parameters():
        parameter.register_hook(lambda gradient: gradient * 0)  # so another layer would be chosen now
    train(model, optimizer, [1], resumed)
    held = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}

    assert held == {name for name, _ in model.named_parameters() if name.startswith(frozen + ".")}


@pytest.mark.parametrize("frozen", [["nowhere"], [1], ["first", "first"], ["first", "last"]])
def test_a_state_that_freezes_what_is_no_layer_is_refused(frozen: object) -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(HOLDING, HELD), model=model)

    with pytest.raises(lbw.StateError, match="layers to be frozen, at most 50%"):
        guard.load_state_dict({**guard.state_dict(), "frozen": frozen})


def test_a_resumed_guard_is_patient_before_it_calls_a_signal_never_observed() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(NAN_SKIP), model=model)
    train(model, optimizer, range(30), guard)
    state = guard.state_dict()
    guard.detach()
    resumed = lbw.attach(optimizer, policy(NAN_SKIP), model=model)
    resumed.load_state_dict(state)
    train(model, optimizer, [30])  # a step whose loss was not told
    train(model, optimizer, range(31, 60), resumed)

    assert resumed.interventions == ()
