"""Differences in meaning: none for layout, comments and names; every bound with its direction."""

from __future__ import annotations

import re

import attrs
import pytest
from hypothesis import given, settings

from lbw_policy.reading import Difference, Direction, differences, report
from lbw_policy.reading.normal import inward, normal
from lbw_policy.semantics import Policy, load
from lbw_policy.semantics.expressions import Comparison, Condition, Constant, Reading
from tests.strategies import conditions, unchecked_policies
from tests.texts import policies

BASE = """lbw 1
policy p { quarantine at most 64 steps }
param top : ratio in [2, 50] = 6
signal loss = telemetry.loss
signal grad = telemetry.grad_norm { every 2 steps }
let jump = loss / median(loss, 128 steps)
risk r { horizon 10 steps features standard, jump alarm at most 0.3 false per 1_000 steps trust after 200 steps }
reflex spike { when jump > top and finite(grad) do skip }
levels calm -> high
level high {
  enter when jump > 3 or r.alarm for 3 of 5 steps
  leave when jump < 2 for 10 steps
  stay at most 200 steps
  settles after 60 steps
  cooldown 20 steps
  do scale_lr by 0.5
  do rollback at most 20 steps
}
limits {
  scale_lr within [0.1, 1]
  skip at most 4 in a row, at most 20 per 1_000 steps
  rollback at most 50 steps back, at most 3 per 1_000 steps
  intervene at most 100 per 1_000 steps
}
alert busy warning when jump > 9 "{loss}"
"""
OPPOSITE = {
    Direction.LOOSER: Direction.TIGHTER,
    Direction.TIGHTER: Direction.LOOSER,
    Direction.SOONER: Direction.LATER,
    Direction.LATER: Direction.SOONER,
    Direction.MIXED: Direction.MIXED,
    Direction.CHANGED: Direction.CHANGED,
}


def changed(*edits: tuple[str, str]) -> tuple[Difference, ...]:
    text = BASE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return differences(load(BASE), load(text))


def only(*edits: tuple[str, str]) -> tuple[str, str, str | None, str | None, str]:
    (found,) = changed(*edits)
    return found.part, found.what, found.before, found.after, found.direction.value


@pytest.mark.parametrize(
    "edits",
    [
        [("\n", "  # a comment\n")],
        [("jump", "leap")],
        [("jump > top and finite(grad)", "finite(grad) and top < jump")],
        [("jump > 3 or r.alarm", "not (jump <= 3 and not r.alarm)")],
        [("jump > top", "loss / median(loss, 128 steps) > top")],
        [("  do scale_lr by 0.5\n", ""), ("20 steps\n}", "20 steps\n  do scale_lr by 50%\n}")],
        [("standard, jump", "jump, standard")],
        [("1_000", "1000"), ("policy p {", 'policy q { doc "another name"')],
        [("for 10 steps", "for 10 of 10 steps")],
    ],
)
def test_what_is_written_differently_but_means_the_same_is_no_difference(edits: list[tuple[str, str]]) -> None:
    assert changed(*edits) == ()


def test_a_signal_under_another_name_is_no_difference_in_a_condition() -> None:
    text = BASE.replace("grad", "slope_of_it").replace("telemetry.slope_of_it_norm", "telemetry.grad_norm")
    assert differences(load(BASE), load(text)) == ()


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (("[0.1, 1]", "[0.05, 1]"), ("limits", "scale_lr least factor", "0.1", "0.05", "looser")),
        (("4 in a row", "2 in a row"), ("limits", "skip in a row", "4", "2", "tighter")),
        (("50 steps back", "80 steps back"), ("limits", "rollback distance", "50 steps", "80 steps", "looser")),
        (("3 per 1_000 steps\n", "3 per 1_000 steps, at least 9 steps apart\n"),
         ("limits", "rollback spacing", "none", "9 steps", "tighter")),
        (("most 20 steps\n", "most 20 steps else halt\n"),
         ("level high", "", "do rollback at most 20 steps", "do rollback at most 20 steps else halt", "changed")),
        (("[2, 50]", "[2, 40]"), ("param top", "most", "50", "40", "tighter")),
        (("stay at most 200", "stay at most 300"), ("level high", "stay at most", "200 steps", "300 steps", "looser")),
        (("  stay at most 200 steps\n", ""), ("level high", "stay at most", "200 steps", None, "looser")),
        (("after 60", "after 90"), ("level high", "settles after", "60 steps", "90 steps", "changed")),
        (("  settles after 60 steps\n", ""), ("level high", "settles after", "60 steps", None, "changed")),
        (("cooldown 20", "cooldown 40"), ("level high", "cooldown", "20 steps", "40 steps", "tighter")),
        (("by 0.5", "by 0.25"), ("level high", "", "do scale_lr by 0.5", "do scale_lr by 0.25", "looser")),
        (("jump > 3", "jump > 4"), ("level high", "enter", "jump > 3", "jump > 4", "later")),
        (("jump < 2", "jump < 2.5"), ("level high", "leave", "jump < 2", "jump < 2.5", "sooner")),
        (("3 of 5", "2 of 5"), ("level high", "enter hold", "for 3 of 5 steps", "for 2 of 5 steps", "sooner")),
        (("warning", "critical"), ("alert busy", "severity", "warning", "critical", "changed")),
        (("most 64", "most 32"), ("policy", "quarantine", "64 steps", "32 steps", "changed")),
        (("after 200", "after 100"), ("risk r", "trust after", "200 steps", "100 steps", "looser")),
        (("0.3 false", "0.2 false"),
         ("risk r", "alarm", "0.3 false per 1_000 steps", "0.2 false per 1_000 steps", "tighter")),
        (("every 2", "every 4"), ("signal grad", "every", "2 steps", "4 steps", "changed")),
    ],
)  # fmt: skip
def test_one_edit_is_one_difference_with_its_direction(
    edit: tuple[str, str], expected: tuple[str, str, str | None, str | None, str]
) -> None:
    assert only(edit) == expected


