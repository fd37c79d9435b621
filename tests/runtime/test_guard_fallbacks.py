"""What a guard does instead of what its limits refuse, and what it writes down about it."""

from __future__ import annotations

import json
import math

import pytest
import torch
from attrs import evolve
from torch import optim

import lbw_policy as lbw
from lbw_policy.limits import Grant, Outcome, Request
from lbw_policy.record import Intervention, Ledger
from lbw_policy.runtime.effects import Effects, Given
from lbw_policy.telemetry import Layers
from tests.runtime.loops import LIMITS, Small, acted, at, policy, small, train

RESETTING = LIMITS.replace("intervene", "reset_moments at most 2 per 100 steps\n  intervene")


def test_a_guard_that_halts_instead_says_what_was_refused_and_why() -> None:
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy("reflex broken { when not finite(loss) do skip else halt }\n"), model=model)

    with pytest.raises(lbw.Halted, match="reflex broken, because skip was refused: 3 updates in a row were skipped"):
        train(model, optimizer, range(9), guard, at(range(2, 9), math.nan))

    assert acted(guard, "skip") == [2, 3, 4]
    refused, halted = guard.interventions[-2:]
    assert (refused.action, refused.outcome, refused.fallback, refused.instead) == (
        "skip",
        "refused",
        "halt",
        "halt instead",
    )
    assert (halted.action, halted.tick, halted.fallback, halted.instead) == ("halt", 5, "", "")


def test_the_summary_counts_what_was_asked_for_instead() -> None:
    model, optimizer = small()
    rules = """
    reflex broken { when not finite(loss) do skip else checkpoint }
    reflex high { when loss > 100 do rollback at most 20 steps }  # which a loss of NaN fires too
    """
    limits = LIMITS.replace("intervene", "checkpoint at most 5 per 100 steps\n  intervene")
    saves: list[int] = []
    guard = lbw.attach(optimizer, policy(rules, limits), model=model, checkpoint=lambda: saves.append(guard.tick))
    train(model, optimizer, range(7), guard, at(range(2, 7), math.nan))
    summary = guard.summary()

    assert saves == [5]
    assert summary.fallbacks["skip"] == {"checkpoint": 1}
    assert "skip: 3 granted, 1 refused (1 with checkpoint instead)" in str(summary)
    assert summary.fallbacks["rollback"] == {"": 1}
    assert "rollback: 1 granted, 1 refused (1 with nothing instead)" in str(summary)
    assert json.dumps(summary.as_dict())


def test_what_the_optimizer_cannot_do_now_has_its_fallback() -> None:
    model, optimizer = small(optim.SGD, momentum=0.9, fused=True)
    rules = "reflex r { when grad >= 0 do freeze top 50% of layers by grad_norm else scale_lr by 0.5 }\n"
    guard = lbw.attach(optimizer, policy(rules), model=model)
    train(model, optimizer, range(3), guard)

    assert guard.interventions[0].reason.startswith("fused SGD cannot leave a layer out")
    assert (acted(guard, "scale_lr"), acted(guard, "freeze")) == ([0], [1])


def test_a_guard_resumed_while_a_level_holds_what_it_fell_back_to_goes_on_with_it() -> None:
    rules = """
    levels normal -> high
    level high { enter when loss > 100  leave when loss < 100 for 9 steps
                 do rollback at most 20 steps else scale_lr by 0.5 restore over 4 steps }
    """
    model, optimizer = small()
    guard = lbw.attach(optimizer, policy(rules), model=model)
    train(model, optimizer, range(4), guard, at([1], 1e6))
    state = json.loads(json.dumps(guard.state_dict()))
    twin, other = small()
    resumed = lbw.attach(other, policy(rules), model=twin)
    resumed.load_state_dict(state)

    assert resumed.state_dict() == guard.state_dict()
    assert acted(guard, "scale_lr") == [1]
    for each, made, by in ((model, optimizer, guard), (twin, other, resumed)):
        train(each, made, range(4, 20), by)
    assert [r.tick for r in resumed.interventions] == [r.tick for r in guard.interventions]
    assert resumed.state_dict()["session"]["limiter"] == guard.state_dict()["session"]["limiter"]


def test_a_rollback_that_is_answered_last_does_not_bring_back_the_moments_that_were_reset() -> None:
    model, optimizer = small()
    rules = """
    reflex one { when loss > 100 do reset_moments }
    reflex two { when loss > 100 do freeze top 0% of layers by grad_norm else rollback at most 20 steps }
    """
    guard = lbw.attach(optimizer, policy(rules, RESETTING), model=model)
    train(model, optimizer, range(30), guard)
    assert optimizer.state
    train(model, optimizer, [30], guard, at([30], 1e6))

    assert acted(guard, "rollback") == acted(guard, "reset_moments") == [30]
    assert not optimizer.state


def test_the_order_of_the_grants_does_not_matter_for_a_rollback() -> None:
    model = Small()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    effects = Effects(optimizer, Layers.of(optimizer, model), Given())
    done: list[str] = []
    effects._restore = lambda progress: done.append("rollback")  # type: ignore[method-assign] # only the order counts
    effects._gradients.drop = lambda *_: done.append("skip")  # type: ignore[method-assign]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    grants = [Grant(Request(name, "r"), Outcome.GRANTED, 0.0) for name in ("skip", "rollback")]

    assert effects.apply(grants) is False
    assert done == ["rollback", "skip"]


# Records


def test_a_record_of_before_fallbacks_loads_and_a_ledger_without_their_counts_is_refused() -> None:
    ledger = Ledger()
    ledger.add(evolve(NOTE, outcome="refused", fallback="halt"))
    state = json.loads(json.dumps(ledger.state_dict()))
    again = Ledger()
    again.load_state_dict(state)
    assert again == ledger
    assert again.fallbacks == {("skip", "halt"): 1}

    del state["records"][0]["fallback"]
    again.load_state_dict(state)
    assert again.records[0].instead == "nothing instead"
    del state["fallbacks"]
    with pytest.raises(lbw.StateError, match="fallbacks"):
        again.load_state_dict(state)


NOTE = Intervention(3, 3, "normal", "reflex r", "p.lbw:1", "0", "skip", "granted")


@pytest.mark.parametrize(("outcome", "words"), [("granted", ""), ("reduced", ""), ("refused", "nothing instead")])
def test_only_a_refusal_says_what_was_done_instead(outcome: str, words: str) -> None:
    assert evolve(NOTE, outcome=outcome).instead == words
