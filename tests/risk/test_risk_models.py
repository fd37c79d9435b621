from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_streams import area_under_curve, dice

from lbw_policy.errors import StateError
from lbw_policy.risk import MODELS
from lbw_policy.risk.baseline import Baseline
from lbw_policy.risk.logistic import RADIUS, Logistic
from lbw_policy.risk.registry import ask, explain
from lbw_policy.semantics.models import RISK_MODELS

NAMES = [f"f{index}" for index in range(6)]


def _stream(seed: int, count: int, signal: float) -> list[tuple[dict[str, float], bool]]:
    """Return labelled points, one in ten positive, whose first feature differs by `signal` spreads."""
    rng, points = dice(seed), []
    for _ in range(count):
        label = rng.random() < 0.1
        point = {name: rng.gauss(0, 1) for name in NAMES}
        point["f0"] += signal * label
        points.append((point, label))
    return points


def _taught(signal: float = 2.5, seed: int = 0) -> Logistic:
    model = Logistic(seed)
    for features, label in _stream(1, 3000, signal):
        model.learn(features, label)
    return model


def test_the_language_knows_exactly_the_models_there_are() -> None:
    """The checker's list of names and the registry agree."""
    assert set(RISK_MODELS) == set(MODELS)


def test_risk_is_imported_without_river() -> None:
    """Importing the folder, and making a baseline, loads no River."""
    code = "import sys, lbw_policy.risk as r; r.MODELS['baseline'](0); print('river' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_learning_separates_what_can_be_separated() -> None:
    """On a stream with signal the unseen AUROC is above 0.9; on noise it is chance."""
    for signal, low, high in ((2.5, 0.9, 1.0), (0.0, 0.4, 0.6)):
        model = _taught(signal)
        pairs = [(model.predict(features), label) for features, label in _stream(2, 1500, signal)]
        assert low < area_under_curve(pairs) < high


def test_probabilities_keep_the_base_rate() -> None:
    """Thinning with weights leaves the mean answer near the true rate of 10 %, not near a balanced half."""
    model = _taught()
    answers = [model.predict(features) for features, _ in _stream(2, 1500, 2.5)]
    assert 0.05 < sum(answers) / len(answers) < 0.2


def test_an_empty_model_answers_less_than_one_percent() -> None:
    """Before any label the answer is a number near the base rate, not one half and not missing."""
    assert ask(Logistic(), {"a": 1.0}) == pytest.approx(0.0067, abs=1e-4)
    assert ask(Logistic(), {}) == pytest.approx(0.0067, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.dictionaries(st.sampled_from(NAMES), st.floats()), st.booleans()), max_size=40))
def test_hostile_numbers_leave_no_trace(points: list[tuple[dict[str, float], bool]]) -> None:
    """NaN, inf and 1e300 predicted or learned leave answers in [0, 1] and a finite state."""
    model = Logistic()
    for features, label in points:
        model.learn(features, label)
        assert ask(model, features) is not None
    json.dumps(model.state_dict(), allow_nan=False)


def test_a_nearly_constant_feature_cannot_blow_up() -> None:
    """After 500 zeros a feature of 8 still gives an answer strictly inside (0, 1)."""
    model, rng = Logistic(), dice(0)
    for _ in range(500):
        model.learn({"a": rng.gauss(0, 1e-9), "b": rng.gauss(0, 1)}, rng.random() < 0.05)
    model.learn({"a": 8.0, "b": 0.0}, True)
    assert 0.0 < model.predict({"a": 8.0, "b": 0.0}) < 1.0


def test_the_logistic_model_is_rebuilt_bit_for_bit() -> None:
    """Rebuilt from JSON it answers alike, and still does after both learned on; features come and go meanwhile."""
    one, two, rng = _taught(), Logistic(seed=99), dice(7)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for features, label in _stream(3, 600, 2.5):
        some = {name: value for name, value in features.items() if rng.random() < 0.7}
        assert two.predict(some) == one.predict(some)
        one.learn(some, label)
        two.learn(some, label)
    assert two.state_dict() == one.state_dict()


def test_the_seed_decides_which_negatives_are_learned() -> None:
    """The same seed gives the same weights, another seed gives others."""
    assert _taught(seed=4).state_dict() == _taught(seed=4).state_dict()
    assert _taught(seed=4).state_dict()["weights"] != _taught(seed=5).state_dict()["weights"]


def test_a_prior_is_not_worn_down() -> None:
    """Under 30_000 negatives the weights stay within RADIUS of the prior's; scaler and ranking stay."""
    model = Logistic()
    model.load_prior(_taught().state_dict())
    start = model.state_dict()
    assert model.informed
    for features, _ in _stream(5, 30_000, 0.0):
        model.learn({**features, "stranger": 1.0}, False)
    end = model.state_dict()
    gaps = [end["weights"][name] - start["weights"][name] for name in NAMES]
    assert math.hypot(*gaps, end["weights"]["stranger"], end["intercept"] - start["intercept"]) <= RADIUS * 1.0001
    assert {name: end["means"][name] for name in NAMES} == start["means"]
    assert abs(end["weights"]["stranger"]) <= RADIUS
    pairs = [(model.predict(features), label) for features, label in _stream(2, 1000, 2.5)]
    assert area_under_curve(pairs) > 0.9


def test_a_prior_survives_saving() -> None:
    """A model with a prior, restored, still has its anchor and its slow rate."""
    one = Logistic()
    one.load_prior(_taught().state_dict())
    two = Logistic()
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for features, label in _stream(6, 500, 2.5):
        one.learn(features, label)
        two.learn(features, label)
    assert two.state_dict() == one.state_dict()
    assert two.informed


@pytest.mark.parametrize("key", ["weights", "counts", "means", "variances", "intercept", "anchor", "seed"])
@pytest.mark.parametrize("damage", [math.nan, "x", {"f0": math.inf}, {"f9": -1.0}])
def test_a_damaged_model_is_refused(key: str, damage: object) -> None:
    """A state with a missing, foreign or non-finite part is a `StateError` with the reason."""
    state = _taught().state_dict()
    if key == "anchor" and damage == {"f9": -1.0}:
        damage = 3
    with pytest.raises(StateError, match="risk state"):
        Logistic().load_state_dict({**state, key: damage})
    del state[key]
    with pytest.raises(StateError, match=key):
        Logistic().load_state_dict(state)


def test_a_saved_model_beyond_its_bound_is_refused() -> None:
    """Weights further from the prior's than learning can bring them come from elsewhere."""
    model = Logistic()
    model.load_prior(_taught().state_dict())
    state = model.state_dict()
    state["weights"]["f0"] += 2 * RADIUS
    with pytest.raises(StateError, match="within"):
        Logistic().load_state_dict(state)


def test_the_baseline_follows_surprise() -> None:
    """The rule's answer rises with the largest surprise and never exceeds 0.3."""
    rule = Baseline()
    answers = [rule.predict({"standard.grad_surprise": value / 10}) for value in range(-80, 81)]
    assert answers == sorted(answers)
    assert answers[90] < 0.001
    assert 0.29 < answers[-1] <= 0.3


def test_drivers_are_the_largest_causes() -> None:
    """The feature that carries the signal is named first; those that lower the answer are left out."""
    named = explain(_taught(), {**dict.fromkeys(NAMES, -0.1), "f0": 4.0})
    assert named[0][0] == "f0"
    assert len(named) <= 3
    assert all(share > 0 for _, share in named)
