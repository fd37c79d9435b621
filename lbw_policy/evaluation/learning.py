"""Folds a user's recorded runs into a prior of their own, never far from the one it started from."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attrs import define, evolve, frozen

from lbw_policy.corpora import MANIFEST, read_manifest
from lbw_policy.errors import TraceError
from lbw_policy.risk import STANDARD_SOURCES, Prior, RiskModel
from lbw_policy.semantics.policy import Risk
from lbw_policy.semantics.signals import EVENTS
from lbw_policy.traces import read_trace

Values = Mapping[str, float | None]
_LOW, _HIGH = 1e-4, 3e-3
"""Budgets between whose thresholds scores are compared."""
_ENOUGH = 20


@frozen
class Recorded:
    """One run: its columns by source, as long as it went."""

    name: str
    columns: Mapping[str, Sequence[float | None]]
    steps: int

    def ticks(self) -> Iterator[tuple[Values, bool]]:
        """Yield each tick's readings, and whether a guard acted at it.

        A trace counts what a guard did at the tick after; so both ticks are taken for touched.
        """
        events = [self.columns[name] for name in EVENTS if name in self.columns]
        touched = [any(column[step] for column in events) for step in range(self.steps)]
        for step in range(self.steps):
            values = {source: self.columns[source][step] for source in STANDARD_SOURCES if source in self.columns}
            yield values, touched[step] or (step + 1 < self.steps and touched[step + 1])


def recorded(path: Path) -> Iterator[Recorded]:
    """Yield the run of a trace, or those of a corpus; raises TraceError for what cannot be read, or has no loss."""
    if (path / MANIFEST).is_file():
        for run in read_manifest(path):
            yield Recorded(run.id, run.telemetry(), run.steps)
        return
    trace = read_trace(path, frozenset(STANDARD_SOURCES) | frozenset(EVENTS))
    if "loss" not in trace.columns:
        raise TraceError(f"{path}: expected a column `loss`, which labels are made of")
    yield Recorded(str(path), {name: list(column) for name, column in trace.columns.items()}, trace.rows)


@define
class Told:
    """What was learned from: runs, labels that became known, positives among them; how far the thresholds moved."""

    runs: int = 0
    labels: int = 0
    positives: float = 0.0
    shift: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.runs} run{'s' * (self.runs != 1)}, {self.labels} labels, {self.positives:.0f} of them before a "
            f"divergence; thresholds moved by {self.shift:+.3f}"
        )


def learn(start: Prior, runs: Sequence[Recorded], seed: int = 0) -> tuple[Prior, Told]:
    """Return a prior that has also seen these runs, and what it learned from.

    Labels are made as in a guarded run: from the losses, with the horizon's delay, censored around what a guard did.
    The weights stay within the model's radius of the prior that `start` goes back to. Thresholds move with the
    scores of calm ticks near them.
    """
    prior, told = evolve(start, base=start.base or start.digest), Told()
    for number, run in enumerate(runs):
        model = RiskModel(_risk(start), seed + number, prior)
        _fold(model, run)
        told.runs += 1
        told.labels += model.standing.labels
        told.positives += model.standing.observed
        prior = evolve(prior, model=model.state_dict()["model"])
    told.shift = _shift(start, prior, runs, seed)
    moved = tuple((budget, threshold + told.shift) for budget, threshold in prior.thresholds)
    return evolve(prior, thresholds=moved, origin={"learned from": told.runs, "labels": told.labels}), told


def _risk(prior: Prior) -> Risk:
    return Risk("learning", prior.horizon, (), True, prior.kind, 0.0, 1, 0.0)


def _fold(model: RiskModel, run: Recorded) -> list[tuple[float, bool]]:
    """Let a model live through a run; return the scores it gave, and whether the tick was calm."""
    scores = []
    for tick, (values, touched) in enumerate(run.ticks()):
        model.assess(tick, values, {})
        score = model.score
        finite = not (values.get("nonfinite_grads") or values.get("nonfinite_params"))
        model.learn(tick, values.get("loss"), finite, touched)
        if score is not None:
            scores.append((score, not model.troubled))
    return scores


def _shift(before: Prior, after: Prior, runs: Sequence[Recorded], seed: int) -> float:
    """Return by how much scores near the thresholds have moved: the median over calm ticks that scored as high before.

    Nothing, where there are too few of them to tell.
    """
    low, high = before.threshold(_HIGH), before.threshold(_LOW)
    if low is None or high is None:
        return 0.0
    moved = []
    for run in runs:
        told = [_fold(RiskModel(_risk(prior), seed, prior), run) for prior in (before, after)]
        pairs = ((old, new) for (old, calm), (new, _) in zip(*told, strict=True) if calm)
        moved += [new - old for old, new in pairs if low <= old <= high]
    return statistics.median(moved) if len(moved) >= _ENOUGH else 0.0
