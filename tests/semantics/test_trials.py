"""`test` blocks as the checker reads them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lbw_policy.errors import PolicyError
from lbw_policy.semantics import check, load
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.policy import Place, Policy

HEAD = """lbw 1
policy p { }
param wait : steps in [1 steps, 50 steps] = 5 steps
signal loss = telemetry.loss
let high = loss / median(loss, 20 steps)
reflex broken { when not finite(loss)  do skip }
levels normal -> caution
level caution { enter when high > 2 for wait  stay at most 9 steps  do scale_lr by 0.5 }
limits { skip at most 4 in a row, at most 20 per 1_000 steps  scale_lr within [0.1, 1] }
"""


def checked(block: str) -> Policy:
    return load(HEAD + block)


def claims(*lines: str) -> list[t.Claim]:
    policy = checked('test "x" {\n  given loss = 4 x 20, nan\n' + "\n".join(lines) + "\n}")
    return [one.claim for one in policy.tests[0].expectations]


def test_a_policy_carries_its_tests_with_their_places() -> None:
    policy = checked('test "a" { given loss = 4 x 20, nan  expect skip 1 times }\ntest "b" {\n  given loss = 1\n'
                     "  expect level   normal\n  throughout }")  # fmt: skip
    first, second = policy.tests
    assert (first.name, first.place, first.ticks) == ("a", Place("<text>", 10), 21)
    assert first.expectations[0].text == "skip 1 times"
    assert (second.expectations[0].text, second.expectations[0].place.line) == ("level normal throughout", 13)


def test_a_run_is_as_long_as_its_longest_series() -> None:
    policy = checked(
        'test "a" { given loss = ramp(1, 5) x 3, missing x 4, noise(4, 0.1, seed 7) x 2, -inf\n  expect no skip }'
    )
    (series,) = policy.tests[0].given
    assert policy.tests[0].ticks == series.ticks == 10
    assert [stretch.kind for stretch in series.stretches] == ["ramp", "missing", "noise", "value"]
    assert series.stretches[2] == t.Stretch("noise", (4.0, 0.1), 2, 7)
    assert series.stretches[3].values == (-math.inf,)


def test_counts_are_exact_or_bounded_on_one_side() -> None:
    assert claims("expect no skip", "expect skip 2 times", "expect skip at most 3 times",
                  "expect reflex broken at least 1 time") == [
        t.Happens("action", "skip", 0, 0),
        t.Happens("action", "skip", 2, 2),
        t.Happens("action", "skip", None, 3),
        t.Happens("reflex", "broken", 1, None),
    ]  # fmt: skip


def test_moments_become_ranges_of_the_run() -> None:
    assert claims(
        "expect level normal throughout",
        "expect level caution at step 20",
        "expect scale_lr <= 50% within 4 steps after step 10",
        "expect progress > 3 within wait",
        "expect level normal within 50 steps after step 15",
    ) == [
        t.Stands("normal", t.During(0, 20)),
        t.Stands("caution", t.During(20, 20)),
        t.Compares("scale_lr", "<=", 0.5, t.During(10, 14, any=True)),
        t.Compares("progress", ">", 3.0, t.During(0, 5, any=True)),
        t.Stands("normal", t.During(15, 20, any=True)),
    ]


def test_a_param_sets_the_width_of_within() -> None:
    text = HEAD + 'test "x" { given loss = 4 x 40  expect no skip  expect level normal within wait }'
    found = load(text, params={"wait": 20}).tests[0].expectations[1].claim
    assert isinstance(found, t.Stands)
    assert found.during.last == 20


def test_every_mistake_of_a_test_is_reported_at_once() -> None:
    found = check(
        HEAD + 'test "x" { given los = 4, 5 x 0  given loss = 4  expect skp 1 times  expect level l at step 9 }'
    )
    assert [finding.code for finding in found.diagnostics] == ["LBW501", "LBW505", "LBW505", "LBW507"]


def test_a_policy_in_error_does_not_make_its_tests_err() -> None:
    text = HEAD.replace("not finite(loss)", "finite(los)") + 'test "x" { given loss = 4  expect no reflex broken }'
    assert [finding.code for finding in check(text).diagnostics] == ["LBW201"]


def test_a_test_may_name_any_action_of_the_language() -> None:
    assert claims("expect no rollback") == [t.Happens("action", "rollback", 0, 0)]


def test_tests_are_not_inherited(tmp_path: Path) -> None:
    (tmp_path / "parent.lbw").write_text(HEAD + 'test "a" { given loss = 4  expect no skip }')
    child = 'lbw 1\npolicy c { extends "parent.lbw" }\ntest "b" { given loss = nan  expect skip 1 times }'
    (tmp_path / "child.lbw").write_text(child)
    policy = load(tmp_path / "child.lbw")
    assert [(one.name, Path(one.place.path).name, one.place.line) for one in policy.tests] == [("b", "child.lbw", 3)]


def test_a_policy_with_a_broken_test_does_not_load() -> None:
    with pytest.raises(PolicyError, match="expects nothing, so it cannot fail"):
        checked('test "x" { given loss = 4 }')


def test_tests_do_not_change_what_a_policy_is() -> None:
    with_test = checked('test "x" { given loss = 4  expect no skip }')
    assert with_test.reflexes == checked("").reflexes
    assert with_test.limits == checked("").limits
