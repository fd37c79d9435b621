"""Checkpoints, moment resets, layer groups, notes, requirements and counted acts, on real optimizers."""

from __future__ import annotations

import math
from typing import Literal

import pytest

import lbw_policy as lbw
from tests.actions.optimizers import OPTIMIZERS, same, weights
from tests.runtime.loops import acted, at, policy, small, train

NAN_SKIP = "reflex broken { when not finite(loss) or not finite(grad) do skip }\n"
ALWAYS = "grad >= 0"
REASON = "the function for `checkpoint` failed: OSError: disk full"


def test_a_checkpoint_calls_the_users_function_within_its_budget() -> None:
    calls: list[int] = []
    model, optimizer = small()
    text = policy("reflex save { when grad >= 0 do checkpoint }\n", "limits { checkpoint at most 2 per 10 steps }")
    guard = lbw.attach(optimizer, text, model=model, checkpoint=lambda: calls.append(1))
    train(model, optimizer, range(15), guard)

    assert acted(guard, "checkpoint") == [0, 1, 10, 11]
    assert len(calls) == 4


def test_a_policy_that_checkpoints_needs_a_function() -> None:
    model, optimizer = small()
    text = policy("reflex save { when grad >= 0 do checkpoint }\n", "limits { checkpoint at most 2 per 10 steps }")

    with pytest.raises(lbw.AttachError, match="needs `checkpoint=`"):
        lbw.attach(optimizer, text, model=model)


@pytest.mark.parametrize("breaks", [False, True])
def test_a_run_is_checkpointed_before_it_is_halted_and_halts_even_if_that_fails(breaks: bool) -> None:
    saved: list[int] = []

    def save() -> None:
        saved.append(1)
        if breaks:
            raise OSError("disk full")

    model, optimizer = small()
    rules = "reflex stop { when loss > 100 do checkpoint do halt }\n"
    guard = lbw.attach(
        optimizer, policy(rules, "limits { checkpoint at most 2 per 10 steps }"), model=model, checkpoint=save
    )
    with pytest.raises(lbw.Halted, match="reflex stop"):
        train(model, optimizer, range(3), guard, at([1], 1e6))

    assert saved == [1]
    assert [r.reason for r in guard.interventions if r.action == "failure"] == [REASON] * breaks


@pytest.mark.parametrize("name", ["sgd momentum", "adamw single", "adamw fused", "nadam", "adagrad", "adafactor"])
def test_after_a_moment_reset_the_next_step_is_a_first_step(name: str) -> None:
    model, optimizer = small(OPTIMIZERS[name])
    rules = "reflex anew { when loss > 100 do reset_moments }\n"
    guard = lbw.attach(optimizer, policy(rules, "limits { reset_moments at most 1 per 100 steps }"), model=model)
    train(model, optimizer, range(5), guard)
    twin, fresh = small(OPTIMIZERS[name])
    twin.load_state_dict(model.state_dict())
    train(model, optimizer, [5], guard, at([5], 1e4))
    train(twin, fresh, [5], None, at([5], 1e4))

    assert acted(guard, "reset_moments") == [5]
    assert same(weights(model), weights(twin))


def test_a_freeze_of_a_group_stays_inside_the_group() -> None:
    rules = f"""layers ends = "first", "last" except "first"
    levels normal -> hold
    level hold {{ enter when {ALWAYS}  stay at most 5 steps  do freeze top 34% of ends by grad_norm }}
    """
    limits = "limits { freeze at most 50% of layers, for at most 20 steps }"
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(rules, limits), model=model)
    train(model, optimizer, [0], guard)

    assert guard.interventions[0].layers == ("last",)


def test_a_glob_that_matches_no_layer_is_an_error() -> None:
    rules = 'layers experts = "*.experts.*"\nreflex a { when loss > 9 do skip }\n'
    model, optimizer = small()

    with pytest.raises(lbw.AttachError, match=r"layer group `experts`: `\*\.experts\.\*` matches no layer"):
        lbw.attach(optimizer, policy(rules), model=model)


def test_notes_name_the_rule_and_give_the_reason_in_the_record() -> None:
    rules = '@id("nan-guard") @why("one NaN kills the moments")\n' + NAN_SKIP
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(rules), model=model)
    train(model, optimizer, range(2), guard, at([1], math.nan))
    (record,) = guard.interventions

    assert (record.rule, record.why) == ("nan-guard", "one NaN kills the moments")
    assert record.evidence == ("finite(loss = nan)", "finite(grad = nan)")
    assert record.place.endswith(":6")


def test_a_requirement_alerts_or_acts_where_it_does_not_hold() -> None:
    rules = "require loss < 100 else alert\nrequire loss < 100 else do skip\n"
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(rules), model=model)
    train(model, optimizer, range(3), guard, at([1], math.nan))

    assert acted(guard, "skip") == [1]
    assert [r.reason for r in guard.interventions if r.action == "alert"] == ["require_1: required: loss < 100"]


def test_the_guards_own_actions_can_be_counted() -> None:
    rules = 'reflex s { when loss > 100 do skip }\nalert busy warning when rate(skips, 10 steps) > 2 "busy: {skips}"\n'
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(rules), model=model)
    train(model, optimizer, range(12), guard, at([3, 5, 7], 1e4))

    assert [r.tick for r in guard.interventions if r.action == "alert"] == [8]


@pytest.mark.parametrize("tier", ["host", "device"])
@pytest.mark.parametrize("settles", [True, False])
def test_a_run_goes_back_to_where_it_was_inside_a_level_that_has_settled(
    settles: bool, tier: Literal["host", "device"]
) -> None:
    """A level that never settles leaves a run that is held in it without a snapshot in reach."""
    clause = "settles after 10 steps" if settles else ""
    rules = f"""levels normal -> slow -> recover
    level slow {{ enter when grad >= 0  do scale_lr by 0.5  {clause}  stay at most 999 steps }}
    level recover {{ enter when loss > 1000  leave when loss < 1000  do rollback at most 20 steps }}
    """
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(rules), model=model, tier=tier)
    seen = {}
    for step in range(48):
        train(model, optimizer, [step], guard, at([45], 1e6))
        if acted(guard, "rollback"):
            break
        seen[step + 1] = weights(model)
    guard.catch_up()
    (back,) = (record for record in guard.interventions if record.action == "rollback")

    assert back.outcome == ("granted" if settles else "refused")
    if settles:
        assert 25 <= int(back.granted or 0) <= 45
        assert same(weights(model), seen[int(back.granted or 0)])
