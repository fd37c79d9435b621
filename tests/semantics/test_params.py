"""Params: a value given at load time must lie in the range, and is part of what the policy is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbw_policy.errors import PolicyError
from lbw_policy.semantics import Policy, check, load
from lbw_policy.semantics.expressions import Comparison, Constant, Statistic

TEXT = """
lbw 1
policy p { }
param limit : ratio in [2, 50] = 6
param window : steps in [16 steps, 1_000 steps] = 128 steps
signal loss = telemetry.loss
alert a info when loss / median(loss, window) > limit "a"
"""


def limit_of(policy: Policy) -> tuple[float, int]:
    condition = policy.alerts[0].trigger.condition
    assert isinstance(condition, Comparison)
    assert isinstance(condition.right, Constant)
    statistic = condition.left.right  # type: ignore[union-attr]
    assert isinstance(statistic, Statistic)
    return condition.right.value, statistic.samples


def test_a_param_has_its_own_value_unless_another_is_given() -> None:
    assert limit_of(load(TEXT)) == (6.0, 128)
    assert limit_of(load(TEXT, params={"limit": 8, "window": 64})) == (8.0, 64)


@given(st.floats(2, 50))
def test_a_value_inside_the_range_is_taken_as_it_is(value: float) -> None:
    policy = load(TEXT, params={"limit": value})
    assert limit_of(policy)[0] == value
    assert [param.value for param in policy.params] == [value, 128]


@given(st.floats().filter(lambda value: not 2 <= value <= 50))
def test_a_value_outside_of_the_range_is_refused(value: float) -> None:
    (finding,) = check(TEXT, params={"limit": value}).diagnostics
    assert finding.code == "LBW212"
    assert "must lie in [2, 50]" in finding.message


@pytest.mark.parametrize("value", ["6", None, True, [6], 1j, math.nan, -(10**400)])
def test_what_is_no_number_is_refused(value: object) -> None:
    (finding,) = check(TEXT, params={"limit": value}).diagnostics  # type: ignore[dict-item] - the point of the test
    assert finding.code == "LBW212"


def test_a_number_of_steps_must_be_whole() -> None:
    (finding,) = check(TEXT, params={"window": 64.5}).diagnostics
    assert (finding.code, finding.message) == ("LBW209", "expected 2 to 100_000 whole steps, found `64.5`")


def test_an_unknown_param_is_refused_with_the_likeliest_one() -> None:
    with pytest.raises(PolicyError, match=r"LBW221.*unknown param `limits`") as caught:
        load(TEXT, params={"limits": 6})
    assert caught.value.diagnostics[0].help == "did you mean `limit`?"


def test_the_digest_tells_values_apart() -> None:
    digests = {load(TEXT, params={"limit": value}).digest for value in (2, 6, 6.0, 6.5)}
    assert len(digests) == 3
    assert load(TEXT).digest == load(TEXT, params={"limit": 6}).digest
