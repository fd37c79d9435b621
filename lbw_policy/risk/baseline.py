"""A plain rule score without learning: what a learned model must be better than."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import define

_RULES = ("standard.loss_surprise", "standard.grad_surprise", "standard.update_surprise")
_STEEPNESS, _MIDDLE, _MOST = 4.0, 2.6, 0.3


@define
class Baseline:
    """Answers by the largest surprise of loss, gradient norm and update ratio.

    A surprise of 2.6 (a robust z-score of 12) gives 0.15; it never answers more than 0.3, since of the
    ticks on which such rules fire most are harmless. Without standard features it takes the policy's own.
    """

    @property
    def informed(self) -> bool:
        """True: the rule is fixed beforehand."""
        return True

    def predict(self, features: Mapping[str, float]) -> float:
        """Return the rule's probability, in [0, 0.3]."""
        largest = max((score for _, score in self.drivers(features)), default=0.0)
        return _MOST / (1.0 + math.exp(_STEEPNESS * (_MIDDLE - largest)))

    def learn(self, features: Mapping[str, float], diverged: bool) -> None:
        """Learn nothing."""

    def drivers(self, features: Mapping[str, float]) -> list[tuple[str, float]]:
        """Return the surprises the rule looks at."""
        standard = [(name, features[name]) for name in _RULES if name in features]
        return standard or list(features.items())

    def load_prior(self, prior: Mapping[str, Any]) -> None:
        """Ignore it: the rule is fixed."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the rule has no memory."""
        return {}

    def load_state_dict(self, state: object) -> None:
        """Take nothing over."""
