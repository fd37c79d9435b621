"""How unlike the run's own quiet ticks a tick is: a score that has learned nothing of divergences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lbw_policy.risk import plain
from lbw_policy.risk.scaling import Scaler

_STEEPNESS, _MIDDLE, _MOST = 1.5, 6.0, 0.3
_PRIOR_COUNT = 30.0


class Anomaly:
    """The root of the mean squared distance, over features, from the quiet ticks of this run, in their spreads.

    A Mahalanobis distance with a diagonal covariance (a full one of 25 features needs more quiet ticks than a run has
    before its first trouble), each feature bounded, so that no value poisons it. A distance of 6 gives 0.15, and it
    never answers more than 0.3: most of what is strange is harmless. It needs no prior; it learns the quiet ticks only.
    """

    def __init__(self) -> None:
        self._scaling = Scaler()
        self._count = 0

    @property
    def informed(self) -> bool:
        """True: what is strange needs no divergence to be known."""
        return True

    def predict(self, features: Mapping[str, float]) -> float:
        """Return the probability, in [0, 0.3]; it rises with the distance."""
        squares = [square for _, square in self.drivers(features)]
        distance = math.sqrt(sum(squares) / len(squares)) if squares else 0.0
        # Few quiet ticks know little of their spread.
        distance *= self._count / (self._count + _PRIOR_COUNT)
        return _MOST / (1.0 + math.exp(_STEEPNESS * (_MIDDLE - distance)))

    def learn(self, features: Mapping[str, float], diverged: bool) -> None:
        """Take in a quiet tick."""
        if not diverged:
            self._count += 1
            self._scaling.learn(features)

    def drivers(self, features: Mapping[str, float]) -> list[tuple[str, float]]:
        """Return each feature's squared distance."""
        return [(name, value * value) for name, value in self._scaling.scaled(features).items()]

    def load_prior(self, prior: Mapping[str, Any]) -> None:
        """Ignore it: it knows this run only."""

    def state_dict(self) -> dict[str, Any]:
        """Return the quiet ticks' moments as plain data."""
        return {"count": self._count, "scaler": self._scaling.state_dict()}

    def load_state_dict(self, state: object) -> None:
        """Take over saved moments; raise `StateError` where they are damaged."""
        count = plain.whole(state, "count")
        self._scaling.load_state_dict(plain.entry(state, "scaler"))
        self._count = count
