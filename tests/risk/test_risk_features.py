from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_streams import dice, healthy

from lbw_policy.errors import StateError
from lbw_policy.risk import STANDARD_SOURCES
from lbw_policy.risk.features import HOLD, READY, STANDARD_FEATURES, StandardFeatures, non_finite, own_features
from lbw_policy.risk.height import Height
from lbw_policy.risk.running import BOUND, WARM, Track
from lbw_policy.semantics.signals import SIGNALS

HOSTILE = st.one_of(
    st.none(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, 0.0, 5e-324]),
)
TICK = st.fixed_dictionaries({}, optional=dict.fromkeys(STANDARD_SOURCES, HOSTILE))


def _warmed(seed: int = 0, ticks: int = 60) -> StandardFeatures:
    rng, features = dice(seed), StandardFeatures()
    for tick in range(ticks):
        features.update(healthy(rng, tick))
    return features


def test_sources_are_signals_of_the_language() -> None:
    """Every source is one the telemetry knows."""
    assert set(STANDARD_SOURCES) <= set(SIGNALS)


def test_all_features_stand_once_warm() -> None:
    """Absolute features stand at once, ready after READY ticks; the declared ones all do from tick WARM + 1 on."""
    features, rng = StandardFeatures(), dice(0)
    for tick in range(WARM):
        assert features.ready == (tick >= READY)
        early = set(features.update(healthy(rng, tick)))
        assert {"standard.update_level", "standard.loss_height"} <= early < set(STANDARD_FEATURES)
    assert set(features.update(healthy(rng, WARM))) == set(STANDARD_FEATURES)


@settings(max_examples=60, deadline=None)
@given(st.lists(TICK, max_size=60))
def test_features_are_finite_and_bounded(ticks: list[dict[str, float | None]]) -> None:
    """Whatever the telemetry, features and state stay finite, features within the bound."""
    features = _warmed(ticks=30)
    for values in ticks:
        assert all(-BOUND <= value <= BOUND for value in features.update(values).values())
    json.dumps(features.state_dict(), allow_nan=False)


@given(st.dictionaries(st.text(max_size=3), HOSTILE))
def test_own_features_are_finite_and_bounded(extra: dict[str, float | None]) -> None:
    """A policy's own features are bounded; absent or unknown ones are left out."""
    own = own_features(extra)
    assert all(-BOUND <= value <= BOUND for value in own.values())
    assert set(own) == {name for name, value in extra.items() if value is not None and not math.isnan(value)}


@pytest.mark.parametrize("power", [-3, 3])
def test_features_do_not_depend_on_scale(power: int) -> None:
    """The same run with loss, norms, curvature and variance in other units gives the same features."""
    scale, plain, scaled = 10.0**power, StandardFeatures(), StandardFeatures()
    rng = dice(3)
    for tick in range(120):
        values = healthy(rng, tick)
        units = ("loss", "lr", "grad_norm", "param_norm")
        other = {name: value * scale if name in units and value else value for name, value in values.items()}
        assert scaled.update(other) == pytest.approx(plain.update(values), abs=1e-6)


def test_the_update_ratio_is_absolute() -> None:
    """An update ratio ten times larger from the start shows in its level by log 10, and only there."""
    small, large, rng = StandardFeatures(), StandardFeatures(), dice(1)
    for tick in range(80):
        values = healthy(rng, tick)
        one, two = small.update(values), large.update({**values, "update_ratio": values["update_ratio"] * 10})
    changed = {name: two[name] - one[name] for name in one if abs(two[name] - one[name]) > 1e-6}
    assert changed == {"standard.update_level": pytest.approx(math.log(10))}


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e100, max_value=1e100))
def test_one_reading_cannot_poison_a_baseline(value: float) -> None:
    """One reading, however large, moves the mean by at most 0.06 spreads and the spread by at most 8 %."""
    rng, track = dice(0), Track()
    for _ in range(200):
        track.push(rng.gauss(0, 1))
    mean, spread = track.mean, track.spread()
    track.push(value)
    assert abs(track.mean - mean) <= 0.0601 * spread
    assert track.spread() <= 1.08 * spread


