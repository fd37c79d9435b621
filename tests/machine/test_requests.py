"""What one tick asks for, where several rules speak: which counts, for how long, and under whose name."""

from __future__ import annotations

import math

import pytest
from attrs import evolve

from lbw_policy.limits import Request
from lbw_policy.machine import Session
from lbw_policy.semantics.ceilings import SCALE_FLOOR
from lbw_policy.semantics.expressions import Constant
from lbw_policy.semantics.policy import Custom
from tests.machine.sessions import LIMITS, NAN, amounts, decide, requests, session, tick, turns

LEVEL = """
levels normal -> caution
level caution {{ enter when loss > 5  leave when loss < 2 {hold}  {body} }}
"""
TWO = """
levels normal -> caution -> defend
level caution {{ enter when loss > 5   leave when loss < 2  {caution} }}
level defend  {{ enter when loss > 50  leave when loss < 20  {defend} }}
"""
CLIPS = ("reflex a { when loss > 5 do clip to 2 }\n", "reflex b { when loss > 5 do clip to 1 }\n")
NOT_READY = "reflex c { when loss > 5 do clip to median(grad, 128 steps) }\n"


def level(body: str, hold: str = "") -> str:
    return LEVEL.format(body=body, hold=hold)


# Reflexes


@pytest.mark.parametrize("rules", [CLIPS, CLIPS[::-1], (*CLIPS, NOT_READY), (NOT_READY, *CLIPS), CLIPS[1:]])
def test_the_least_norm_counts_and_one_that_is_not_ready_does_not(rules: tuple[str, ...]) -> None:
    assert amounts(turns(session("".join(rules)), [9.0]), "clip") == [1.0]


def test_a_norm_that_is_not_ready_and_alone_is_asked_for_without_an_amount() -> None:
    (turn,) = turns(session(NOT_READY), [9.0])

    assert requests(turn)["clip"].amount is None


def test_the_greatest_share_counts_with_its_statistic_and_its_group() -> None:
    rules = """layers experts = "e*"
    levels normal -> caution -> defend
    level caution { enter when loss > 5  leave when loss < 2  do freeze top 10% of layers by grad_norm }
    level defend { enter when loss > 50  leave when loss < 20
      do freeze top 20% of experts by activation_variance }
    """
    found = turns(session(rules), [9.0, 99.0])

    assert amounts(found, "freeze") == [0.1, 0.2]
    assert (requests(found[1])["freeze"].by, requests(found[1])["freeze"].group) == ("activation_variance", "experts")
    assert [requests(turn)["freeze"].rule for turn in found] == ["level caution", "level defend"]


@pytest.mark.parametrize("action", ["freeze top 10% of layers by grad_norm", "clip to 2"])
def test_of_equal_shares_and_of_equal_norms_the_first_rule_speaks(action: str) -> None:
    other = action.replace("grad_norm", "update_ratio")
    rules = f"reflex a {{ when loss > 5 do {action} }} reflex b {{ when loss > 5 do {other} }}"
    (turn,) = turns(session(rules), [9.0])

    (asked,) = requests(turn).values()
    assert (asked.rule, asked.by) == ("reflex a", "grad_norm" if "freeze" in action else "")


def test_the_first_rule_speaks_for_a_rollback() -> None:
    rules = "reflex a { when loss > 5 do rollback at most 7 steps }\n"
    rules += "reflex b { when loss > 5 do rollback at most 9 steps }\n"
    (turn,) = turns(session(rules), [9.0])

    assert (requests(turn)["rollback"].amount, requests(turn)["rollback"].rule) == (7.0, "reflex a")


def test_the_first_rule_speaks_for_a_skip() -> None:
    (turn,) = turns(session("reflex a { when loss > 5 do skip }\nreflex b { when loss > 3 do skip }\n"), [9.0])

    assert requests(turn)["skip"].rule == "reflex a"


