"""What a policy reads, how often, and how far each of it may be thinned."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lbw_policy as lbw
from lbw_policy.machine.schedule import slack
from lbw_policy.risk import HOLD, STANDARD_SOURCES
from lbw_policy.runtime.cadence import FACTORS, cadence, wants
from lbw_policy.runtime.pacing import Pace
from lbw_policy.semantics import Policy
from lbw_policy.semantics.expressions import Reading
from lbw_policy.semantics.walk import own, parts
from tests.texts import policies

HEAD = """lbw 1
policy p { }
signal loss = telemetry.loss
signal grad = telemetry.grad_norm
signal ratio = telemetry.update_ratio { every 3 steps }
signal weights = telemetry.param_norm
"""
LIMITS = """limits {
  skip at most 3 in a row, at most 9 per 99 steps  clip at most 9 per 99 steps
  rollback at most 50 steps back, at most 3 per 999 steps  scale_lr within [0.1, 1]
  intervene at most 20 per 99 steps
}
"""
RISK = """risk r {
  horizon 5 steps  features standard, ratio  alarm at most 1 false per 999 steps  trust after 20 steps
}
"""


def most(rules: str) -> dict[str, int]:
    """Return the most that each signal may be thinned."""
    return {want.signal: want.most for want in wants(lbw.load(HEAD + rules + LIMITS)) if want.signal}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ('alert a info when grad > 1 and weights > 1 "a"', {"loss": 1, "grad": 16, "ratio": 16, "weights": 16}),
        ("reflex a { when grad > 1 do skip }", {"loss": 1, "grad": 1, "ratio": 16, "weights": 16}),
        ("reflex a { when loss > 1 do skip else scale_lr by 1 / ratio }", {"loss": 1, "grad": 16, "ratio": 1,
                                                                          "weights": 16}),
        (f"{RISK}reflex a {{ when r > 0.5 do skip }}", {"loss": 1, "grad": 1, "ratio": 1, "weights": 1}),
        (f'{RISK}alert a info when r > 0.5 "a"', {"loss": 1, "grad": 16, "ratio": 16, "weights": 16}),
        ("levels n -> a\nlevel a { enter when ratio > 9  stay at most 9 steps  do clip to 2 * grad }",
         {"loss": 1, "grad": 1, "ratio": 16, "weights": 16}),
        ("levels n -> a\nlevel a { enter when ratio > 9 and grad > 9 for 3 steps  stay at most 9 steps  "
         "do rollback at most 50 steps }", {"loss": 1, "grad": 8, "ratio": 2, "weights": 16}),
    ],
)  # fmt: skip
def test_how_far_a_signal_may_be_thinned_depends_on_who_reads_it(rules: str, expected: dict[str, int]) -> None:
    """What a clip needs is measured in every tick, so nothing is won by thinning it for others."""
    assert most(rules) == expected


def test_features_of_a_risk_stay_within_the_ticks_they_stand_for() -> None:
    found = wants(lbw.load(HEAD + RISK + 'alert a info when r > 0.5 "a"'))
    standard = [want for want in found if not want.signal and want.key in STANDARD_SOURCES]
    assert all(want.every * want.most <= HOLD for want in standard)
    assert {want.most for want in standard if want.key == "overshoot"} == {16}


@settings(max_examples=40, deadline=None)
@given(policies(), st.lists(st.sampled_from(FACTORS), min_size=1, max_size=6))
def test_what_reflexes_read_is_due_as_ever_in_any_policy(policy: Policy, factors: list[int]) -> None:
    """And the whole is what it was once the factor is 1 again, after a turn of all distances."""
    pace, conditions = Pace(wants(policy)), [reflex.condition for reflex in policy.reflexes]
    read = {part.signal for part in parts(*conditions) if isinstance(part, Reading)}
    kept = [s for s in policy.signals if s.name in read and not (s.observed or own(s))]
    assert pace.every == cadence(policy)
    for tick, factor in enumerate([*factors, *[1] * 65]):
        pace.factor = factor
        pace.turn(tick)
        assert all(pace.signals[signal.name] == 1 for signal in kept)
        assert all(signal.every % pace.every[signal.key] == 0 for signal in kept)
    assert pace.every == cadence(policy)


def test_nothing_is_thinned_that_another_distance_keeps_as_dense() -> None:
    """A source has one distance: of 10 and 16 ticks it is 2, as it is of 10 and 2."""
    text = HEAD.replace("telemetry.param_norm", "telemetry.grad_norm { every 10 steps }")
    pace = Pace(
        wants(lbw.load(f'{text}reflex a {{ when weights > 1 do skip }}\nalert a info when grad > 1 "a"{LIMITS}'))
    )
    pace.told(["update_ratio"])
    assert pace.can_thin
    pace.factor = 2
    assert not pace.can_thin


def test_without_rollbacks_there_is_no_slack_to_keep() -> None:
    assert slack(lbw.load(HEAD + 'alert a info when grad > 1 "a"')) is None
