"""In-file tests as runs: what they are given, what the session does, and what is made of it."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.machine import RiskValues, Session
from lbw_policy.resources import presets
from lbw_policy.semantics import load
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.policy import Alert, Level, Place, Policy, Reflex
from lbw_policy.trials import Trace, Verdict, covered, judge, run_trial, trace_of
from lbw_policy.trials.series import samples, starts
from tests.texts import policies

HEAD = """lbw 1
policy p { }
signal loss = telemetry.loss
signal grad = telemetry.grad_norm
signal slow = observed.slow { every 4 steps  missing hold 2 steps }
risk divergence {
  horizon 10 steps  features standard  alarm at most 0.3 false per 1_000 steps
  trust after 200 steps  fallback 2%
}
reflex broken { when not finite(loss)  do skip }
reflex tall   { when grad > 5          do clip to 2 }
reflex old    { when slow > 7          do skip }
levels normal -> caution
level caution {
  enter when divergence > 30% or divergence.alarm
  leave when divergence < 5% for 3 steps
  do scale_lr by 0.5
}
limits {
  skip at most 2 in a row, at most 20 per 1_000 steps
  clip at most 3 per 100 steps
  scale_lr within [0.1, 1]
}
alert hot warning when divergence > 90% "{divergence}"
"""
PLACE = Place("p", 1)
NOWHERE = Place("", 0)
NOISE = [3.987030322115229, 3.9829252171430785, 4.100993416129534]


def ran(*lines: str) -> tuple[Policy, Trace, tuple[Verdict, ...]]:
    policy = load(HEAD + 'test "x" {\n' + "\n".join(lines) + "\n}")
    outcome = run_trial(policy, policy.tests[0])
    return policy, outcome.trace, outcome.verdicts


def traced(*lines: str) -> Trace:
    return ran(*lines, "expect no halt")[1]


def judged(claim: t.Claim, trace: Trace) -> Verdict:
    return judge(t.Expectation(claim, "", PLACE), trace)


# Series


def series(*stretches: t.Stretch) -> t.Series:
    return t.Series("loss", "", stretches)


def test_a_series_is_its_stretches_one_after_the_other_and_then_nothing() -> None:
    one = series(t.Stretch("value", (4.0,), 2), t.Stretch("missing", (), 1), t.Stretch("ramp", (1.0, 3.0), 3))
    assert samples(one, 8) == [4.0, 4.0, None, 1.0, 2.0, 3.0, None, None]
    assert starts(one) == [0, 2, 3, 6]


def test_noise_is_the_same_on_every_machine() -> None:
    """These very digits, from sums of IEEE doubles only, whatever the platform's mathematics library."""
    assert samples(series(t.Stretch("noise", (4.0, 0.1), 3, 7)), 3) == NOISE


@given(st.integers(0, 1000), st.floats(-1e6, 1e6), st.floats(0, 1e3))
@settings(max_examples=30, deadline=None)
def test_noise_has_its_mean_and_spread_and_no_far_tail(seed: int, mean: float, spread: float) -> None:
    found = [
        value for value in samples(series(t.Stretch("noise", (mean, spread), 400, seed)), 400) if value is not None
    ]
    assert all(abs(value - mean) <= 6 * spread + 1e-6 for value in found)
    assert abs(math.fsum(found) / 400 - mean) <= 0.3 * spread + 1e-6
    assert abs(math.sqrt(math.fsum((v - mean) ** 2 for v in found) / 400) - spread) <= 0.3 * spread + 1e-6


def test_noise_of_other_seeds_signals_and_stretches_is_other_noise() -> None:
    noise = t.Stretch("noise", (0.0, 1.0), 50)
    one, other = samples(series(noise, noise), 100)[:50], samples(series(noise, noise), 100)[50:]
    grad = samples(t.Series("grad", "", (noise,)), 50)
    seeded = samples(series(attrs.evolve(noise, seed=1)), 50)
    assert len({tuple(part) for part in (one, other, grad, seeded)}) == 4


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.integers(2, 50))
def test_a_ramp_goes_evenly_from_one_end_to_the_other(first: float, last: float, ticks: int) -> None:
    found = [value for value in samples(series(t.Stretch("ramp", (first, last), ticks)), ticks) if value is not None]
    assert (found[0], found[-1]) == (first, last)
    step = (last - first) / (ticks - 1)
    assert all(abs(after - before - step) <= 1e-6 * (1 + abs(first) + abs(last)) for before, after in pairwise(found))


# Runs


def test_a_signal_is_read_only_where_it_is_due() -> None:
    trace = traced("given slow = 1, 9 x 3, 1 x 4", "given loss = 4 x 8")
    assert [moment.values.get("slow") for moment in trace.moments] == [1, None, None, None, 1, None, None, None]
    assert not any(moment.happens("reflex", "old") for moment in trace.moments)