def test_factors_of_reflexes_and_levels_multiply() -> None:
    rules = "reflex a { when loss > 5 do scale_lr by 0.5 }\nreflex b { when loss > 5 do scale_lr by 0.8 }\n"
    found = turns(session(rules + level("do scale_lr by 0.1")), [9.0, 3.0, 6.0])

    assert amounts(found, "scale_lr") == pytest.approx([0.04, 0.1, 0.04])


def test_a_factor_that_is_not_ready_is_no_number_from_a_reflex_and_the_floor_from_a_level() -> None:
    ratio = "scale_lr by 1 / zscore(loss, 128 steps)"
    (reflex,) = turns(session(f"reflex a {{ when loss > 5 do {ratio} }}\n"), [9.0])
    (held,) = turns(session(level(f"do {ratio}")), [9.0])

    assert math.isnan(requests(reflex)["scale_lr"].amount or 0.0)
    assert [grant.amount for grant in reflex.grants] == [0.01]
    assert requests(held)["scale_lr"].amount == SCALE_FLOOR


# Levels


def test_a_level_does_its_actions_once_and_holds_a_clip_a_freeze_and_a_factor() -> None:
    body = "do skip do reset_moments do clip to 0.5 do scale_lr by 0.5 do freeze top 10% of layers by grad_norm"
    found = turns(session(level(body)), [9.0, 9.0, 3.0, 1.0, 1.0])
    lasting = {"clip", "scale_lr", "freeze"}

    assert [set(requests(turn)) for turn in found] == [
        lasting | {"skip", "reset_moments"}, lasting, lasting, {"scale_lr"}, set(),
    ]  # fmt: skip
    assert amounts(found, "scale_lr") == [0.5, 0.5, 0.5, 0.5, None]


def test_a_factor_that_comes_back_is_asked_for_until_it_is_back() -> None:
    found = turns(session(level("do scale_lr by 0.6 restore over 4 steps")), [9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])

    assert amounts(found, "scale_lr")[:5] == pytest.approx([0.6, 0.6, 0.7, 0.8, 0.9])
    assert amounts(found, "scale_lr")[6] is None


def test_a_level_entered_again_scales_from_the_whole_learning_rate() -> None:
    found = turns(session(level("do scale_lr by 0.5 restore over 10 steps")), [9.0, 1.0, 1.0, 9.0])

    assert amounts(found, "scale_lr") == pytest.approx([0.5, 0.5, 0.55, 0.5])


def test_a_periodic_action_is_done_every_so_many_steps_in_the_level_and_not_on_entry() -> None:
    found = turns(session(level("each 2 steps do scale_lr by 0.5 each 3 steps do skip")), [9.0] * 7)

    assert amounts(found, "scale_lr") == pytest.approx([None, None, 0.5, 0.5, 0.25, 0.25, 0.125])
    assert [place for place, turn in enumerate(found) if "skip" in requests(turn)] == [3, 6]


def test_a_level_that_is_held_under_a_higher_one_goes_on_with_what_lasts() -> None:
    rules = TWO.format(
        caution="do clip to 0.5  each 2 steps do skip", defend="do freeze top 10% of layers by grad_norm"
    )
    found = turns(session(rules), [9.0, 99.0, 99.0, 9.0, 3.0, 3.0, 1.0])
    both = {"clip", "freeze"}

    assert [set(requests(turn)) for turn in found] == [{"clip"}, both, both, {"clip"}, {"clip"}, {"clip"}, set()]


def test_a_level_reached_from_above_does_nothing_until_its_own_trigger_fires() -> None:
    rules = TWO.format(caution="do clip to 0.5  do skip  each 1 steps do checkpoint", defend="do skip")
    found = turns(session(rules), [99.0, 3.0, 3.0, 9.0, 3.0])

    assert [set(requests(turn)) for turn in found] == [{"skip"}, set(), set(), {"clip", "skip"}, {"clip", "checkpoint"}]


