"""The authority card: what it says, to people and to machines, and what it calls proved."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from hypothesis import given, settings

from lbw_policy.authority import card
from lbw_policy.claims import Result, Status
from lbw_policy.cli.proofs import Proof
from lbw_policy.resources import presets
from lbw_policy.semantics import load
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Constant
from lbw_policy.verify.proving import promises
from tests.authority.controlled import controlled, only


def test_what_is_proved_makes_a_line_proved_and_nothing_else_does() -> None:
    policy = load("conservative")
    status = {line.what: line.status for line in card(policy, {"limits_hold: scale_lr": 0.1}).lines}
    assert {what for what, known in status.items() if known == "proved"} == {"lowest lr factor"}
    assert status["away from `normal`"] == "not bounded"
    assert set(status.values()) == {"proved", "tested", "not bounded"}


def test_of_a_count_every_promise_it_rests_on_must_be_proved() -> None:
    some = {"limits_hold: skip": 40.0, "limits_hold: skip in a row": 16.0}
    for known, status in ((some, "tested"), (some | {"limits_hold: intervene": 200.0}, "proved")):
        (line,) = (line for line in card(load("conservative"), known).lines if line.what == "updates skipped")
        assert line.status == status


def test_a_line_is_never_said_to_be_proved_beyond_what_is() -> None:
    policy = load("conservative")
    known = {"calm_returns": 50.0, "oscillation_bounded": 2.0, "dwell_bounded": 50_000.0}
    found = {line.what: (line.value, line.status) for line in card(policy, known).lines}
    assert found["back to `normal`"] == (50, "proved")
    assert found["same level again"] == (2, "proved")
    assert found["in one level"] == (50_000, "proved")


def whole(policy: p.Policy) -> dict[str, float | None]:
    """Return the bounds of a policy's promises as if all were proved."""
    results = tuple(Result(one.claim, Status.PROVED) for one in promises(policy))
    return dict(Proof("p", policy, results, (), None).proved)


@settings(max_examples=60, deadline=None)
@given(controlled())
def test_the_card_says_the_same_before_and_after_a_proof(policy: p.Policy) -> None:
    before, after = card(policy).lines, card(policy, whole(policy)).lines
    assert [(line.what, line.value, line.words) for line in before] == [
        (line.what, line.value, line.words) for line in after
    ]


@pytest.mark.parametrize("preset", presets())
def test_of_a_preset_every_bound_on_the_run_can_be_proved(preset: str) -> None:
    policy = load(preset)
    lines = [line for line in card(policy, whole(policy)).lines if not line.idle and line.value is not None]
    unproved = {line.what for line in lines if line.status != "proved"}
    assert unproved <= {"memory of windows", "never", "stops the run"}


def test_a_policy_that_only_watches_says_so_in_one_line() -> None:
    text = card(load("monitor")).as_text()
    assert "never              changes anything in the run  tested" in text
    assert len(text.splitlines()) == 3


def test_the_overhead_is_a_line_that_no_proof_covers() -> None:
    text = 'lbw 1\npolicy p { }\nsignal loss = telemetry.loss\nalert a info when loss > 1 "a"\n'
    bounded, open_ = (card(load(text + limits)) for limits in ("limits { overhead at most 2% }", ""))
    assert "overhead" not in open_.as_text()
    assert "  overhead  2% of a step, or it says that it cannot  tested" in bounded.as_text()
    status = [next(line["status"] for line in one.as_list() if line["what"] == "overhead") for one in (bounded, open_)]
    assert status == ["tested", "not bounded"]


def test_a_halt_is_told_whether_a_rule_or_a_failure_causes_it() -> None:
    calm_, halting = only(p.Limits()), only(p.Limits(), p.Halt())
    found = [(line.value, line.words) for policy in (calm_, evolve(calm_, on_failure="halt"), halting)
             for line in card(policy).lines if line.what == "stops the run"]  # fmt: skip
    assert [value for value, _ in found] == [False, True, True]
    assert [words for _, words in found][1:] == ["if the guard itself fails", "if a rule says so"]


def test_what_a_plugin_may_do_is_told_with_its_range() -> None:
    limit = p.CustomLimit("boost", 0.5, 2.0, p.Budget(5, 500))
    text = card(only(p.Limits(custom=(limit,)), p.Custom("boost", Constant(1.0)))).as_text()
    assert "plugin `boost`        10 in any 1_000 steps, with 0.5 to 2" in text


def test_the_card_as_data_has_every_line_each_time() -> None:
    names = [{line["what"] for line in card(load(name)).as_list()} for name in ("monitor", "conservative")]
    assert names[0] == names[1]
    found = json.loads(json.dumps(card(load("conservative")).as_list()))
    assert {"what": "updates skipped", "value": 40, "unit": "per 1_000 steps", "status": "tested"} in found
    assert {"what": "away from `normal`", "value": None, "unit": "steps", "status": "not bounded"} in found


@settings(max_examples=60, deadline=None)
@given(controlled())
def test_no_line_of_the_card_is_wider_than_a_terminal(policy: p.Policy) -> None:
    assert all(len(line) <= 80 for line in card(policy, whole(policy)).as_text().splitlines())
