"""How well a model does in a run: alarms and divergences counted by River's metrics, its memory plain data."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from lbw_policy.risk import plain


@frozen
class Standing:
    """What has become known of a model's answers in this run.

    `precision` is the share of alarms that trouble followed, `recall` the share of divergences that an alarm came
    before, `skill` the Brier skill against the base rate (1: perfect, 0: no better), over the last 1_000 labels or so.
    `expected` and `observed` are the positives its probabilities add up to and those there were, over the same labels:
    alike where it is calibrated. `drifts` counts how often its errors grew, `shifts` how often its scores of quiet
    ticks moved. None: not known yet.
    """

    labels: int
    alarms: int
    divergences: int
    precision: float | None
    recall: float | None
    skill: float | None
    expected: float
    observed: float
    drifts: int
    shifts: int

    def __str__(self) -> str:
        parts = [f"{self.labels} labels"]
        if self.precision is not None:
            parts.append(f"{_share(self.precision, self.alarms)} alarms true")
        if self.recall is not None:
            parts.append(f"{_share(self.recall, self.divergences)} divergences foreseen")
        if self.skill is not None and self.observed >= 1.0:
            parts.append(f"Brier skill {self.skill:.2f}")
        if self.drifts:
            parts.append(f"errors grew {self.drifts} time{'s' * (self.drifts != 1)}")
        return ", ".join(parts)


def _share(share: float, of: int) -> str:
    return f"{round(share * of)} of {of}"


class Events:
    """Alarms and divergences: how many were true, false, missed. Those that an intervention hides do not count."""

    def __init__(self) -> None:
        # River takes 0.7 s to import.
        from river import metrics

        # River annotates only part of its methods. An alarm is a prediction, trouble the truth.
        made: Any = metrics
        self._cells, self._foreseen = made.ConfusionMatrix(), made.ConfusionMatrix()
        self._precision, self._recall = made.Precision(cm=self._cells), made.Recall(cm=self._foreseen)

    def alarmed(self, *, true: int, false: int) -> None:
        """Count alarms whose truth has become known."""
        for truth, count in ((True, true), (False, false)):
            if count:
                self._cells.update(truth, True, float(count))

    def diverged(self, *, foreseen: bool) -> None:
        """Count a divergence."""
        self._foreseen.update(True, foreseen)

    @property
    def alarms(self) -> int:
        """Alarms whose truth is known."""
        return int(self._cells.true_positives(True) + self._cells.false_positives(True))

    @property
    def divergences(self) -> int:
        """Divergences, foreseen or missed."""
        return int(self._foreseen.true_positives(True) + self._foreseen.false_negatives(True))

    @property
    def precision(self) -> float | None:
        """The share of true alarms, None without any."""
        return float(self._precision.get()) if self.alarms else None

    @property
    def recall(self) -> float | None:
        """The share of foreseen divergences, None without any."""
        return float(self._recall.get()) if self.divergences else None

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {
            "true": int(self._cells.true_positives(True)),
            "false": int(self._cells.false_positives(True)),
            "foreseen": int(self._foreseen.true_positives(True)),
            "missed": int(self._foreseen.false_negatives(True)),
        }

    def load_state_dict(self, state: object) -> None:
        """Take over saved counts; raise `StateError` where they are damaged."""
        counts = {name: plain.natural(state, name) for name in ("true", "false", "foreseen", "missed")}
        fresh = Events()
        fresh.alarmed(true=counts["true"], false=counts["false"])
        for foreseen, name in ((True, "foreseen"), (False, "missed")):
            if counts[name]:
                fresh._foreseen.update(True, foreseen, float(counts[name]))
        self.__dict__.update(fresh.__dict__)