def test_a_spike_does_not_mask_the_next() -> None:
    """After a spike of 1_000 spreads the next one is nearly as surprising."""
    rng, track = dice(0), Track()
    for _ in range(200):
        track.push(rng.gauss(0, 1))
    assert track.push(1e3)
    first = track.surprise
    assert track.push(1e3)
    assert track.surprise > first - 0.2


def test_a_lasting_change_is_learned() -> None:
    """A shift of 50 spreads stops being surprising within 300 readings."""
    rng, track = dice(0), Track()
    for _ in range(200):
        track.push(rng.gauss(0, 1))
    assert all(track.push(50 + rng.gauss(0, 1)) for _ in range(300))
    assert abs(track.surprise) < 1.5


def test_a_silent_source_stands_for_a_while_then_leaves() -> None:
    """A feature whose source falls silent is kept for HOLD ticks and absent after that."""
    features = _warmed()
    values = {"loss": 2.0}
    kept = [features.update(values) for _ in range(HOLD + 1)]
    assert "standard.grad_trend" in kept[HOLD - 1]
    assert "standard.grad_trend" not in kept[HOLD]
    assert "standard.loss_surprise" in kept[HOLD]


def test_height_is_one_where_a_run_counts_as_diverged() -> None:
    """From 10 down to 2, the bar lies half of the way back: a loss of 6 stands at height 1, one of 2 near 0."""
    height = Height()
    for loss in (10.0, *[2.0] * 200):
        height.push(loss)
    assert abs(height.now) < 0.01
    height.push(6.0)
    assert height.now == pytest.approx(1.0, abs=0.02)
    assert height.low < 0.01


def test_height_does_not_creep_along() -> None:
    """A loss that creeps up by 1 % a tick for 150 ticks is seen as far above its best, however slow the creep."""
    height, loss = Height(), 2.0
    for each in (10.0, *[2.0] * 200):
        height.push(each)
    for _ in range(150):
        loss *= 1.01
        height.push(loss)
    assert height.now > 1.5
    assert height.climb_long > 0.3


@given(st.floats(min_value=-1e100, max_value=1e100))
def test_one_loss_cannot_poison_the_height(loss: float) -> None:
    """One loss, however large or small, leaves the quick mean where it was 40 ticks later, at most a rise lower."""
    height, twin = Height(), Height()
    for each in (10.0, *[2.0] * 100):
        height.push(each)
        twin.push(each)
    height.push(loss)
    for _ in range(60):
        height.push(2.0)
        twin.push(2.0)
    assert -0.01 <= height.mean <= 1.0 or height.mean == pytest.approx(twin.mean, abs=0.01)


@pytest.mark.parametrize("name", ["loss", "grad_norm", "param_norm", "nonfinite_grads", "nonfinite_params"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_is_a_rule(name: str, value: float) -> None:
    """A NaN or infinite loss, norm or count breaks the rule; so does a count of one; absence does not."""
    assert non_finite({name: value})
    assert non_finite({"nonfinite_grads": 1.0})
    assert not non_finite({name: None})
    assert not non_finite({name: 0.0})
    assert not non_finite({"curvature": value})


def test_state_round_trip_is_exact() -> None:
    """Features restored from JSON go on bit for bit alike."""
    one, two = _warmed(), StandardFeatures()
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    rng = dice(9)
    for tick in range(80):
        values = healthy(rng, tick) if tick < 20 else {"loss": 2.0}
        assert two.update(values) == one.update(values)


@pytest.mark.parametrize("moments", [[0.0] * 4, [0.0, -1.0, 0.0], [1e300, 1.0, 0.0], [math.nan] * 3, "x"])
def test_a_damaged_baseline_is_refused(moments: object) -> None:
    """A baseline without three sane moments is a `StateError`."""
    with pytest.raises(StateError):
        Track().load_state_dict({"moments": moments, "early": [], "warm": True})
