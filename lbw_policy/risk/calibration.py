"""Makes a model's score an honest probability: a rising line through what came of such scores in other runs."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from typing import Any

from attrs import frozen

from lbw_policy.errors import StateError
from lbw_policy.risk import plain
from lbw_policy.risk.alarm import log_odds

MOST_KNOTS = 64


@frozen
class Calibration:
    """A rising, piecewise linear map from a model's log-odds to calibrated ones, flat beyond its ends.

    Without knots a probability stays as it is. The knots come from isotonic regression (Zadrozny and Elkan 2002) on
    runs that the model had not seen; that the map rises means that it changes no ranking, hence no alarm.
    """

    scores: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def __call__(self, probability: float) -> float:
        """Return the calibrated probability of a probability in [0, 1]."""
        if not self.scores:
            return probability
        return 1.0 / (1.0 + math.exp(-self.line(log_odds(probability))))

    def line(self, score: float) -> float:
        """Return the calibrated log-odds of a score."""
        scores, values = self.scores, self.values
        at = bisect_right(scores, score)
        if at in (0, len(scores)):
            return values[max(at - 1, 0)]
        low, high = scores[at - 1], scores[at]
        return values[at - 1] + (values[at] - values[at - 1]) * (score - low) / (high - low)

    def plain(self) -> dict[str, Any]:
        """Return the knots as plain data."""
        return {"scores": list(self.scores), "values": list(self.values)}

    @classmethod
    def of(cls, state: object) -> Calibration:
        """Return the map saved as plain data; raise `StateError` where it is damaged, or does not rise."""
        scores, values = plain.numbers(state, "scores"), plain.numbers(state, "values")
        rising = all(low < high for low, high in itertools.pairwise(scores)) and values == sorted(values)
        if len(scores) != len(values) or len(scores) > MOST_KNOTS or not rising:
            message = f"risk state: expected at most {MOST_KNOTS} rising knots of a calibration, found others"
            raise StateError(message)
        return cls(tuple(scores), tuple(values))
