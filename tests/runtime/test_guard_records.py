"""What a guard records, and how it resumes: the same decisions, each with its reason."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import lbw_policy as lbw
from tests.actions.optimizers import weights
from tests.runtime.loops import acted, at, policy, small, train

NAN_SKIP = "reflex broken { when not finite(loss) or not finite(grad) do skip }\n"
ALWAYS = "grad >= 0"


BUSY = """
reflex broken { when not finite(loss) or not finite(grad)     do skip }
reflex spike  { when grad > 4 * median(grad, 16 steps)        do skip }
reflex tall   { when grad > 1.2 * median(grad, 16 steps)      do clip to median(grad, 16 steps) }
levels normal -> caution -> recover
level caution {
  enter when zscore(loss, 16 steps) > 2  leave when zscore(loss, 16 steps) < 1 for 3 steps
  stay at most 9 steps  do scale_lr by 0.5 restore over 4 steps
}
level recover {
  enter when loss > 50  leave when loss < 50 for 2 steps
  stay at most 9 steps  do rollback at most 20 steps
}
"""
TROUBLE = {20: 1e3, 31: math.nan, 44: 1e5, 45: 1e5, 46: math.inf}


def spoil(loss: torch.Tensor, step: int) -> torch.Tensor:
    return loss * TROUBLE.get(step, 1.0)


def test_the_same_run_gives_the_same_decisions_and_weights() -> None:
    runs = []
    for _ in range(2):
        model, optimizer = small()
        guard = lbw.attach(optimizer, policy(BUSY), model=model)
        losses = train(model, optimizer, range(60), guard, spoil)
        runs.append((repr(losses), repr(guard.interventions), {k: v.tolist() for k, v in weights(model).items()}))

    assert runs[0] == runs[1]
    assert acted(guard, "rollback")
    assert acted(guard, "skip")
    assert acted(guard, "clip")
    assert acted(guard, "scale_lr")


@pytest.mark.parametrize("cut", [10, 33, 45])
def test_a_resumed_guard_decides_as_if_it_had_never_stopped(cut: int) -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(BUSY), model=model)
    train(model, optimizer, range(cut), guard, spoil)
    plain = json.loads(json.dumps(guard.state_dict()))
    whole = guard.state_dict(snapshots=True)
    kept = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    twin, other = small()
    twin.load_state_dict(kept[0])
    other.load_state_dict(kept[1])
    resumed = lbw.attach(other, policy(BUSY), model=twin)
    resumed.load_state_dict(whole)

    assert plain["policy"] == guard.policy.digest
    assert repr(train(twin, other, range(cut, 60), resumed, spoil)) == repr(
        train(model, optimizer, range(cut, 60), guard, spoil)
    )
    assert repr(resumed.interventions) == repr(guard.interventions)


def test_a_state_of_another_policy_or_a_damaged_one_is_refused_and_changes_nothing() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(BUSY), model=model)
    train(model, optimizer, range(12), guard)
    state_before = json.dumps(guard.state_dict())
    good = json.loads(state_before)

    for damage in (
        {"policy": "0"},
        {"version": 1},
        {"limiter": {}},
        {"machine": None},
        {"tick": -1},
        {"ledger": {"records": [1], "counts": []}},
    ):
        with pytest.raises(lbw.StateError):
            guard.load_state_dict({**good, **damage})
        assert json.dumps(guard.state_dict()) == state_before


def test_a_record_says_which_rule_where_on_what_evidence_and_what_is_left(tmp_path: Path) -> None:
    from tests.runtime.loops import HEAD, LIMITS

    path = tmp_path / "mine.lbw"
    path.write_text(HEAD + "\nreflex spike { when loss > 100 do skip }\n" + LIMITS, encoding="utf-8")
    model, optimizer = small()
    guard = lbw.attach(optimizer, path, model=model)
    train(model, optimizer, range(3), guard, at([2], 1e6))
    (record,) = guard.interventions

    assert (record.tick, record.rule, record.place) == (2, "reflex spike", f"{path}:6")
    assert record.policy == guard.policy.digest
    assert record.evidence[0].startswith("loss = ")
    assert record.evidence[0].endswith(" > 100")
    assert record.left == 9
    assert record.values["loss"] == pytest.approx(float(record.evidence[0].split()[2]), rel=1e-4)
    assert json.dumps(record.as_dict())


def test_the_summary_counts_what_was_done() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(BUSY), model=model)
    train(model, optimizer, range(60), guard, spoil)
    text = str(guard.summary())

    assert "60 ticks" in text
    assert "rollback: " in text
    assert guard.summary().as_dict()["ticks"] == 60


def test_a_refusal_that_lasts_is_recorded_once() -> None:
    model, optimizer = small()
    guard = lbw.attach(
        optimizer,
        policy("reflex s { when grad >= 0 do skip }\n", "limits { skip at most 2 in a row, at most 2 per 100 steps }"),
        model=model,
    )
    train(model, optimizer, range(20), guard)
    refused = [record for record in guard.interventions if record.outcome == "refused"]

    assert [record.tick for record in refused] == [2, 3]  # first the row, then the budget
    assert guard.progress == 18


def test_compiled_models_and_steps_keep_working() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(NAN_SKIP), model=model)
    fast = torch.compile(model, backend="eager")
    assert isinstance(fast, nn.Module)
    train(fast, optimizer, range(3), guard, at([1], math.nan))

    assert acted(guard, "skip") == [1]
