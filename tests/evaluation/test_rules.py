"""The rules of others, against their published definitions."""

from __future__ import annotations

import numpy as np
from attrs import evolve

from lbw_policy.evaluation.counting import NEVER
from lbw_policy.evaluation.examples import Example
from lbw_policy.evaluation.rules import RULES, skip_step, zclip


def _with(runs: list[Example], losses: np.ndarray, norms: np.ndarray) -> Example:
    one = next(each for each in runs if not each.run.diverged)
    return evolve(one, losses=losses[: one.steps], norms=norms[: one.steps])


def test_skip_step_is_the_larger_z_over_the_128_before(runs: list[Example]) -> None:
    """From the 64th value on, |x - mean| / std (n - 1) over the values before, outliers included, of loss and norm."""
    dice = np.random.default_rng(0)
    losses, norms = dice.normal(size=160), dice.normal(size=160)
    scores = skip_step(_with(runs, losses, norms))
    assert (scores[:63] == NEVER).all()
    for step in (63, 100, 150):
        begin = max(step - 128, 0)
        z = [abs(v[step] - v[begin:step].mean()) / v[begin:step].std(ddof=1) for v in (losses, norms)]
        assert np.isclose(scores[step], max(z))


def test_one_nan_stops_skip_step_for_its_whole_window(runs: list[Example]) -> None:
    """Its z is NaN, which is not at most 6: every step is skipped until the NaN has left the window."""
    losses = np.random.default_rng(0).normal(size=160)
    losses[70] = np.nan
    scores = skip_step(_with(runs, losses, np.ones(160) + losses * 0.0 + np.arange(160)))
    assert (scores[70:] > 1e7).all()


def test_zclip_is_blind_after_one_nan(runs: list[Example]) -> None:
    """Its mean is NaN from then on, and no z is above any threshold."""
    norms = np.abs(np.random.default_rng(0).normal(size=160)) + 1
    norms[60] = np.nan
    scores = zclip(_with(runs, np.ones(160), norms))
    assert (scores[25:60] > NEVER).all()
    assert (scores[60:] == NEVER).all()


def test_zclip_learns_the_clipped_norm(runs: list[Example]) -> None:
    """A spike of 100 moves the mean by what it was clipped to, so the same spike right after is still an outlier."""
    norms = np.abs(np.random.default_rng(0).normal(size=160)) + 1
    norms[60:63] = 100.0
    scores = zclip(_with(runs, np.ones(160), norms))
    assert (scores[60:63] > 2.5).all()


def test_every_rule_scores_every_step_with_a_number(runs: list[Example]) -> None:
    """Whatever the telemetry, NaN and infinity too, a score is a number that thresholds can be compared with."""
    losses = np.random.default_rng(0).normal(size=160)
    losses[[20, 90]] = np.inf, np.nan
    for rule in RULES:
        assert np.isfinite(rule.score(_with(runs, losses, losses))).all(), rule.name
