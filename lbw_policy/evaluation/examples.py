"""A corpus as arrays: each run's features, computed once as a guard does, and what each step counts for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from lbw_policy.corpora import BENIGN, CorpusRun
from lbw_policy.risk.features import STANDARD_FEATURES, StandardFeatures, non_finite
from lbw_policy.runtime.cadence import standard_cadence

Floats = NDArray[np.float64]
Truths = NDArray[np.bool_]


@frozen(eq=False)
class Example:
    """One run. `points` has a row a step and a column a standard feature, NaN where it is absent.

    `asked` tells at which steps a model is asked at all; `certain` where the hard rule for non-finite values
    answers instead. What is after the divergence counts for nothing.
    """

    run: CorpusRun
    points: Floats
    asked: Truths
    certain: Truths
    losses: Floats
    norms: Floats

    @property
    def steps(self) -> int:
        """Steps up to the divergence, or to the end."""
        return self.run.steps if self.run.diverged_at is None else self.run.diverged_at

    @property
    def calm(self) -> Truths:
        """Where an alarm is false beyond doubt: runs in which nothing is wrong, and steps before a fault."""
        steps = np.arange(self.steps)
        return steps >= 0 if self.run.group == BENIGN else steps < (self.run.start or 0)

    @property
    def healing(self) -> Truths:
        """Steps after a fault that the run survived by itself."""
        return ~self.calm if self.run.diverged_at is None else np.zeros(self.steps, bool)

    def labels(self, horizon: int) -> NDArray[np.int8]:
        """Return 1 where the run diverges within the horizon, else 0; -1 where that lies before its fault.

        What nothing announces yet cannot be predicted and is left out.
        """
        found = np.zeros(self.steps, np.int8)
        if self.run.diverged_at is not None:
            near = np.arange(self.steps) >= self.steps - horizon
            found[near] = 1
            found[near & self.calm] = -1
        return found


def examples(runs: Iterable[CorpusRun]) -> list[Example]:
    """Return the runs with their features; raises TraceError where a run's file is damaged."""
    return [example(run) for run in runs]


def example(run: CorpusRun) -> Example:
    """Return one run with its features, read at the cadence of a guard."""
    standard, losses, norms = StandardFeatures(), [], []
    end = run.steps if run.diverged_at is None else run.diverged_at
    points = np.full((end, len(STANDARD_FEATURES)), np.nan)
    asked, certain = np.zeros(end, bool), np.zeros(end, bool)
    for step, values in enumerate(ticks(run, end)):
        features = standard.update(values)
        certain[step] = non_finite(values)
        asked[step] = standard.ready and bool(features) and not certain[step]
        losses.append(values.get("loss"))
        norms.append(values.get("grad_norm"))
        for name, value in features.items():
            points[step, PLACES[name]] = value
    return Example(run, points, asked, certain, _column(losses), _column(norms))


PLACES = {name: place for place, name in enumerate(STANDARD_FEATURES)}


def ticks(run: CorpusRun, end: int) -> Iterator[dict[str, float | None]]:
    """Yield what a guard would read at each step before `end`, by source: None where nothing is there, or due."""
    telemetry = run.telemetry()
    due = [(source, telemetry[source], every) for source, every in standard_cadence().items() if source in telemetry]
    for step in range(end):
        yield {source: None if step % every else column[step] for source, column, every in due}


def _column(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], float)
