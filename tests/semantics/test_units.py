"""Units: what may be added to and compared with what, and what windows become in samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbw_policy.semantics import check, load, types
from lbw_policy.semantics.expressions import Statistic
from lbw_policy.semantics.walk import conditions_of, parts

HEAD = """lbw 1
policy p { }
signal loss = telemetry.loss
signal grad = telemetry.grad_norm
signal lr = telemetry.lr
signal step = telemetry.update_ratio
signal bad = telemetry.nonfinite_grads
signal slow = telemetry.activation_outliers { every 10 steps }
signal mine = observed.mine
risk danger { horizon 5 steps features standard alarm at most 1 false per 100 steps trust after 10 steps }
"""


def codes(condition: str) -> set[str]:
    checked = check(f'{HEAD}alert a info when {condition} "a"')
    return {finding.code for finding in checked.diagnostics if finding.severity.value == "error"}


@pytest.mark.parametrize(
    "condition",
    [
        "loss > 3",
        "loss > 2 * median(loss, 128 steps)",
        "grad / median(grad, 128 steps) > 6",
        "loss / prev(loss) > step",
        "zscore(loss, 64 steps) > log(grad)",
        "danger > 30%",
        "danger > 0.3",
        "danger > step",
        "step > 150%",
        "slope(loss, 20 steps) * 20 steps > 0.5 * loss",
        "mine > loss",
        "mine > grad and mine > 3",
        "loss * grad > grad * loss",
        "std(loss, 20 steps) > abs(loss - mean(loss, 20 steps))",
    ],
)
def test_numbers_that_meet(condition: str) -> None:
    assert codes(condition) == set()


@pytest.mark.parametrize(
    "condition",
    [
        "loss > grad",
        "loss + lr > 1",
        "loss > 20 steps",
        "step > loss",
        "bad > step",
        "slope(loss, 20 steps) > loss",
        "loss * loss > loss",
        "danger > loss",
    ],
)
def test_numbers_that_do_not_meet(condition: str) -> None:
    assert codes(condition) == {"LBW204"}


@pytest.mark.parametrize("condition", ["danger > 30", "danger < -0.1"])
def test_a_probability_is_no_percentage_without_its_sign(condition: str) -> None:
    assert codes(condition) == {"LBW210"}


units = st.sampled_from([*types.NAMED.values(), types.NUMBER, types.NORM.times(types.STEPS, -1)])


@given(units, units)
def test_meeting_is_symmetric(one: types.Unit, other: types.Unit) -> None:
    assert types.meet(one, other) == types.meet(other, one)


@given(units, units)
def test_dividing_undoes_multiplying(one: types.Unit, other: types.Unit) -> None:
    assert one.times(other).times(other, -1).powers == one.powers


@pytest.mark.parametrize(
    ("condition", "samples"),
    [
        ("median(loss, 100 steps) > 1", 100),
        ("median(slow, 100 steps) > 1", 10),
        ("prev(slow) > 1", 1),
        ("prev(slow, 25 steps) > 1", 2),
        ("median(slow / step, 100 steps) > 1", 10),
    ],
)
def test_a_window_counts_the_samples_that_fall_into_its_steps(condition: str, samples: int) -> None:
    (root,) = conditions_of(load(f'{HEAD}alert a info when {condition} "a"'))
    (window,) = (part for part in parts(root) if isinstance(part, Statistic))
    assert window.samples == samples


def test_signals_of_two_rates_are_fresh_together_only_every_common_multiple() -> None:
    text = """lbw 1
    policy p { }
    signal a = observed.a { every 4 steps }
    signal b = observed.b { every 6 steps }
    alert x info when median(a - b, 120 steps) > 1 "x"
    """
    (root,) = conditions_of(load(text))
    assert [part.samples for part in parts(root) if isinstance(part, Statistic)] == [10]
