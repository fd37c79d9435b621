"""The scaler is River's, to the bit."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from river.preprocessing import StandardScaler

from lbw_policy.risk.running import BOUND, bounded
from lbw_policy.risk.scaling import Scaler

VALUE = st.floats(-BOUND, BOUND) | st.sampled_from([0.0, -0.0, 5e-324, BOUND, 1e300, -math.inf, math.nan])
TICKS = st.lists(st.dictionaries(st.sampled_from("abcd"), VALUE, max_size=4), max_size=40)


@settings(deadline=None)
@given(TICKS)
def test_it_learns_and_scales_as_rivers_scaler_does_on_bounded_values(ticks: list[dict[str, float]]) -> None:
    """Same counts, means, variances and scaled values, in the same order, whatever the stream."""
    ours, rivers = Scaler(), StandardScaler()
    for features in ticks:
        safe = {name: bounded(value) for name, value in features.items()}
        known = {name: value for name, value in safe.items() if name in rivers.counts}
        expected = {name: bounded(value) for name, value in rivers.transform_one(known).items()}
        assert repr(ours.scaled(features)) == repr(expected)
        rivers.learn_one(safe)
        ours.learn(features)
    moments = {name: (count, rivers.means[name], rivers.vars[name]) for name, count in rivers.counts.items()}
    assert repr(ours.moments) == repr(moments)
