"""Measures models and rules on runs that they have not seen, at thresholds chosen on runs that they have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from attrs import frozen

from lbw_policy.evaluation.counting import ALWAYS, NEVER, Detection, Scored, threshold_for
from lbw_policy.evaluation.examples import Example, Floats
from lbw_policy.evaluation.fitting import Fitted, Rows
from lbw_policy.evaluation.folds import Fold, by_architecture
from lbw_policy.risk.calibration import MOST_KNOTS, Calibration

Fit = Callable[[Rows], Fitted]


@frozen
class Task:
    """What is predicted, at what price: the horizon, the false alarms per 1_000 steps, the seed of all chance."""

    horizon: int = 10
    budget: float = 0.3
    seed: int = 0


@frozen(eq=False)
class Judged:
    """Runs scored by models that have not seen them, thresholds subtracted, and their calibrated probabilities."""

    scored: tuple[Scored, ...]
    probabilities: tuple[Floats, ...]


def crossed(runs: Sequence[Example], fit: Fit, task: Task) -> list[Scored]:
    """Return each run scored by a model that was fitted to the other architectures among them.

    What sets a threshold and a calibration was thus not trained on either.
    """
    found: dict[int, Scored] = {}
    for fold in by_architecture(runs):
        fitted = fit(Rows.of([runs[place] for place in fold.train], task.horizon, task.seed))
        found |= {place: fitted.scored(runs[place]) for place in fold.test}
    return [found[place] for place in range(len(runs))]


def calibrate(scored: Sequence[Scored], horizon: int) -> Calibration:
    """Return the calibration of scores of runs not trained on, by isotonic regression."""
    from sklearn.isotonic import IsotonicRegression

    scores, labels = labelled(scored, horizon)
    known = (scores > NEVER) & (scores < ALWAYS)
    if not known.any() or len(set(labels[known])) < 2:
        return Calibration()
    isotonic = IsotonicRegression(out_of_bounds="clip")
    isotonic.fit(scores[known], labels[known])
    return _line(isotonic.X_thresholds_, isotonic.y_thresholds_)


def _line(places: Floats, values: Floats) -> Calibration:
    """Return at most `MOST_KNOTS` knots: the middle of each level of the isotonic steps."""
    knots, levels = [], []
    for value in np.unique(values):
        inside = places[values == value]
        knots.append(float(inside.mean()))
        levels.append(float(value))
    keep = np.unique(np.linspace(0, len(knots) - 1, MOST_KNOTS).astype(int))
    odds = [float(np.log(p / (1 - p))) for p in np.clip([levels[at] for at in keep], 1e-5, 1 - 1e-2)]
    return Calibration(tuple(knots[at] for at in keep), tuple(odds))


def labelled(scored: Sequence[Scored], horizon: int) -> tuple[Floats, Floats]:
    """Return all scores whose steps have a label, with the labels."""
    pairs = [(each.scores, each.example.labels(horizon)) for each in scored]
    scores = np.concatenate([scores[labels >= 0] for scores, labels in pairs])
    return scores, np.concatenate([labels[labels >= 0] for _, labels in pairs]).astype(float)


def judge(runs: Sequence[Example], folds: Sequence[Fold], fit: Fit, task: Task) -> Judged:
    """Fit a model to each fold's training runs, and score its test runs at the threshold that those set."""
    found: dict[int, tuple[Scored, Floats]] = {}
    for fold in folds:
        train = [runs[place] for place in fold.train]
        inner = crossed(train, fit, task)
        threshold, calibration = threshold_for(inner, task.budget), calibrate(inner, task.horizon)
        fitted = fit(Rows.of(train, task.horizon, task.seed))
        for place in fold.test:
            scored = fitted.scored(runs[place])
            found[place] = scored.minus(threshold), probabilities(scored, calibration)
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
    """How a score ranks and how a probability fits, over all labelled steps."""

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
    brier = None
    if judged.probabilities:
        pairs = zip(judged.probabilities, judged.scored, strict=True)
        told = [values[each.example.labels(horizon) >= 0] for values, each in pairs]
        brier = float(np.mean((np.concatenate(told) - labels) ** 2))
    base = float(labels.mean() * (1 - labels.mean()))
    return Quality(
        float(roc_auc_score(labels, scores)),
        float(average_precision_score(labels, scores)),
        brier,
        None if brier is None else 1.0 - brier / base,
    )


def detection(judged: Judged) -> Detection:
    """Return what the pooled folds' thresholds catch, and cost."""
    return Detection.of(judged.scored, 0.0)
