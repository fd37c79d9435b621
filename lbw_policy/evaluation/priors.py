"""Makes priors: one that ships, from a corpus; one of a user's own, from recorded runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lbw_policy.corpora import CorpusRun
from lbw_policy.evaluation.counting import Scored, threshold_for
from lbw_policy.evaluation.examples import Example
from lbw_policy.evaluation.fitting import FITS, Rows
from lbw_policy.evaluation.judging import Task, calibrate, crossed
from lbw_policy.risk.prior import Prior

BUDGETS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""False alarms per 1_000 steps for which a prior knows its threshold."""


def train(runs: Sequence[Example], kind: str, task: Task, origin: Mapping[str, Any]) -> Prior:
    """Return a prior fitted to all runs; thresholds and calibration come from architectures left out in turn."""
    fit = FITS[kind]
    held_out = crossed(runs, fit, task)
    return Prior(
        kind=kind,
        horizon=task.horizon,
        model=fit(Rows.of(runs, task.horizon, task.seed)).state,
        thresholds=thresholds(held_out),
        calibration=calibrate(held_out, task.horizon),
        origin=origin,
    )


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