def test_a_threshold_inside_a_let_is_spelt_out() -> None:
    found = changed(("median(loss, 128 steps)", "median(loss, 64 steps)"))
    assert ("enter", "loss / median(loss, 128 steps) > 3") in {(one.what, one.before) for one in found}
    assert all(one.before != one.after for one in found)


def test_a_param_s_value_shows_where_it_is_used() -> None:
    found = {(one.part, one.what, one.before, one.after) for one in changed(("= 6", "= 8"))}
    assert found == {("param top", "value", "6", "8"), ("reflex spike", "when", "jump > 6", "jump > 8")}


def test_what_is_new_and_what_is_gone_is_named() -> None:
    found = {one.part: one.kind for one in changed(("reflex spike", "reflex jolt"), ("alert busy", "alert restless"))}
    assert found == {
        "reflex spike": "removed",
        "reflex jolt": "added",
        "alert busy": "removed",
        "alert restless": "added",
    }


def test_a_limit_that_goes_is_looser_where_it_bound_the_others_and_tighter_where_it_allowed() -> None:
    assert only(("  intervene at most 100 per 1_000 steps\n", ""))[4] == "looser"
    limit = "  rollback at most 50 steps back, at most 3 per 1_000 steps\n"
    gone = (("  do rollback at most 20 steps\n", ""), (limit, ""))
    assert {one.direction for one in changed(*gone) if one.part == "limits"} == {Direction.TIGHTER}


def test_what_is_done_instead_is_compared_with_its_amounts() -> None:
    text = BASE.replace("do skip", "do skip else scale_lr by 0.5 else halt")
    assert differences(load(text), load(text.replace("by 0.5", "by 50%"))) == ()
    (found,) = differences(load(text), load(text.replace("else scale_lr by 0.5", "else scale_lr by 0.4")))
    assert (found.part, found.direction) == ("reflex spike", Direction.CHANGED)
    assert found.after == "do skip else scale_lr by 0.4 else halt"


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        ("", "overhead at most 2%", "tighter"),
        ("overhead at most 2%", "", "looser"),
        ("overhead at most 2%", "overhead at most 2.5%", "looser"),
        ("overhead at most 5%", "overhead at most 2%", "tighter"),
    ],
)
def test_a_bound_on_the_overhead_is_tighter_than_a_wider_one_or_none(before: str, after: str, direction: str) -> None:
    one, other = (load(BASE.replace("limits {", f"limits {{ {line}")) for line in (before, after))
    (found,) = differences(one, other)
    assert (found.part, found.what, found.direction.value) == ("limits", "overhead", direction)
    assert found.after == (f"{after.replace('overhead ', '')} of a step" if after else None)


def test_a_wider_spacing_is_tighter_and_one_that_goes_looser() -> None:
    spaced = BASE.replace("3 per 1_000 steps\n", "3 per 1_000 steps, at least 9 steps apart\n")
    (wider,) = differences(load(spaced), load(spaced.replace("9 steps apart", "20 steps apart")))
    (gone,) = differences(load(spaced), load(BASE))
    assert (wider.after, wider.direction) == ("20 steps", Direction.TIGHTER)
    assert (gone.after, gone.direction) == ("none", Direction.LOOSER)


def test_budgets_that_neither_contains_the_other_count_as_loosening() -> None:
    (looser,) = changed(("at most 100 per 1_000", "at most 100 per 500"))
    assert looser.direction is Direction.LOOSER
    (mixed,) = changed(("at most 100 per 1_000", "at most 210 per 3_000"))
    assert (mixed.direction, mixed.direction.loosens) == (Direction.MIXED, True)


def test_the_report_marks_what_loosens_and_counts_it() -> None:
    lines = report(changed(("[0.1, 1]", "[0.05, 1]"), ("4 in a row", "2 in a row"))).splitlines()
    assert lines == [
        "limits",
        "  ! looser  scale_lr least factor: 0.1 -> 0.05",
        "    tighter skip in a row: 4 -> 2",
        "2 differences, 1 looser (marked !)",
    ]
    assert report(()) == "no difference in meaning\n"


# Laws


@settings(max_examples=40, deadline=None)
@given(unchecked_policies() | policies())
def test_a_policy_does_not_differ_from_itself(policy: Policy) -> None:
    assert differences(policy, policy) == ()


@settings(max_examples=60, deadline=None)
@given(unchecked_policies(), unchecked_policies())
def test_looser_one_way_is_tighter_the_other_way(one: Policy, other: Policy) -> None:
    there, back = differences(one, other), differences(other, one)
    turned = {attrs.evolve(d, before=d.after, after=d.before, direction=OPPOSITE[d.direction]) for d in back}
    assert set(there) == turned
    assert re.search(r"\d+ looser|no difference", report(there))


@given(conditions())
def test_moving_negation_inward_twice_changes_nothing(condition: Condition) -> None:
    assert normal(inward(inward(condition, negate=True), negate=True)) == normal(condition)


@given(conditions())
def test_a_negation_differs_from_what_it_negates(condition: Condition) -> None:
    assert normal(inward(condition, negate=True)) != normal(condition)


def test_a_difference_in_one_number_is_one() -> None:
    one, other = (Comparison(">", Reading("loss"), Constant(value)) for value in (1.0, 2.0))
    assert normal(one) != normal(other)
