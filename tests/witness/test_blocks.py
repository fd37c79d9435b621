"""`block`: a test as text, which reads back as the same test and decides the same."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.resources import presets
from lbw_policy.semantics import load
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.policy import ACTION_NAMES
from lbw_policy.syntax.formatter import format_text
from lbw_policy.trials import run_trial
from lbw_policy.witness.blocks import NOWHERE, block, expectation, sentence

TEXT = (
    format_text("""lbw 1

policy p { }

signal loss = telemetry.loss
signal grad = telemetry.grad_norm

risk divergence {
  horizon  10 steps
  features standard
  alarm    at most 0.3 false per 1_000 steps
  trust    after 200 steps
}

reflex broken { when not finite(loss)  do skip }
reflex tall   { when grad > 5          do clip to 2 }

levels normal -> caution
level caution {
  enter when divergence > 30% or divergence.alarm
  leave when divergence < 5% for 3 steps
  do scale_lr by 0.5
}

limits {
  skip     at most 2 in a row, at most 20 per 1_000 steps
  clip     at most 3 per 100 steps
  scale_lr within [0.1, 1]
}

alert hot warning when divergence > 90% "{divergence}"

""")
    + "\n"
)

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from((0.0, -0.0, 1e15, 1e-300, 4.0, -1_000.0))
lengths = st.integers(1, 40) | st.just(200)


def shapes() -> st.SearchStrategy[t.Stretch]:
    any_number = numbers | st.sampled_from((math.nan, math.inf, -math.inf))
    spread = st.floats(0, 1e9) | st.just(0.0)
    return st.one_of(
        st.builds(t.Stretch, st.just("value"), st.tuples(any_number), lengths),
        st.builds(t.Stretch, st.just("missing"), st.just(()), lengths),
        st.builds(t.Stretch, st.just("ramp"), st.tuples(numbers, numbers), st.integers(2, 40)),
        st.builds(t.Stretch, st.just("noise"), st.tuples(numbers, spread), lengths, st.integers(0, 9_999)),
    )


def chances() -> st.SearchStrategy[t.Stretch]:
    chance = st.floats(0, 1) | st.sampled_from((0.05, 0.3, 1.0, math.nan))
    return st.builds(t.Stretch, st.just("value"), st.tuples(chance), lengths)


def told() -> st.SearchStrategy[t.Stretch]:
    missing = st.builds(t.Stretch, st.just("missing"), st.just(()), lengths)
    return missing | st.builds(t.Stretch, st.just("value"), st.tuples(st.sampled_from((0.0, 1.0))), lengths)


@st.composite
def series(draw: st.DrawFn) -> tuple[t.Series, ...]:
    kinds = {("loss", ""): shapes(), ("grad", ""): shapes(), ("divergence", t.PROBABILITY): chances(),
             ("divergence", t.ALARM): told(), ("divergence", t.TRUSTED): told()}  # fmt: skip
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, unique=True))
    return tuple(t.Series(*name, tuple(draw(st.lists(kinds[name], min_size=1, max_size=3)))) for name in chosen)


@st.composite
def claims(draw: st.DrawFn, ticks: int) -> t.Claim:
    first = draw(st.integers(0, ticks - 1))
    last = draw(st.integers(first, ticks - 1))
    within = t.During(first, last, any=True) if last > first or last == ticks - 1 else t.During(first, first)
    during = draw(st.sampled_from((t.During(first, first), t.During(0, ticks - 1), within)))
    count = draw(st.integers(0, 30))
    bounds = draw(st.sampled_from(((count, count), (None, count), (count + 1, None))))
    kind, names = draw(st.sampled_from((("action", tuple(ACTION_NAMES.values())), ("reflex", ("broken", "tall")),
                                        ("alert", ("hot",)))))  # fmt: skip
    op = draw(st.sampled_from(("<", "<=", ">", ">=", "==", "!=")))
    compares = t.Compares(draw(st.sampled_from(t.VALUES)), op, draw(numbers), during)
    stands = t.Stands(draw(st.sampled_from(("normal", "caution"))), during)
    return draw(st.sampled_from((t.Happens(kind, draw(st.sampled_from(names)), *bounds), stands, compares)))


@st.composite
def trials(draw: st.DrawFn) -> t.Trial:
    name = draw(st.text("ab \\\"'#{}é", max_size=12)) + "."
    trial = t.Trial(name, NOWHERE, draw(series()), ())
    found = draw(st.lists(claims(trial.ticks), min_size=1, max_size=4))
    return evolve(trial, expectations=tuple(expectation(claim, trial.ticks) for claim in found))


def bare(trial: t.Trial) -> t.Trial:
    """Return a test as if no file had it."""
    return evolve(trial, place=NOWHERE, expectations=tuple(evolve(one, place=NOWHERE) for one in trial.expectations))


@given(trials())
@settings(max_examples=25, deadline=None)
def test_a_block_reads_back_as_the_same_test_with_the_same_outcome(trial: t.Trial) -> None:
    policy = load(TEXT + block(trial))
    (found,) = policy.tests
    one, other = run_trial(policy, trial), run_trial(policy, found)

    assert bare(found) == trial
    assert [(v.passed, v.found, v.ticks) for v in one.verdicts] == [
        (v.passed, v.found, v.ticks) for v in other.verdicts
    ]


@given(trials())
@settings(max_examples=8, deadline=None)
def test_a_block_is_in_canonical_layout(trial: t.Trial) -> None:
    assert format_text(TEXT + block(trial)) == TEXT + block(trial)


@pytest.mark.parametrize("path", presets().values(), ids=presets())
def test_the_tests_of_the_presets_survive_it(path: Path) -> None:
    copies = [evolve(trial, name=f"{trial.name} again") for trial in load(path).tests]
    found = load(path.read_text(encoding="utf-8") + "".join(block(one) for one in copies)).tests[-len(copies) :]
    for copy, again in zip(copies, found, strict=True):
        same = [evolve(one, text=sentence(one.claim, copy.ticks)) for one in copy.expectations]
        assert bare(again) == bare(evolve(copy, expectations=tuple(same)))


def test_a_block_reads_like_a_hand_written_one() -> None:
    noise = t.Series("loss", "", (t.Stretch("noise", (4.0, 0.1), 300, 7), t.Stretch("value", (math.nan,), 1)))
    alarm = t.Series("divergence", "alarm", (t.Stretch("value", (1.0,), 1_000),))
    claims = (t.Happens("action", "skip", None, 1), t.Stands("caution", t.During(5, 905, any=True)))
    trial = t.Trial('so "it" goes', NOWHERE, (noise, alarm), tuple(expectation(one, 1_000) for one in claims))
    assert (
        block(trial)
        == """test "so \\"it\\" goes" {
  given loss             = noise(4, 0.1, seed 7) x 300, nan
  given divergence.alarm = 1 x 1_000
  expect skip at most 1 time
  expect level caution within 900 steps after step 5
}
"""
    )


@pytest.mark.parametrize(
    "claim", [t.Happens("action", "skip", 1, 2), t.Happens("action", "skip", None, None),
              t.Stands("normal", t.During(3, 7)), t.Stands("normal", t.During(0, 7))])  # fmt: skip
def test_a_claim_without_words_for_it_is_refused(claim: t.Claim) -> None:
    with pytest.raises(ValueError, match="expected"):
        sentence(claim, 10)
