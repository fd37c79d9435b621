"""Standardises features by their running mean and variance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lbw_policy.errors import StateError
from lbw_policy.risk import plain
from lbw_policy.risk.running import BOUND, bounded


class Scaler:
    """River's `StandardScaler`, to the bit, in half its time: plain dicts, and one pass for scaling and bounding.

    `moments` has each feature's count, mean and population variance (Welford 1962), in the order of arrival.
    """

    def __init__(self, moments: Mapping[str, tuple[int, float, float]] | None = None) -> None:
        self.moments = dict(moments or {})

    def learn(self, features: Mapping[str, float]) -> None:
        """Take in one value of each feature; one out of `[-BOUND, BOUND]` counts as the bound, NaN as 0."""
        moments = self.moments
        for name, given in features.items():
            # INVARIANT: only finite numbers are learned; one NaN or 1e300 would stay for ever.
            value = given if -BOUND <= given <= BOUND else bounded(given)
            count, mean, variance = moments.get(name, _NOTHING)
            count += 1
            gap = value - mean
            mean += gap / count
            moments[name] = count, mean, variance + (gap * (value - mean) - variance) / count

    def scaled(self, features: Mapping[str, float]) -> dict[str, float]:
        """Return the known features, bounded, standardised and bounded again: a spread near 0 would blow them up."""
        moments, found = self.moments, {}
        for name, given in features.items():
            known = moments.get(name)
            if known is None:
                continue
            value = given if -BOUND <= given <= BOUND else bounded(given)
            value = (value - known[1]) / known[2] ** 0.5 if known[2] else 0.0
            found[name] = value if -BOUND <= value <= BOUND else bounded(value)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the moments as plain data."""
        return {
            "counts": {name: count for name, (count, _, _) in self.moments.items()},
            "means": {name: mean for name, (_, mean, _) in self.moments.items()},
            "variances": {name: variance for name, (_, _, variance) in self.moments.items()},
        }

    def load_state_dict(self, state: object) -> None:
        """Take over saved moments; raise `StateError` where they are damaged."""
        counts, means = plain.named_numbers(state, "counts"), plain.named_numbers(state, "means")
        variances = plain.named_numbers(state, "variances")
        sane = counts.keys() == means.keys() == variances.keys()
        if not sane or min([*counts.values(), *variances.values()], default=0.0) < 0.0:
            message = "risk state: expected one count, mean and variance of 0 or more per feature of the model"
            raise StateError(message)
        self.moments = {name: (int(count), means[name], variances[name]) for name, count in counts.items()}


_NOTHING = (0, 0.0, 0.0)
