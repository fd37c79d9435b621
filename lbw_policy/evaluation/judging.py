"""Measures models and rules on runs that they have not seen, at thresholds chosen on runs that they have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from lbw_policy.evaluation.counting import ALWAYS, NEVER, Scored
from lbw_policy.evaluation.examples import Example, Floats
from lbw_policy.evaluation.folds import Fold
from lbw_policy.evaluation.training import Task, Trained, labelled
from lbw_policy.risk.calibration import Calibration


@frozen(eq=False)
class Judged:
    """Runs scored by models that have not seen them, thresholds subtracted, and their calibrated probabilities."""

    scored: tuple[Scored, ...]
    probabilities: tuple[Floats, ...]


def judge(runs: Sequence[Example], folds: Sequence[Fold], trained: Sequence[Trained], task: Task) -> Judged:
    """Score each fold's test runs by the model of its training runs, at the threshold and calibration of those."""
    found: dict[int, tuple[Scored, Floats]] = {}
    for fold, model in zip(folds, trained, strict=True):
        threshold = model.prior.threshold(task.budget / 1000.0) or 0.0
        for place in fold.test:
            scored = model.fitted.scored(runs[place])
            found[place] = scored.minus(threshold), probabilities(scored, model.prior.calibration)
    order = sorted(found)
    return Judged(tuple(found[place][0] for place in order), tuple(found[place][1] for place in order))


def probabilities(scored: Scored, calibration: Calibration) -> Floats:
    """Return the calibrated probabilities of a run's steps; 0 where nobody is asked, 1 where the hard rule answers."""
    scores = scored.scores
    asked = (scores > NEVER) & (scores < ALWAYS)
    line = np.interp(scores, calibration.scores, calibration.values) if calibration.scores else scores
    return np.where(asked, 1.0 / (1.0 + np.exp(-np.clip(line, -50, 50))), np.where(scores >= ALWAYS, 1.0, 0.0))


@frozen
class Quality:
    """How a score ranks over all labelled steps, and how a probability fits where the model itself gave it."""

    auroc: float
    auprc: float
    brier: float | None
    skill: float | None


def quality(judged: Judged, horizon: int) -> Quality:
    """Return ranking and calibration of scores."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores, labels = labelled(judged.scored, horizon)
    if len(set(labels)) < 2:
        return Quality(float("nan"), float("nan"), None, None)
    brier = base = None
    if judged.probabilities:
        told, came = answered(judged, horizon)
        brier, base = float(np.mean((told - came) ** 2)), float(came.mean() * (1 - came.mean()))
    return Quality(
        float(roc_auc_score(labels, scores)),
        float(average_precision_score(labels, scores)),
        brier,
        None if brier is None or not base else 1.0 - brier / base,
    )


def answered(judged: Judged, horizon: int) -> tuple[Floats, Floats]:
    """Return the probabilities that the model itself gave, without those of the hard rule, and what came."""
    told, came = [], []
    for values, each in zip(judged.probabilities, judged.scored, strict=True):
        labels = each.example.labels(horizon)
        known = (labels >= 0) & (each.scores > NEVER) & (each.scores < ALWAYS)
        told.append(values[known])
        came.append(labels[known].astype(float))
    return np.concatenate(told), np.concatenate(came)
