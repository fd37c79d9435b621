"""The default model: River's logistic regression on scaled features, online, its memory plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from river.linear_model import LogisticRegression
from river.optim import SGD
from river.utils import VectorDict

from lbw_policy.errors import StateError
from lbw_policy.risk import plain
from lbw_policy.risk.pieces import Pieces, feature_of
from lbw_policy.risk.scaling import Scaler

KEPT = 0.1
"""Share of negative labels learned, each weighted 1 / KEPT: the expected gradient is that of all of them."""
RATE, RATE_WITH_PRIOR = 0.01, 3e-4
START = -5.0
"""Log-odds before any learning, 0.7 %: near the corpus' base rate of 0.43 %, where River's own start is 50 %."""
RADIUS = 0.3
"""How far weights and intercept, as one vector, may come from a prior's: live labels are nearly all negative and
would wear it down. Folding 35 runs in at rate 0.001 within 1 cost 0.02 of AUROC on other runs (`docs/risk.md`)."""


class Logistic:
    """River's `StandardScaler | LogisticRegression` (SGD), bounded on both sides of the scaler.

    Without a prior the scaler learns with the model, at rate 0.01. With one the scaler of its features is frozen,
    the rate is 0.0003, and the weights stay within `RADIUS` of the prior's. Features that the prior does not know, a
    policy's own, start at weight 0 under the same bound, and are scaled as the run shows them. A prior may cut a
    feature into pieces, each with a weight of its own. Recipe: `docs/risk.md`.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._negatives = 0
        self._anchor: dict[str, float] | None = None
        self._anchor_intercept = 0.0
        self._scaling = Scaler()
        self._pieces = Pieces()
        # River annotates only part of its methods.
        self._regression: Any = LogisticRegression(optimizer=SGD(RATE), intercept_init=START, intercept_lr=RATE)

    @property
    def informed(self) -> bool:
        """True if it started from a prior."""
        return self._anchor is not None

    def predict(self, features: Mapping[str, float]) -> float:
        """Return the probability of divergence; before any learning 0.7 %."""
        answer = self._regression.predict_proba_one(self._scaled(features))
        return float(answer.get(True, 0.0))

    def learn(self, features: Mapping[str, float], diverged: bool) -> None:
        """Take one gradient step on a positive, or on a tenth of the negatives with ten times the weight."""
        self._scaling.learn(features if self._anchor is None else self._own(features))
        if diverged:
            self._step(features, diverged, 1.0)
            return
        self._negatives += 1
        if _chance(self._seed, self._negatives) < KEPT:
            self._step(features, diverged, 1.0 / KEPT)

    def _scaled(self, features: Mapping[str, float]) -> dict[str, float]:
        return self._scaling.scaled(self._pieces.cut(features))

    def _own(self, features: Mapping[str, float]) -> dict[str, float]:
        known = self._anchor or {}
        return {name: value for name, value in self._pieces.cut(features).items() if name not in known}

    def _step(self, features: Mapping[str, float], diverged: bool, weight: float) -> None:
        # INVARIANT: River sees only finite numbers; one NaN or 1e300 learned would stay for ever.
        self._regression.learn_one(self._scaled(features), diverged, w=weight)
        self._stay_near()

    def drivers(self, features: Mapping[str, float]) -> list[tuple[str, float]]:
        """Return weight times scaled value of each feature, over all its pieces: its share of the log-odds."""
        weights, shares = self._weights(), dict.fromkeys(features, 0.0)
        for name, value in self._scaled(features).items():
            feature = feature_of(name) if feature_of(name) in self._pieces.knots else name
            shares[feature] = shares.get(feature, 0.0) + weights.get(name, 0.0) * value
        return list(shares.items())

    def distance(self) -> float:
        """Return how far weights and intercept have come from the prior's; 0 without one."""
        if self._anchor is None:
            return 0.0
        return math.hypot(self._regression.intercept - self._anchor_intercept, *(gap for _, _, gap in self._gaps()))

    def _weights(self) -> dict[str, float]:
        return {name: float(weight) for name, weight in self._regression.weights.items()}

    def _gaps(self) -> Iterator[tuple[str, float, float]]:
        """Yield each weight's name, its start, and how far it is from there."""
        weights, anchor = self._weights(), self._anchor or {}
        for name in anchor | weights:
            start = anchor.get(name, 0.0)
            yield name, start, weights.get(name, 0.0) - start

    def _stay_near(self) -> None:
        distance = self.distance()
        if distance > RADIUS:
            share = RADIUS / distance
            shift = self._regression.intercept - self._anchor_intercept
            moved = {name: start + share * gap for name, start, gap in self._gaps()}
            self._set(moved, self._anchor_intercept + share * shift)

    def _set(self, weights: Mapping[str, float], intercept: float) -> None:
        # River has no setter for weights; `_weights` is what its own pickles restore.
        self._regression._weights = VectorDict(dict(weights))
        self._regression.intercept = intercept

    def load_prior(self, prior: Mapping[str, Any]) -> None:
        """Start from earlier runs' weights; their anchor, else they themselves, bound what is learned from now on.

        The scaler is frozen and the rate small. Raises `StateError` where the weights lie beyond the bound.
        """
        self._restore(prior)
        self._anchor, self._anchor_intercept = self._weights(), self._regression.intercept
        if prior.get("anchor") is not None:
            self._anchor = plain.named_numbers(prior, "anchor")
            self._anchor_intercept = plain.number(prior, "anchor_intercept")
        self._check_near("prior")
        self._slow_down()

    def _check_near(self, what: str) -> None:
        if self.distance() > RADIUS * 1.001:
            message = f"risk {what}: expected weights within {RADIUS:g} of those it started from, found others"
            raise StateError(message)

    def _slow_down(self) -> None:
        weights, intercept = self._weights(), self._regression.intercept
        self._regression = LogisticRegression(optimizer=SGD(RATE_WITH_PRIOR), intercept_lr=RATE_WITH_PRIOR)
        self._set(weights, intercept)

    def state_dict(self) -> dict[str, Any]:
        """Return scaler, weights and anchor as plain data; rebuilt from it the model answers bit for bit alike."""
        return {
            "seed": self._seed,
            "negatives": self._negatives,
            **self._scaling.state_dict(),
            "pieces": self._pieces.plain(),
            "weights": self._weights(),
            "intercept": float(self._regression.intercept),
            "anchor": None if self._anchor is None else dict(self._anchor),
            "anchor_intercept": self._anchor_intercept,
        }

    def load_state_dict(self, state: object) -> None:
        """Rebuild the model from plain data; raise `StateError` where it is damaged."""
        self._restore(state)
        self._seed, self._negatives = plain.whole(state, "seed"), plain.whole(state, "negatives")
        anchored = plain.entry(state, "anchor") is not None
        self._anchor = plain.named_numbers(state, "anchor") if anchored else None
        self._anchor_intercept = plain.number(state, "anchor_intercept")
        if anchored:
            self._check_near("state")
            self._slow_down()

    def _restore(self, state: object) -> None:
        scaling, weights = Scaler(), plain.named_numbers(state, "weights")
        scaling.load_state_dict(state)
        if not weights.keys() <= scaling.moments.keys():
            message = "risk state: expected moments for each weight of the model, found none for some"
            raise StateError(message)
        self._scaling = scaling
        self._pieces = Pieces.of(state, "pieces")
        self._set(weights, plain.number(state, "intercept"))


def _chance(seed: int, count: int) -> float:
    """Return a number in [0, 1) that depends on nothing but its arguments (SplitMix64, Steele et al. 2014)."""
    mask = 0xFFFF_FFFF_FFFF_FFFF
    z = (seed * 0xD134_2543_DE82_EF95 + count * 0x9E37_79B9_7F4A_7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB) & mask
    return ((z ^ (z >> 31)) >> 11) / float(1 << 53)
