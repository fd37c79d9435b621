"""Any model at all: found out within a bounded number of steps, or harmless within a bounded number of alarms."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lying import begun
from risk_streams import Scripted, episodes, risk, run_episodes, truthful

from lbw_policy.risk import MODELS, RiskModel
from lbw_policy.risk.trust import FOUND_OUT, SAME, most_alarms

Answer = Callable[[random.Random, Mapping[str, float]], object]
ANSWERS = st.one_of(st.floats(), st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, 0.001, math.nan, None, "high"]))
SEGMENTS = st.lists(st.tuples(st.integers(1, 300), ANSWERS, st.floats(0, 1)), min_size=1, max_size=12)


def _model(answer: Answer, seed: int = 0) -> RiskModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "scripted", lambda _: Scripted(answer, seed))
        return RiskModel(risk(model="scripted", standard=False, trust_after=50))


def _adversary(segments: list[tuple[int, object, float]]) -> Answer:
    """Answer by segments: a base answer, and at times a spike to it from a quiet 0.1 %, so as to look innocent."""
    script = [pair for length, *pair in segments for _ in range(length)]
    asked = [0]

    def answer(rng: random.Random, features: Mapping[str, float]) -> object:
        base, often = script[asked[0] % len(script)]
        asked[0] += 1
        return base if rng.random() < often else 0.001 + 1e-5 * rng.random()

    return answer


@settings(max_examples=25, deadline=None)
@given(SEGMENTS, st.integers(0, 99))
def test_no_model_alarms_much_in_a_run_without_trouble(segments: list[tuple[int, object, float]], seed: int) -> None:
    """Whatever it answers, 2_000 calm ticks see at most `most_alarms` alarms that a policy reads."""
    said = run_episodes(_model(_adversary(segments), seed), 2000, start=10_000)
    assert begun(said) <= most_alarms(2000, 3e-4)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.0, 1.0))
def test_a_constant_is_found_out(constant: float) -> None:
    """One answer to everything is not believed from `SAME` labels on, in any run, with or without divergences."""
    for start in (300, 10_000):
        said = run_episodes(_model(lambda rng, x: constant), 700, start=start)
        assert not any(each.trusted for each in said[SAME + 60 :])


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 1.0), st.integers(0, 99))
def test_chance_is_found_out(most: float, seed: int) -> None:
    """A uniformly random answer up to 10 % or more is not believed from `FOUND_OUT` labels on."""
    said = run_episodes(_model(lambda rng, x: rng.uniform(0, most), seed), 900, seed=seed, start=10_000)
    assert not any(each.trusted for each in said[FOUND_OUT + 20 :])


@settings(max_examples=15, deadline=None)
@given(st.integers(60, 900), st.sampled_from(["inverted", "random", "constant", "nan"]), st.integers(0, 9))
def test_a_model_that_turns_liar_is_found_out(turn: int, how: str, seed: int) -> None:
    """However long it was right before, it is not believed `FOUND_OUT` labels after it began to lie."""
    lies: dict[str, Answer] = {
        "inverted": lambda rng, x: 1 - truthful(x),
        "random": lambda rng, x: rng.random(),
        "constant": lambda rng, x: 0.2,
        "nan": lambda rng, x: math.nan,
    }
    asked = [0]

    def turns(rng: random.Random, features: Mapping[str, float]) -> object:
        asked[0] += 1
        return truthful(features) if asked[0] <= turn else lies[how](rng, features)

    said = run_episodes(_model(turns, seed), turn + 500, seed=seed, start=10_000)
    assert not any(each.trusted for each in said[turn + FOUND_OUT + 20 :])


@settings(max_examples=8, deadline=None)
@given(st.floats(0.005, 0.03), st.integers(0, 9))
def test_a_quiet_lie_is_found_out_by_the_third_divergence(most: float, seed: int) -> None:
    """Small numbers that say the opposite of the truth lose trust with the third divergence that they saw, for good."""
    said = run_episodes(_model(lambda rng, x: most * (1 - truthful(x)), seed), 1600, seed=seed)
    assert not any(each.trusted for each in said[1215:])


def test_quiet_chance_is_found_out_by_the_third_divergence_as_a_rule() -> None:
    """Small random numbers rank by chance: of ten such models nine at least are found out by then."""
    found = 0
    for seed in range(10):
        said = run_episodes(_model(lambda rng, x: rng.uniform(0, 0.02), seed), 1300, seed=seed)
        found += not any(each.trusted for each in said[1215:])
    assert found >= 9


def test_a_liar_is_ignored_once_found_out() -> None:
    """Then a policy reads the fallback and no alarm, and the reason is told; an honest model never comes to that."""
    liar = _model(lambda rng, x: rng.random())
    said = run_episodes(liar, 600, start=10_000)
    assert {each.probability for each in said[-100:]} == {0.25}
    assert not any(each.alarm for each in said[-100:])
    assert "worse than the base rate" in liar.why or "errors have grown" in liar.why
    honest = run_episodes(_model(lambda rng, x: truthful(x)), 3000)
    assert all(each.trusted for each in honest[60:])


def test_the_stream_of_these_tests_has_what_they_need() -> None:
    """A run without trouble has none, and the other has divergences every 400 ticks."""
    calm = [loss for _, _, loss in episodes(2000, start=10_000)]
    assert max(calm) < 3
    assert sum(loss > 10 for _, _, loss in episodes(2000)) == 4 * 12
