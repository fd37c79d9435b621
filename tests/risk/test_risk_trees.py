from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_streams import dice

from lbw_policy.errors import StateError
from lbw_policy.risk.anomaly import Anomaly
from lbw_policy.risk.logistic import RADIUS
from lbw_policy.risk.registry import ask, explain
from lbw_policy.risk.trees import SUM, Tree, Trees

STUMP = Tree((0, -1, -1), (1.5, 0.0, 0.0), (1, 0, 0), (2, 0, 0), (0.0, -1.0, 3.0))
HEAD = {
    "counts": {SUM: 1},
    "means": {SUM: 0.0},
    "variances": {SUM: 1.0},
    "weights": {SUM: 1.0},
    "intercept": -4.0,
    "pieces": {},
}
PRIOR = {"names": ["a", "b"], "typical": [0.0, 0.0], "trees": [STUMP.plain(), STUMP.plain()], "head": HEAD}


def _trees() -> Trees:
    model = Trees()
    model.load_prior(PRIOR)
    return model


@pytest.mark.parametrize(("value", "total"), [(1.5, -2.0), (1.6, 6.0), (None, -2.0)])
def test_the_answer_is_the_sum_of_leaves(value: float | None, total: float) -> None:
    """Two stumps add up in log-odds to the base; an absent feature is typical."""
    features = {"b": 0.0} if value is None else {"a": value, "b": 0.0}
    assert _trees().predict(features) == pytest.approx(1 / (1 + math.exp(4.0 - total)))


def test_drivers_name_the_feature_that_was_compared() -> None:
    """Each comparison's step in value goes to its feature; together they are the sum."""
    shares = dict(_trees().drivers({"a": 2.0, "b": 5.0}))
    assert shares == {"a": 6.0, "b": 0.0}
    assert explain(_trees(), {"a": 2.0, "own": 1.0})[0][0] == "a"


def test_the_sum_is_refined_near_the_prior() -> None:
    """Under 20_000 negatives the answer to what the trees call risky falls, by a bounded part of its log-odds."""
    model, rng = _trees(), dice(0)
    before = model.predict({"a": 2.0})
    for _ in range(20_000):
        model.learn({"a": 2.0 if rng.random() < 0.05 else 0.0, "own": rng.gauss(0, 1)}, False)
    after = model.predict({"a": 2.0})
    assert after < before
    assert math.log(before / (1 - before)) - math.log(after / (1 - after)) <= RADIUS * math.hypot(6.0, 1.0) + 1e-6


def test_trees_are_rebuilt_bit_for_bit() -> None:
    """Rebuilt from JSON they answer alike, and still do after both learned on."""
    one, two, rng = _trees(), Trees(seed=5), dice(1)
    two.load_state_dict(json.loads(json.dumps(one.state_dict(), allow_nan=False)))
    for _ in range(300):
        features, label = {"a": rng.uniform(-8, 8), "own": rng.gauss(0, 1)}, rng.random() < 0.2
        assert one.predict(features) == two.predict(features)
        one.learn(features, label)
        two.learn(features, label)
    assert one.state_dict() == two.state_dict()


@pytest.mark.parametrize(
    "damage",
    [
        {"left": [0, 0, 0]},
        {"left": [7, 0, 0]},
        {"feature": [2, -1, -1]},
        {"feature": [0.5, -1, -1]},
        {"value": [0.0, math.nan, 1.0]},
        {"bound": [1.0]},
        {"feature": [], "bound": [], "left": [], "right": [], "value": []},
    ],
)
def test_a_tree_that_would_not_end_is_refused(damage: dict[str, list[float]]) -> None:
    """A path that goes back, out, or to a feature that is not there is a `StateError`, not an endless loop."""
    with pytest.raises(StateError):
        Trees().load_prior({**PRIOR, "trees": [{**STUMP.plain(), **damage}]})


def test_without_a_prior_trees_are_not_informed() -> None:
    """There are no trees to ask, and the model says so."""
    assert not Trees().informed
    assert ask(Trees(), {"a": 1.0}) == pytest.approx(0.0067, abs=1e-4)


def _usual(count: int) -> Anomaly:
    model, rng = Anomaly(), dice(3)
    for _ in range(count):
        model.learn({"a": rng.gauss(0, 1), "b": rng.gauss(2, 0.5), "same": 1.0}, False)
    return model


def test_what_is_strange_is_scored_high() -> None:
    """After 300 quiet ticks a tick ten spreads away scores near the most, a usual one near 0; the cause is named."""
    model = _usual(300)
    assert model.predict({"a": 0.3, "b": 2.0, "same": 1.0}) < 0.001
    assert model.predict({"a": 8.0, "b": 8.0}) > 0.2
    assert explain(model, {"a": 8.0, "b": 2.0})[0][0] == "a"


def test_divergences_and_few_ticks_teach_nothing() -> None:
    """A positive is not taken for usual, and before many quiet ticks nothing is called strange."""
    model = _usual(300)
    for _ in range(300):
        model.learn({"a": 8.0, "b": 8.0}, True)
    assert model.predict({"a": 8.0, "b": 8.0}) > 0.2
    assert _usual(3).predict({"a": 8.0, "b": 8.0}) < 0.01


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.dictionaries(st.sampled_from("abc"), st.floats()), st.booleans()), max_size=40))
def test_hostile_numbers_leave_no_trace(points: list[tuple[dict[str, float], bool]]) -> None:
    """NaN, inf and 1e300 asked or learned leave answers in [0, 1] and a finite state, of both models."""
    for model in (_trees(), Anomaly()):
        for features, label in points:
            model.learn(features, label)
            assert ask(model, features) is not None
        json.dumps(model.state_dict(), allow_nan=False)