def test_a_signal_that_is_not_given_has_no_reading_and_fires_nothing() -> None:
    assert all(moment.quiet for moment in traced("given grad = 1 x 30").moments)


def test_after_its_end_a_series_is_missing_as_the_signal_says() -> None:
    trace = traced("given loss = 4 x 12", "given slow = 9 x 5")
    assert [moment.tick for moment in trace.moments if moment.happens("reflex", "old")] == list(range(12))


def test_a_risk_without_a_series_reads_its_fallback_and_is_not_trusted() -> None:
    trace = traced("given loss = 4 x 3")
    assert all(moment.risks == {"divergence": RiskValues(0.02, alarm=False)} for moment in trace.moments)


def test_a_risk_says_what_it_is_given_while_it_is_trusted() -> None:
    trace = traced("given divergence = 50% x 4", "given divergence.trusted = 1, 0, missing, 1",
                   "given divergence.alarm = 1 x 3, missing")  # fmt: skip
    fallback = RiskValues(0.02, alarm=False)
    assert [moment.risks["divergence"] for moment in trace.moments] == [
        RiskValues(0.5, alarm=True, trusted=True), fallback, fallback, RiskValues(0.5, alarm=None, trusted=True),
    ]  # fmt: skip


def test_an_alarm_alone_is_trusted_beside_the_fallback() -> None:
    trace = traced("given divergence.alarm = 0, 1")
    assert [moment.risks["divergence"].probability for moment in trace.moments] == [0.02, 0.02]
    assert [moment.level for moment in trace.moments] == ["normal", "caution"]


def test_clip_works_on_the_given_gradient_norm_and_only_where_it_binds() -> None:
    trace = traced("given grad = 1 x 3, 8 x 5")
    assert [moment.tick for moment in trace.moments if moment.begins("clip")] == [3, 4, 5]
    assert [moment.tick for moment in trace.moments if moment.refuses("clip")] == [6, 7]
    assert trace.moments[3].grants[0].amount == pytest.approx(0.25)


def test_a_held_factor_counts_once_and_skips_each_time() -> None:
    _, trace, verdicts = ran("given divergence = 50% x 9", "given loss = 4 x 5, nan, 4, nan, 4",
                             "expect scale_lr 1 times", "expect skip 2 times")  # fmt: skip
    assert all(verdict.passed for verdict in verdicts)
    assert [moment.scale for moment in trace.moments] == [0.5] * 9
    assert trace.moments[-1].progress == 7


def test_a_halt_ends_the_run_and_later_steps_are_not_reached() -> None:
    text = ("lbw 1\npolicy p { }\nsignal loss = telemetry.loss\nreflex end { when loss > 9 do halt }\n"
            'test "x" {\n  given loss = 4 x 5, 10 x 5\n  expect halt 1 times\n  expect progress == 5 at step 5\n'
            "  expect level normal throughout\n  expect level normal at step 8\n}")  # fmt: skip
    policy = load(text)
    outcome = run_trial(policy, policy.tests[0])
    assert outcome.trace.halted
    assert len(outcome.trace.moments) == 6
    assert [verdict.passed for verdict in outcome.verdicts] == [True, True, True, False]
    assert outcome.verdicts[3].found == "the run had halted at step 5"


# Verdicts


def test_a_miss_says_what_was_found_and_where() -> None:
    _, _, verdicts = ran(
        "given loss = 4 x 10, nan x 3, 4 x 10",
        "given divergence = 1% x 5, 50% x 2, 1% x 16",
        "expect skip 3 times",
        "expect no reflex broken",
        "expect alert hot at least 1 times",
        "expect level normal throughout",
        "expect scale_lr < 0.4 within 2 steps after step 5",
        "expect progress >= 23 at step 22",
    )
    assert [(one.expected, one.found, one.ticks) for one in verdicts] == [
        ("`skip` 3 times", "2 times, at steps 10, 11; refused 1 time, at step 12", (10, 11, 12)),
        ("reflex `broken` never", "3 times, at steps 10, 11, 12", (10, 11, 12)),
        ("alert `hot` at least 1 time", "never", ()),
        ("level `normal` at every step from 0 to 22", "level `caution` from step 5 to 8", (5,)),
        ("`scale_lr` < 0.4 at some step from 5 to 7", "`scale_lr` = 0.5 from step 5 to 7", (5,)),
        ("`progress` >= 23 at step 22", "`progress` = 21 at step 22", (22,)),
    ]
    assert not any(verdict.passed for verdict in verdicts)


