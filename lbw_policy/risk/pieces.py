"""Features cut at knots, so that a weighted sum need not be straight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from attrs import field, frozen

from lbw_policy.errors import StateError
from lbw_policy.risk import plain

_MOST = 8


def names_of(feature: str, knots: tuple[float, ...]) -> tuple[str, ...]:
    """Return the names of a feature's pieces: below the first knot, then beyond each; its own without knots."""
    if not knots:
        return (feature,)
    return (f"{feature}<{knots[0]:g}", *(f"{feature}>{knot:g}" for knot in knots))


def feature_of(piece: str) -> str:
    """Return the feature that a piece is cut from."""
    return piece.partition("<")[0].partition(">")[0]


@frozen
class Pieces:
    """Knots by feature. A piece is what of a feature lies between two knots: each rises where the feature does.

    A sum of pieces with weights of one sign is monotone, whatever bounds each piece is held to.
    """

    knots: Mapping[str, tuple[float, ...]] = field(factory=dict)
    _cuts: tuple[tuple[str, tuple[tuple[str, float, float], ...]], ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        cuts = []
        for feature, knots in self.knots.items():
            edges = pairwise((-math.inf, *knots, math.inf))
            cuts.append(
                (feature, tuple((name, *edge) for name, edge in zip(names_of(feature, knots), edges, strict=True)))
            )
        object.__setattr__(self, "_cuts", tuple(cuts))

    def cut(self, features: Mapping[str, float]) -> dict[str, float]:
        """Return the features with those that have knots replaced by their pieces."""
        found = dict(features)
        for feature, pieces in self._cuts:
            value = found.pop(feature, None)
            if value is None:
                continue
            for name, low, high in pieces:
                # NaN fails both comparisons and stays, for the scaler to take as 0.
                held = high if value > high else low if value < low else value
                found[name] = held - low if low > -math.inf else held
        return found

    def plain(self) -> dict[str, list[float]]:
        """Return the knots as plain data."""
        return {feature: list(knots) for feature, knots in self.knots.items()}

    @classmethod
    def of(cls, state: object, key: str) -> Pieces:
        """Return the pieces saved under a key; raise `StateError` unless every feature has some rising knots."""
        knots: dict[str, tuple[float, ...]] = {}
        found: Mapping[str, Any] = plain.mapping(state, key)
        for feature in found:
            knots[feature] = tuple(plain.numbers(found, feature))
            if not 0 < len(knots[feature]) <= _MOST or list(knots[feature]) != sorted(set(knots[feature])):
                message = f"risk state: expected 1 to {_MOST} rising knots for `{feature!s:.60}`, found others"
                raise StateError(message)
        return cls(knots)
