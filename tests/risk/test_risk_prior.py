from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from risk_streams import risk

from lbw_policy.errors import StateError
from lbw_policy.resources import priors
from lbw_policy.risk import MODELS, RiskModel, starting
from lbw_policy.risk.alarm import SCORE_BOUND, log_odds
from lbw_policy.risk.calibration import Calibration
from lbw_policy.risk.features import STANDARD_FEATURES
from lbw_policy.risk.pieces import feature_of
from lbw_policy.risk.prior import MOST_BYTES, Prior, read_prior, shipped, write_prior

BASE = {"counts": {}, "means": {}, "variances": {}, "weights": {}, "intercept": -5.0, "pieces": {}}


def _prior() -> Prior:
    return Prior("logistic", 10, BASE, ((1e-4, -2.0), (1e-3, -3.0)), Calibration((-6.0, 0.0), (-7.0, -1.0)))


@pytest.mark.parametrize("kind", sorted(priors()))
def test_what_ships_is_sane(kind: str) -> None:
    """Each shipped prior is of a built-in model, knows the standard features only, and is taken by its model."""
    prior = shipped(kind)
    assert prior is not None
    assert kind in MODELS
    assert prior.kind == kind
    assert len(prior.thresholds) >= 5
    assert priors()[kind].stat().st_size < 300_000
    model = RiskModel(risk(model=kind), prior=prior)
    assert model.threshold == prior.threshold(3e-4)
    assert len(json.dumps(model.state_dict())) < MOST_BYTES
    names = {feature_of(name) for name in prior.model.get("names") or prior.model["weights"]}
    assert names <= set(STANDARD_FEATURES)
    assert prior.origin["runs"] > 300
    assert not prior.base


def test_models_that_need_a_prior_have_one() -> None:
    """`logistic` and `trees` start from what ships; a policy without standard features starts from nothing."""
    assert {"logistic", "trees"} <= set(priors())
    assert starting(risk()) == shipped("logistic")
    assert starting(risk(standard=False)) is None
    assert starting(risk(model="anomaly")) is None


def test_a_file_holds_a_prior_exactly(tmp_path: Path) -> None:
    """Written and read again it is equal; the same prior gives the same bytes."""
    write_prior(_prior(), tmp_path / "a.json")
    write_prior(read_prior(tmp_path / "a.json"), tmp_path / "b.json")
    assert read_prior(tmp_path / "b.json") == _prior()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@given(st.floats(1e-6, 1e-1), st.floats(1, 10))
def test_a_larger_budget_has_a_lower_threshold(budget: float, factor: float) -> None:
    """Between and beyond the known budgets the threshold falls as the budget grows, and it meets the known ones."""
    prior = _prior()
    low, high = prior.threshold(budget * factor), prior.threshold(budget)
    assert low is not None
    assert high is not None
    assert low <= high + 1e-9
    assert prior.threshold(1e-4) == pytest.approx(-2.0)
    assert prior.threshold(0.0) is None


@pytest.mark.parametrize(
    ("key", "damage"),
    [
        ("version", 99),
        ("horizon", 0),
        ("thresholds", [[1e-3, -2.0], [1e-4, -3.0]]),
        ("thresholds", [[1e-4, -3.0], [1e-3, -2.0]]),
        ("thresholds", [[1e-4]]),
        ("calibration", {"scores": [1.0, 0.0], "values": [0.0, 1.0]}),
        ("calibration", {"scores": [0.0, 1.0], "values": [1.0, 0.0]}),
        ("model", {"weights": {"import os": 1.0}}),
        ("model", 3),
        ("kind", None),
    ],
)
def test_a_damaged_prior_is_refused_with_its_file(tmp_path: Path, key: str, damage: object) -> None:
    """Whatever is damaged is a `StateError` that names the file."""
    (tmp_path / "p.json").write_text(json.dumps({**_prior().plain(), key: damage}))
    with pytest.raises(StateError, match=r"p\.json"):
        read_prior(tmp_path / "p.json")


@pytest.mark.parametrize("text", ["", "[", '{"version": NaN}', "[" * 100_000, '{"a": 1}'])
def test_what_is_no_prior_is_refused(tmp_path: Path, text: str) -> None:
    """No JSON, NaN, endless nesting or another object: never a traceback of Python's own."""
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(StateError, match=r"p\.json"):
        read_prior(tmp_path / "p.json")
    with pytest.raises(StateError, match="cannot be read"):
        read_prior(tmp_path / "missing.json")


def test_weights_beyond_the_radius_are_refused() -> None:
    """A local prior whose weights lie further from its anchor than learning could take them was tampered with."""
    name = STANDARD_FEATURES[0]
    moments: dict[str, Any] = {"counts": {name: 1.0}, "means": {name: 0.0}, "variances": {name: 1.0}}
    model = {**BASE, **moments, "weights": {name: 9.0}, "anchor": {name: 0.0}, "anchor_intercept": -5.0}
    with pytest.raises(StateError, match=r"within 0\.3 of those it started from"):
        RiskModel(risk(), prior=Prior("logistic", 10, model))


@given(st.floats(0, 1), st.floats(0, 1))
def test_calibration_ranks_as_the_score_does(one: float, other: float) -> None:
    """A calibrated probability is in [0, 1] and never turns an order around."""
    line = Calibration((-6.0, -2.0, 0.0), (-8.0, -8.0, -1.0))
    low, high = sorted((one, other))
    assert 0.0 <= line(low) <= line(high) <= 1.0
    assert line.line(-SCORE_BOUND) == -8.0
    assert Calibration()(one) == one


def test_a_longer_horizon_is_more_likely_to_see_a_divergence() -> None:
    """A prior for 10 steps tells a risk of 20 a larger probability, as a constant rate would; alarms stay the same."""
    found = {}
    for horizon in (5, 10, 20):
        model = RiskModel(risk(horizon=horizon), prior=_prior())
        found[horizon] = model._calibrated(0.2)
        assert model.threshold == _prior().threshold(3e-4)
    assert found[10] == pytest.approx(1 / (1 + math.exp(-_prior().calibration.line(log_odds(0.2)))))
    assert (1 - found[10]) ** 2 == pytest.approx(1 - found[20])
    assert (1 - found[5]) ** 2 == pytest.approx(1 - found[10])