@st.composite
def trials(draw: st.DrawFn, policy: Policy) -> t.Trial:
    """Draw series for some signals and risks of a policy, hostile values included."""
    value = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([math.nan, math.inf, -math.inf, 1e300]))
    stretch = st.one_of(
        st.builds(t.Stretch, st.just("value"), st.tuples(value), st.integers(1, 12)),
        st.builds(t.Stretch, st.just("missing"), st.just(()), st.integers(1, 4)),
        st.builds(t.Stretch, st.just("noise"), st.just((4.0, 0.5)), st.integers(1, 30), st.integers(0, 3)),
    )
    many = st.lists(stretch, min_size=1, max_size=4).map(tuple)
    found = [t.Series(signal.name, "", draw(many)) for signal in policy.signals]
    sure = st.builds(t.Stretch, st.just("value"), st.tuples(st.floats(0, 1)), st.integers(1, 20))
    risky = st.lists(sure, min_size=1, max_size=3).map(tuple)
    found += [t.Series(risk.name, t.PROBABILITY, draw(risky)) for risk in policy.risks if draw(st.booleans())]
    found.append(t.Series("nothing", "", draw(many)))
    return t.Trial("drawn", PLACE, tuple(found), ())


def claims(policy: Policy, trace: Trace, least: int) -> list[tuple[t.Claim, t.Claim]]:
    """Return claims beside their negations."""
    last = len(trace.moments) - 1
    whole, end = t.During(0, last), t.During(last, last)
    counted = [("action", name) for name in ("skip", "clip", "scale_lr", "rollback", "freeze")]
    counted += [("reflex", reflex.name) for reflex in policy.reflexes]
    found: list[tuple[t.Claim, t.Claim]] = []
    for kind, name in counted:
        found.append((t.Happens(kind, name, least + 1, None), t.Happens(kind, name, None, least)))
    for during in (whole, end):
        found.append((t.Compares("scale_lr", "<", 1.0, during), t.Compares("scale_lr", ">=", 1.0, during)))
        found.append((t.Compares("progress", "==", 3.0, during), t.Compares("progress", "!=", 3.0, during)))
        for one, other in pairwise(policy.levels):
            found.append((t.Stands(one.name, during), t.Stands(other.name, during)))
    return found


@settings(max_examples=40, deadline=None)
@given(st.data(), policies(), st.integers(0, 3))
def test_an_expectation_and_its_negation_never_both_pass(data: st.DataObject, policy: Policy, least: int) -> None:
    trace = trace_of(policy, data.draw(trials(policy)))
    for claim, negation in claims(policy, trace, least):
        assert not (judged(claim, trace).passed and judged(negation, trace).passed)
        if isinstance(claim, t.Happens):
            assert judged(claim, trace).passed or judged(negation, trace).passed


@settings(max_examples=40, deadline=None)
@given(st.data(), policies())
def test_a_run_is_what_a_session_driven_by_hand_does_and_the_same_every_time(
    data: st.DataObject, policy: Policy
) -> None:
    trial = data.draw(trials(policy))
    trace = trace_of(policy, trial)
    assert repr(trace) == repr(trace_of(policy, trial))  # as text, where NaN is NaN
    session = Session(policy)
    for moment in trace.moments:
        session.begin(moment.values)
        norms = [samples(one, trial.ticks)[moment.tick] for one in trial.given for signal in policy.signals
                 if one.name == signal.name and signal.source == "grad_norm" and not signal.observed]  # fmt: skip
        turn = session.decide(moment.risks, norms[0] if norms else None)
        assert (turn.decision, turn.grants) == (moment.decision, moment.grants) or repr(turn.grants) == repr(
            moment.grants
        )
        assert session.limiter.scale == moment.scale
        session.finish(applied=turn.updates)
        assert session.progress == moment.progress
    assert trace.halted or len(trace.moments) == trial.ticks


# Coverage


def test_coverage_tells_what_never_happened() -> None:
    policy, trace, _ = ran("given loss = 4 x 5, nan x 3", "given divergence = 50% x 5, 1% x 9", "expect no halt")
    found = covered(policy, [trace])
    assert found.never == ("reflex tall fires", "reflex old fires", "alert hot speaks", "limit scale_lr holds back",
                           "limit clip holds back")  # fmt: skip
    assert found.percent == pytest.approx(100 * 4 / 9)
    assert covered(policy, []).exercised == frozenset()


def test_a_level_that_stands_to_the_end_was_entered_and_not_left() -> None:
    policy, trace, _ = ran("given divergence = 1% x 5, 50% x 9", "expect no halt")
    assert covered(policy, [trace]).exercised == {"level caution is entered"}


