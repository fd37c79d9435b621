from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbw_policy.errors import StateError
from lbw_policy.risk.divergence import TROUBLE, Divergence, sustain
from lbw_policy.risk.labels import Labels, Sample

H = 10


def _sample(tick: int) -> Sample:
    return Sample(tick, {"a": 0.0}, 0.1, -2.0)


def _run(losses: list[float | None], acts: frozenset[int] = frozenset()) -> dict[int, Sample]:
    """Return the matured samples by tick, checking that each came exactly a horizon later."""
    labels, out = Labels(H), {}
    for tick, loss in enumerate(losses):
        for sample in labels.observe(tick, loss, loss is None or math.isfinite(loss), tick in acts):
            assert tick - sample.tick == H
            out[sample.tick] = sample
        labels.admit(_sample(tick))
    return out


def test_labels_come_exactly_a_horizon_later() -> None:
    """A calm run labels every tick negative, each when its horizon is over, none before."""
    matured = _run([1.0] * 100)
    assert sorted(matured) == list(range(90))
    assert all(sample.label is False for sample in matured.values())


def test_a_non_finite_loss_makes_its_horizon_positive() -> None:
    """The ten ticks before a NaN are positive, those before them negative, the tick itself is none."""
    matured = _run([1.0] * 50 + [math.nan] * 30)
    assert {tick for tick, sample in matured.items() if sample.label} == set(range(40, 50))
    assert {tick for tick, sample in matured.items() if sample.label is False} == set(range(40))
    assert all(sample.event == 50 for sample in matured.values() if sample.label)


def test_a_lasting_crossing_is_divergence() -> None:
    """A loss that stays above the bar makes the ticks before it positive; undecided and troubled ticks get no label."""
    matured = _run([1.0] * 50 + [9.0] * 30)
    decided = 50 + sustain(H) - 1
    assert {tick for tick, sample in matured.items() if sample.label} == set(range(decided - H, 50))
    assert {tick for tick, sample in matured.items() if sample.label is None} == set(range(50 - H, decided - H))
    assert max(matured) == 49


def test_a_short_crossing_is_none() -> None:
    """A crossing that heals before it counts leaves negatives."""
    matured = _run([1.0] * 50 + [9.0] * (sustain(H) - 1) + [1.0] * 40)
    assert not any(sample.label for sample in matured.values())
    assert matured[48].label is False


def test_an_intervention_censors_a_horizon_both_ways() -> None:
    """An intervention at t takes the label from `[t - h, t + h]` and from no other tick."""
    matured = _run([1.0] * 120, frozenset({60}))
    assert {tick for tick, sample in matured.items() if sample.label is None} == set(range(50, 71))


def test_an_intervention_hides_a_divergence_of_the_same_tick() -> None:
    """A NaN that is skipped at once proves nothing about the ticks before it."""
    matured = _run([1.0] * 50 + [math.nan] + [1.0] * 40, frozenset({50}))
    assert not any(sample.label for sample in matured.values())
    assert all(matured[tick].label is None for tick in range(40, 50))


def test_what_has_happened_stays() -> None:
    """An intervention after a divergence does not take back the labels that it settled."""
    matured = _run([1.0] * 50 + [math.nan] * 30, frozenset({51}))
    assert {tick for tick, sample in matured.items() if sample.label} == set(range(40, 50))


@given(
    st.lists(st.one_of(st.floats(), st.sampled_from([1.0, 1.0, 1.0, 9.0])), min_size=30, max_size=120),
    st.frozensets(st.integers(0, 120), max_size=5),
)
def test_no_open_label_survives_an_intervention(losses: list[float], acts: frozenset[int]) -> None:
    """Near an intervention only a divergence that came before it can have settled a label."""
    for tick, sample in _run(losses, acts).items():
        near = [act for act in acts if abs(act - tick) <= H and act < len(losses)]
        if near and sample.label is not None:
            assert sample.event is not None
            assert sample.event < min(near)


def test_without_a_loss_nothing_is_negative() -> None:
    """A run whose loss is never observed gives no labels: nobody looked."""
    assert all(sample.label is None for sample in _run([None] * 60).values())


def test_a_gap_censors() -> None:
    """Ticks that waited across a gap get no label, for what happened meanwhile is unknown."""
    labels = Labels(H)
    for tick in range(20):
        labels.observe(tick, 1.0, True, False)
        labels.admit(_sample(tick))
    assert [sample.label for sample in labels.observe(200, 1.0, True, False)] == [None] * 10
    assert labels.observe(5, 1.0, True, False) == []


def test_a_new_normal_is_learned() -> None:
    """After TROUBLE ticks above the bar the new height is the reference and labels come again."""
    matured = _run([1.0] * 50 + [9.0] * (TROUBLE + 60))
    assert matured[50 + TROUBLE + 20].label is False


@given(st.lists(st.floats(), max_size=60))
def test_divergence_state_is_finite(losses: list[float]) -> None:
    """Losses of any size leave the outcome stream plain and finite."""
    divergence = Divergence()
    for loss in losses:
        divergence.observe(loss, math.isfinite(loss))
    json.dumps(divergence.state_dict(), allow_nan=False)


def test_the_bar_is_that_of_the_definition() -> None:
    """First 10, now 2: the bar is 2 + max(0.5 (10 - 2), 0.5 2)."""
    divergence = Divergence()
    for loss in [10.0] * 10 + [2.0] * 100:
        divergence.observe(loss, finite=True)
    assert divergence.bar() == 6.0


def test_label_state_round_trip_is_exact() -> None:
    """Labels restored from JSON in the middle of a crossing mature alike."""
    one, two = Labels(H), Labels(H)
    for tick, loss in enumerate([1.0] * 50 + [9.0] * 3):
        one.observe(tick, loss, True, tick == 20)
        one.admit(_sample(tick))
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for tick in range(53, 80):
        assert two.observe(tick, 9.0, True, False) == one.observe(tick, 9.0, True, False)


def test_damaged_labels_are_refused() -> None:
    """Waiting ticks out of order are a `StateError`."""
    labels = Labels(H)
    for tick in range(5):
        labels.observe(tick, 1.0, True, False)
        labels.admit(_sample(tick))
    state = labels.state_dict()
    state["waiting"].reverse()
    with pytest.raises(StateError):
        Labels(H).load_state_dict(state)
