"""River's Page-Hinkley test of a bounded stream, its memory plain data."""

from __future__ import annotations

from typing import Any

from lbw_policy.risk import plain

_FEWEST, _DELTA = 30, 0.005


class Drift:
    """Notices that the mean of a stream in [-1, 1] has moved: up, or both ways.

    Page's cumulated deviation from the mean so far, less 0.005 a value (Page 1954; River's `PageHinkley`). `threshold`
    is how much it must add up to. After a finding it starts anew. NaN counts as 0, what is out of bounds as the bound.
    """

    def __init__(self, threshold: float, mode: str) -> None:
        # River takes 0.7 s to import.
        from river.drift import PageHinkley

        # River annotates only part of its methods.
        self._test: Any = PageHinkley(min_instances=_FEWEST, delta=_DELTA, threshold=threshold, mode=mode)
        self.found = 0

    def push(self, value: float) -> bool:
        """Take in a value; tell whether the mean has moved."""
        # INVARIANT: River sees bounded numbers only; after one NaN it would never find a drift again.
        bounded = value if -1.0 <= value <= 1.0 else 1.0 if value > 1.0 else -1.0 if value < -1.0 else 0.0
        self._test.update(bounded)
        self.found += bool(self._test.drift_detected)
        return bool(self._test.drift_detected)

    def state_dict(self) -> dict[str, Any]:
        """Return the test as plain data."""
        test = self._test
        lowest = test._min_increase
        return {
            "found": self.found,
            "count": int(test._x_mean.n),
            "mean": float(test._x_mean.get()),
            "increase": float(test._sum_increase),
            "decrease": float(test._sum_decrease),
            "lowest": None if lowest == float("inf") else float(lowest),
            "highest": float(test._max_decrease),
            "detected": bool(test.drift_detected),
        }

    def load_state_dict(self, state: object) -> None:
        """Take over a saved test; raise `StateError` where it is damaged."""
        found, count = plain.whole(state, "found"), plain.whole(state, "count")
        names = ("mean", "increase", "decrease", "highest")
        mean, increase, decrease, highest = (plain.number(state, name) for name in names)
        lowest, detected = plain.optional_number(state, "lowest"), plain.truth(state, "detected")
        from river.stats import Mean

        test = self._test
        # River's tests have no setters; these are what its own pickles restore.
        test._reset()
        test._x_mean = Mean._from_state(float(count), mean)
        test._sum_increase, test._sum_decrease, test._max_decrease = increase, decrease, highest
        test._min_increase = float("inf") if lowest is None else lowest
        test._drift_detected = detected
        self.found = found
