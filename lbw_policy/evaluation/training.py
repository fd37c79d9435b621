"""Trains priors on recorded runs: what a model is to know, where its alarms begin, how honest its numbers are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen

from lbw_policy.corpora import CorpusRun
from lbw_policy.evaluation.counting import ALWAYS, NEVER, Scored, threshold_for
from lbw_policy.evaluation.examples import Example, Floats
from lbw_policy.evaluation.fitting import DIGITS, FITS, Fitted, Rows
from lbw_policy.evaluation.folds import by_architecture
from lbw_policy.risk.calibration import MOST_KNOTS, Calibration
from lbw_policy.risk.prior import Prior

Fit = Callable[[Rows], Fitted]
FEWEST = 30
"""Steps that a calibrated probability must stand on."""
BUDGETS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""False alarms per 1_000 steps for which a prior knows its threshold."""


@frozen(eq=False)
class Trained:
    """A prior, and the same model as a function of many rows."""

    prior: Prior
    fitted: Fitted


def train(runs: Sequence[Example], kind: str, task: Task, source: Mapping[str, Any] | None = None) -> Trained:
    """Fit a model to all runs; thresholds and calibration come from architectures left out in turn."""
    fit = FITS[kind]
    held_out = crossed(runs, fit, task)
    fitted = fit(Rows.of(runs, task.horizon, task.seed))
    prior = Prior(
        kind=kind,
        horizon=task.horizon,
        model=fitted.state,
        thresholds=thresholds(held_out),
        calibration=calibrate(held_out, task.horizon),
        origin=source or {},
    )
    return Trained(prior, fitted)


@frozen
class Task:
    """What is predicted, at what price: the horizon, the false alarms per 1_000 steps, the seed of all chance."""

    horizon: int = 10
    budget: float = 0.3
    seed: int = 0


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
    """Return the calibration of scores of runs not trained on; none where there are no divergences among them."""
    scores, labels = labelled(scored, horizon)
    known = (scores > NEVER) & (scores < ALWAYS)
    return line_of(scores[known], labels[known]) if labels[known].any() else Calibration()


def line_of(scores: Floats, labels: Floats) -> Calibration:
    """Return the rising line from scores to the log-odds of what came of them, by isotonic regression."""
    from sklearn.isotonic import IsotonicRegression

    levels = IsotonicRegression(out_of_bounds="clip").fit_transform(scores, labels)
    return _line(scores, labels, levels)


def _line(scores: Floats, labels: Floats, levels: Floats) -> Calibration:
    """Return a knot in the middle of each stretch of isotonic levels that has `FEWEST` steps, at the share that came.

    A handful of steps is no certainty: what lies above the last whole stretch belongs to it.
    """
    order = np.argsort(scores, kind="stable")
    edges = np.flatnonzero(np.diff(levels[order])) + 1
    cuts = [0]
    for edge in edges:
        if edge - cuts[-1] >= FEWEST and len(order) - edge >= FEWEST:
            cuts.append(int(edge))
    parts = np.split(order, cuts[1:])
    keep = np.unique(np.linspace(0, len(parts) - 1, MOST_KNOTS).astype(int))
    knots = [float(scores[parts[at]].mean()) for at in keep]
    told = np.clip([float(labels[parts[at]].mean()) for at in keep], 0.5 / len(order), 0.99)
    odds = np.log(told / (1.0 - told))
    return Calibration(tuple(round(knot, DIGITS) for knot in knots), tuple(round(float(each), DIGITS) for each in odds))


def labelled(scored: Sequence[Scored], horizon: int) -> tuple[Floats, Floats]:
    """Return all scores whose steps have a label, with the labels."""
    pairs = [(each.scores, each.example.labels(horizon)) for each in scored]
    scores = np.concatenate([scores[labels >= 0] for scores, labels in pairs])
    return scores, np.concatenate([labels[labels >= 0] for _, labels in pairs]).astype(float)


def origin(runs: Sequence[CorpusRun], seed: int) -> dict[str, Any]:
    """Return where a prior comes from: the corpus in numbers, and how to make both again."""
    return {
        "command": f"lbw risk train CORPUS --seed {seed}",
        "runs": len(runs),
        "steps": sum(run.steps for run in runs),
        "diverged": sum(run.diverged for run in runs),
        "architectures": sorted({run.architecture for run in runs}),
        "faults": sorted({run.fault for run in runs}),
        "corpus": hashlib.sha256(json.dumps([run.entry() for run in runs], sort_keys=True).encode()).hexdigest(),
    }


def thresholds(scored: Sequence[Scored]) -> tuple[tuple[float, float], ...]:
    """Return pairs of a budget, as false alarms a tick, and the threshold that keeps to it, falling."""
    found: list[tuple[float, float]] = []
    for budget in BUDGETS:
        threshold = threshold_for(scored, budget)
        if found and threshold >= found[-1][1]:
            threshold = found[-1][1] - 1e-6
        found.append((budget / 1000.0, round(threshold, 6)))
    return tuple(found)