def test_every_run_adds_to_the_coverage_and_none_takes_away() -> None:
    policy, one, _ = ran("given loss = nan", "expect no halt")
    _, other, _ = ran("given grad = 8 x 5", "expect no halt")
    both = covered(policy, [one, other]).exercised
    assert both == covered(policy, [one]).exercised | covered(policy, [other]).exercised
    assert "limit clip holds back" in both


def test_the_budget_of_all_interventions_is_covered_when_it_is_what_refuses() -> None:
    text = HEAD.replace("limits {", "limits {\n  intervene at most 2 per 50 steps")
    policy = load(text + 'test "x" { given loss = nan, 4, nan, 4, nan  expect skip 2 times }')
    outcome = run_trial(policy, policy.tests[0])
    assert outcome.passed
    assert "limit intervene holds back" in covered(policy, [outcome.trace]).exercised


def test_each_fallback_of_each_rule_is_covered_when_that_rule_asks_for_it() -> None:
    text = HEAD.replace("do skip }\nreflex tall", "do skip else scale_lr by 0.5 else halt }\nreflex tall")
    text = text.replace("slow > 7          do skip", "slow > 7          do skip else scale_lr by 0.5 else halt")
    policy = load(text + 'test "x" { given loss = nan x 3  expect skip 2 times  expect scale_lr 1 time }')
    outcome = run_trial(policy, policy.tests[0])
    found = covered(policy, [outcome.trace])
    assert outcome.passed
    assert "reflex broken falls back to scale_lr" in found.exercised
    assert [one for one in found.never if "falls back" in one] == [
        "reflex broken falls back to halt",
        "reflex old falls back to scale_lr",
        "reflex old falls back to halt",
    ]


def test_a_run_that_halts_as_a_fallback_ends_there() -> None:
    policy = load(HEAD.replace("do skip }\nreflex tall", "do skip else halt }\nreflex tall")
                  + 'test "x" { given loss = 4, nan x 9  expect skip 2 times  expect halt 1 time }')  # fmt: skip
    outcome = run_trial(policy, policy.tests[0])
    assert outcome.passed
    assert (outcome.trace.halted, len(outcome.trace.moments)) == (True, 4)


def test_a_policy_without_rules_is_wholly_covered() -> None:
    policy = load("lbw 1\npolicy p { }\n")
    assert covered(policy, []).percent == 100.0


# The shipped presets


def rules_of(policy: Policy) -> dict[str, object]:
    """Return rules and limits without their places, under the words with which coverage names them."""
    rules: tuple[Reflex | Level | Alert, ...] = (*policy.reflexes, *policy.levels, *policy.alerts)
    found: dict[str, object] = {
        f"{type(rule).__name__.lower()} {rule.name}": attrs.evolve(rule, place=NOWHERE) for rule in rules
    }
    return found | {f"limit {name}": value for name, value in attrs.asdict(policy.limits, recurse=False).items()}


def inherited(policy: Policy, item: str) -> bool:
    """Tell whether what coverage names is, in the default, just as it is in a policy that extends it."""
    rule, default = " ".join(item.split()[:2]), rules_of(load("conservative"))
    return policy.parent is not None and default.get(rule) == rules_of(policy)[rule]


@pytest.mark.parametrize("name", sorted(presets()))
def test_the_presets_pass_their_own_tests_which_cover_them(name: str) -> None:
    """What a preset takes over as it stands is covered by the tests of the default, all else by its own."""
    policy = load(name)
    outcomes = [run_trial(policy, trial) for trial in policy.tests]
    assert len(outcomes) >= 4
    assert [outcome.trial.name for outcome in outcomes if not outcome.passed] == []
    never = covered(policy, [outcome.trace for outcome in outcomes]).never
    assert [item for item in never if not inherited(policy, item)] == []


def test_a_rule_that_a_preset_changes_is_not_taken_for_the_default_s() -> None:
    policy = load("finetuning")
    assert inherited(policy, "reflex broken fires")
    assert not inherited(policy, "reflex spike fires")  # the same words, over a shorter window
    assert not inherited(policy, "limit rollback holds back")
    assert not inherited(load("aggressive"), "reflex broken fires")


def test_the_examples_of_the_documents_pass() -> None:
    docs = Path(__file__).parents[2] / "docs"
    pages = "".join((docs / name).read_text(encoding="utf-8") for name in ("testing.md", "language.md"))
    found = [load(text) for text in re.findall(r"^```lbw\n(.*?)^```", pages, re.MULTILINE | re.DOTALL)]
    outcomes = [run_trial(policy, trial) for policy in found for trial in policy.tests]
    assert len(outcomes) >= 3
    assert [outcome.trial.name for outcome in outcomes if not outcome.passed] == []
