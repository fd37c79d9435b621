"""Witnesses: for each rule that can act, a short test that passes and shows it."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from lbw_policy.resources import presets
from lbw_policy.semantics import load
from lbw_policy.semantics.policy import Policy
from lbw_policy.trials import covered, run_trial
from lbw_policy.witness.counterexamples import Effort, Search, block, rules, witness
from tests.texts import policies

BASE = """lbw 1
policy p { }
signal loss  = telemetry.loss
signal grad  = telemetry.grad_norm
signal share = telemetry.activation_outliers { every 7 steps  missing hold 14 steps }
signal load  = observed.router_load { every 5 steps  missing unsafe }
signal score = observed.accuracy
risk divergence { horizon 10 steps  features standard  alarm at most 0.3 false per 1_000 steps  trust after 200 steps }
limits {
  scale_lr within [0.1, 1]
  skip at most 4 in a row, at most 40 per 100 steps
  intervene at most 50 per 100 steps
}
"""


def shown(rule: str, text: str) -> str:
    """Return the text of a rule's witness, after a look that the text passes too."""
    policy = load(BASE + text)
    trial = witness(policy, rule)
    assert trial is not None
    again = load(f"{BASE}{text}\n{block(trial)}")
    assert run_trial(again, again.tests[-1]).passed
    return block(trial)


@pytest.mark.parametrize("name", presets())
def test_every_rule_of_every_preset_has_a_short_witness(name: str) -> None:
    policy = load(name)
    for rule in rules(policy):
        search = Search(policy)
        trial = witness(policy, rule, search)
        assert trial is not None, rule
        outcome = run_trial(policy, trial)
        assert outcome.passed
        assert rule in covered(policy, [outcome.trace]).exercised
        assert search.tries <= 100
        assert len(trial.given) <= 3


def test_rules_are_named_as_coverage_names_them() -> None:
    for name in presets():
        policy = load(name)
        named = {one for one in covered(policy, []).everything if " falls back " not in one}
        assert set(rules(policy)) == {one for one in named if not one.startswith("limit ")}


CASES = {
    "a threshold": ("reflex r fires", "reflex r { when grad > 6.5 do skip }"),
    "a narrow band": ("reflex r fires", "reflex r { when loss > 7.1 and loss < 7.3 do skip }"),
    "an exact value": ("reflex r fires", "reflex r { when score == 0.37 do skip }"),
    "two signals": ("reflex r fires", "reflex r { when grad > 9 and loss < 2 do skip }"),
    "a missing reading": ("reflex r fires", "reflex r { when finite(load) and load > 300 do skip }"),
    "arithmetic": ("reflex r fires", "reflex r { when abs(log(loss) - 2 * log(grad)) > 9 do skip }"),
    "a fall": ("alert a speaks", 'alert a info when score < 0.2 * median(score, 64 steps) for 3 of 5 steps "a"'),
    "a spread": ("alert a speaks", 'alert a info when std(score, 32 steps) > 3 "a"'),
    "a slow rise": ("alert a speaks", 'alert a info when slope(loss, 40 steps) > 0.05 for 20 steps "a"'),
    "a sparse signal": ("alert a speaks", 'alert a info when share > 3 * median(share, 40 steps) for 9 steps "a"'),
    "a probability": ("alert a speaks", 'alert a info when divergence > 35% and not divergence.alarm "a"'),
    "trust": ("alert a speaks", 'alert a info when not divergence.trusted for 3 steps "a"'),
    "always": ("alert a speaks", 'alert a info when finite(loss) for 3 steps "a"'),
    "what the guard did": (
        "alert busy speaks",
        'reflex r { when grad > 6 do skip }\nalert busy warning when rate(skips, 60 steps) > 20 "busy"',
    ),
    "a level": (
        "level hot is left",
        "levels calm -> warm -> hot\n"
        "level warm { enter when grad > 3 for 2 steps  leave when grad < 2 for 3 steps  do scale_lr by 0.5 }\n"
        "level hot { enter when zscore(loss, 64 steps) > 9 for 3 of 4 steps  leave when grad < 0.5 and loss < 4.5 "
        "for 5 of 6 steps  do skip }",
    ),
    "a level with only a stay": (
        "level warm is left",
        "levels calm -> warm\nlevel warm { enter when loss > 8  stay at most 30 steps  do scale_lr by 0.5 }",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_that_can_act_has_a_witness(name: str) -> None:
    rule, text = CASES[name]
    assert shown(rule, text).count("given") <= 3


def test_a_witness_is_plain() -> None:
    assert (
        shown(*CASES["a threshold"])
        == """test "reflex r can fire" {
  given grad = 7
  given load = 1
  expect reflex r at least 1 time
}
"""
    )


def test_finite_readings_are_preferred_but_nan_is_found_where_it_takes_one() -> None:
    assert "nan" not in shown("reflex r fires", "reflex r { when not finite(loss) or grad > 7 or loss > 30 do skip }")
    assert "nan" in shown("reflex r fires", "reflex r { when not finite(loss) do skip }")
    assert "nan" in shown("reflex r fires", "reflex r { when loss > 5 and loss < 3 do skip }")  # unknown fires it


def test_a_healthy_run_is_one_that_the_policy_finds_healthy() -> None:
    """A threshold below the ordinary level of a signal moves that level, not the meaning of healthy."""
    odd = "reflex r { when loss > 2 do skip }\nreflex s { when score < 5 do skip }\n"
    levels = {one.title: one.level for one in Search(load(BASE + odd)).channels}
    assert levels["loss"] <= 2
    assert levels["score"] >= 5
    assert math.isfinite(sum(levels.values()))


def test_a_rule_that_cannot_act_has_no_witness() -> None:
    dead = 'alert dead info when finite(loss) and not finite(loss) "dead"\nalert lazy info when score > 8 "lazy"\n'
    policy = load(BASE + dead)
    assert witness(policy, "alert dead speaks", Search(policy, Effort(tries=40))) is None
    assert witness(policy, "alert lazy") is not None
    with pytest.raises(KeyError):
        witness(policy, "alert other")


def test_the_same_seed_finds_the_same_witness() -> None:
    policy = load(BASE + CASES["a level"][1])
    for rule in rules(policy):
        assert witness(policy, rule, Search(policy, seed=5)) == witness(policy, rule, Search(policy, seed=5))


@given(policies())
@settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
def test_a_witness_of_any_policy_passes(policy: Policy) -> None:
    for rule in rules(policy):
        trial = witness(policy, rule, Search(policy, Effort(tries=20, ticks=2_000)))
        if trial is not None:
            outcome = run_trial(policy, trial)
            assert outcome.passed
            assert rule in covered(policy, [outcome.trace]).exercised