def test_requests_bear_the_name_of_the_rule_that_made_them() -> None:
    rules = '@id("calm-down") reflex a { when loss > 5 do skip }\n' + level("do scale_lr by 0.5  do clip to 0.5")
    (turn,) = turns(session(rules), [9.0])

    assert {name: request.rule for name, request in requests(turn).items()} == {
        "skip": "calm-down", "scale_lr": "level caution", "clip": "level caution",
    }  # fmt: skip


def test_what_stands_in_for_a_refused_factor_bears_the_name_of_its_level() -> None:
    run = session(level("do scale_lr by 0.5 else clip to 0.5"), limits=LIMITS.replace("1_000 per 1_000", "1 per 1_000"))
    run.limiter._budgets["intervene"].spend(0)
    (turn,) = turns(run, [9.0])

    assert [(grant.request.action, grant.request.rule) for grant in turn.grants] == [
        ("scale_lr", "level caution"), ("clip", "level caution"),
    ]  # fmt: skip


def test_a_plugins_action_is_asked_for_once_with_the_first_rules_amount() -> None:
    plain = session("reflex a { when loss > 5 do skip }").policy
    (reflex,) = plain.reflexes
    boost, nudge = Custom("boost", Constant(2.0)), Custom("nudge", None)
    reflexes = (
        evolve(reflex, actions=(boost, nudge)),
        evolve(reflex, name="b", actions=(Custom("boost", Constant(3.0)),)),
    )
    (turn,) = turns(Session(evolve(plain, reflexes=reflexes)), [9.0])

    assert requests(turn) == {"boost": Request("boost", "reflex a", 2.0), "nudge": Request("nudge", "reflex a", None)}


# What the machine makes of the truth


def test_a_reflex_fires_on_what_is_unknown_and_not_on_what_is_not_ready() -> None:
    rules = "reflex a { when loss > 5 do skip }\nreflex b { when loss > median(loss, 128 steps) do clip to 1 }\n"
    found = turns(session(rules), [1.0, NAN, math.inf, 9.0])

    assert [turn.decision.fired for turn in found] == [(), ("a",), ("a",), ("a",)]


def test_suspicious_samples_are_kept_from_the_baselines_for_so_many_ticks_in_a_row() -> None:
    run = session("reflex a { when loss > 5 do skip }\n", settings="quarantine at most 3 steps")
    found = turns(run, [1.0, 9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 9.0])

    assert [int(turn.decision.quarantined) for turn in found] == [0, 1, 1, 1, 0, 0, 0, 1]


def test_a_tick_in_a_level_and_the_one_that_leaves_it_are_quarantined() -> None:
    found = turns(session(level("do skip")), [1.0, 9.0, 3.0, 1.0, 1.0])

    assert [turn.decision.quarantined for turn in found] == [False, True, True, True, False]


def test_what_is_quarantined_teaches_no_baseline() -> None:
    rules = "reflex a { when loss > 5 do skip }\nreflex b { when loss > 2 * max(loss, 4 steps) do clip to 0.5 }\n"
    run = session(rules, settings="quarantine at most 2 steps")
    found = turns(run, [1.0, 1.0, 1.0, 1.0, 9.0, 4.0, 9.0, 9.0, 9.0, 4.0])

    assert [turn.decision.fired for turn in found[4:]] == [("a", "b"), ("b",), ("a", "b"), ("a",), ("a",), ()]


def test_an_alert_speaks_when_it_begins_to_hold() -> None:
    run = session('alert hot warning when loss > 5 for 2 of 3 steps "{loss} is hot"\n')
    found = turns(run, [9.0, 1.0, 1.0, 9.0, 9.0, 9.0, 1.0, 1.0, 9.0, 1.0, 9.0])

    assert [place for place, turn in enumerate(found) if turn.decision.messages] == [4, 10]
    assert found[4].decision.messages[0].text == "9 is hot"


def test_a_tick_that_is_decided_and_not_ended_asks_the_same_of_the_next() -> None:
    run = session(level("do scale_lr by 0.5"))
    decide(run, 9.0)
    run.finish(applied=False)
    turn, _ = tick(run, 3.0)

    assert requests(turn)["scale_lr"].amount == 0.5
