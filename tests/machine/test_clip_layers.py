"""`clip layers to`: asked for, answered by the largest layer's norm, and the clip of all gradients before it."""

from __future__ import annotations

import math

import pytest

import lbw_policy as lbw
from lbw_policy.limits import Grant
from lbw_policy.machine import Session
from lbw_policy.trials import trace_of

HEAD = """lbw 1
policy p { doc "x" }
signal a = observed.a
"""
LIMITS = "limits { clip at most 2 per 100 steps  intervene at most 9 per 100 steps }"


def answer(rules: str, norm: float | None, largest: float | None) -> tuple[Grant, ...]:
    """Return the grants of one tick in which `a` is 1."""
    run = Session(lbw.load(HEAD + rules + LIMITS))
    run.begin({"a": 1.0})
    return run.decide({}, norm, layer_norm=largest).grants


def test_the_factor_is_that_of_the_largest_layer() -> None:
    (grant,) = answer("reflex r { when a > 0 do clip layers to 2 }", 100.0, 8.0)
    assert (grant.request.layers, grant.amount, grant.starts) == (True, 0.25, True)


def test_layers_that_are_short_enough_cost_nothing() -> None:
    (grant,) = answer("reflex r { when a > 0 do clip layers to 9 }", 100.0, 8.0)
    assert (grant.amount, grant.starts) == (1.0, False)


@pytest.mark.parametrize("largest", [None, math.nan, math.inf])
def test_without_a_finite_norm_it_is_refused(largest: float | None) -> None:
    (grant,) = answer("reflex r { when a > 0 do clip layers to 2 }", 1.0, largest)
    assert grant.amount is None


ALL, EACH, NONE = "do clip to 5", "do clip layers to 2", "do clip to a / (a - 1)"


@pytest.mark.parametrize(
    ("first", "second", "layers"),
    [
        (ALL, EACH, False),
        (EACH, ALL, False),
        (NONE, EACH, True),
        (EACH, NONE, True),
        (EACH, "do clip to (a - 1) / (a - 1)", True),
        (EACH, "do clip layers to 1", True),
    ],
)
def test_a_clip_of_all_gradients_speaks_before_one_of_layers_if_its_norm_is_known(
    first: str, second: str, layers: bool
) -> None:
    rules = f"reflex r {{ when a > 0 {first} }}\nreflex s {{ when a > 0 {second} }}\n"
    (grant,) = answer(rules, 10.0, 10.0)
    assert grant.request.layers is layers
    assert grant.amount == (0.5 if not layers else min(0.2, 0.1 * float(second[-1]) if second[-1] == "1" else 0.2))


def test_a_test_in_a_file_gives_the_largest_norm_as_a_signal() -> None:
    text = (
        HEAD
        + "signal tall = telemetry.grad_norm_max\nreflex r { when a > 0 do clip layers to 2 }\n"
        + LIMITS
        + '\ntest "t" { given a = 1.0 x 3  given tall = 1.0, 8.0, 1.0  expect clip 1 times }\n'
    )
    policy = lbw.load(text)
    clips = [grant for moment in trace_of(policy, policy.tests[0]).moments for grant in moment.grants if grant.starts]
    assert [(grant.request.action, grant.amount) for grant in clips] == [("clip", 0.25)]
