"""What a model knows before a run begins: shipped with the package, or learned on a user's own runs. Plain JSON."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from lbw_policy.diagnostics import printable
from lbw_policy.errors import StateError
from lbw_policy.resources import priors
from lbw_policy.risk import plain
from lbw_policy.risk.alarm import LEAST_SCALE
from lbw_policy.risk.calibration import Calibration
from lbw_policy.risk.features import STANDARD_FEATURES
from lbw_policy.risk.pieces import feature_of
from lbw_policy.semantics.policy import Risk

VERSION = 1
MOST_BYTES = 1_000_000


@frozen
class Prior:
    """What other runs taught a kind of model.

    `model` is its `state_dict()`, `horizon` the one it was trained for. `thresholds` has pairs of a budget, as false
    alarms a tick, and the score (log-odds) above which runs that the model had not seen kept to it. `origin` says
    which runs it comes from and how to make it again; it decides nothing. `base` is the digest of the prior that it
    was learned from, "" where it was trained at once.
    """

    kind: str
    horizon: int
    model: Mapping[str, Any]
    thresholds: tuple[tuple[float, float], ...] = ()
    calibration: Calibration = field(factory=Calibration)
    origin: Mapping[str, Any] = field(factory=dict)
    base: str = ""

    @property
    def digest(self) -> str:
        """Return a digest of everything that decides."""
        return hashlib.sha256(json.dumps(self._deciding(), sort_keys=True).encode()).hexdigest()

    def threshold(self, budget: float) -> float | None:
        """Return the score where alarms begin for a budget a tick; None for a budget of nothing, or without pairs.

        Between two known budgets it is linear in the logarithm; beyond them it goes on along the last two.
        """
        known = [(math.log(one), score) for one, score in self.thresholds]
        if budget <= 0.0 or not known:
            return None
        if len(known) == 1:
            return known[0][1]
        at = math.log(budget)
        right = min(max(sum(one <= at for one, _ in known), 1), len(known) - 1)
        (low, first), (high, last) = known[right - 1], known[right]
        return first + (last - first) * (at - low) / (high - low)

    def unit(self, budget: float) -> float:
        """Return how much higher the threshold is where the budget is e times smaller: the tail of quiet scores."""
        low, high = self.threshold(budget * 2.0), self.threshold(budget / 2.0)
        return LEAST_SCALE if low is None or high is None else max((high - low) / math.log(4.0), LEAST_SCALE)

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"version": VERSION, **self._deciding(), "origin": dict(self.origin)}

    def _deciding(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "horizon": self.horizon,
            "thresholds": [list(pair) for pair in self.thresholds],
            "calibration": self.calibration.plain(),
            "model": dict(self.model),
            "base": self.base,
        }

    @classmethod
    def of(cls, state: object) -> Prior:
        """Return the prior saved as plain data; raise `StateError` where it is damaged or of another version.

        What its `model` part must be is for the model to say, when it takes it.
        """
        if plain.whole(state, "version") != VERSION:
            message = f"risk prior: expected version {VERSION}, found {plain.whole(state, 'version')}"
            raise StateError(message)
        thresholds = [tuple(plain.numbers({"pair": pair}, "pair")) for pair in plain.items(state, "thresholds")]
        found = cls(
            kind=plain.text(state, "kind"),
            horizon=plain.whole(state, "horizon"),
            model=dict(plain.mapping(state, "model")),
            thresholds=tuple((pair[0], pair[1]) for pair in thresholds if len(pair) == 2),
            calibration=Calibration.of(plain.entry(state, "calibration")),
            origin=dict(plain.mapping(state, "origin")),
            base=plain.text(state, "base"),
        )
        found._check(len(thresholds))
        return found

    def _check(self, pairs: int) -> None:
        budgets = [budget for budget, _ in self.thresholds]
        scores = [score for _, score in self.thresholds]
        rising = budgets == sorted(set(budgets)) and scores == sorted(scores, reverse=True)
        if self.horizon < 1 or len(budgets) != pairs or min(budgets, default=1.0) <= 0.0 or not rising:
            message = "risk prior: expected a horizon, and budgets above 0 whose thresholds fall, found others"
            raise StateError(message)
        names = self.model.get("names") or self.model.get("anchor") or self.model.get("weights") or ()
        strange = sorted({feature_of(str(name)) for name in names} - set(STANDARD_FEATURES))
        if strange:
            message = f"risk prior: expected the standard features, found `{printable(str(strange[0]))[:60]}`"
            raise StateError(message)


def read_prior(path: str | os.PathLike[str]) -> Prior:
    """Return the prior in a file; raise `StateError`, with the file's name, where it is damaged or cannot be read."""
    place = printable(str(path))
    try:
        with Path(path).open("rb") as file:
            found = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise StateError(f"{place}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(found) > MOST_BYTES:
        raise StateError(f"{place}: expected a prior of at most {MOST_BYTES:_} bytes, found more")
    try:
        return Prior.of(json.loads(found, parse_constant=_refuse))
    except (ValueError, RecursionError) as error:
        raise StateError(f"{place}: expected JSON: {error}") from error
    except StateError as error:
        raise StateError(f"{place}: {error}") from error


def write_prior(prior: Prior, path: str | os.PathLike[str]) -> None:
    """Write a prior as JSON; the same prior gives the same bytes."""
    text = json.dumps(prior.plain(), indent=1, sort_keys=True, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


@functools.cache
def shipped(kind: str) -> Prior | None:
    """Return the prior that ships with the package for a kind of model, None where there is none."""
    path = priors().get(kind)
    return None if path is None else read_prior(path)


def starting(risk: Risk, own: Prior | None = None) -> Prior | None:
    """Return what a risk starts from: the user's own prior of its model, else the shipped one.

    A policy without the `standard` features starts from nothing, since no prior knows its own.
    """
    if not risk.standard:
        return None
    known = shipped(risk.model)
    if own is None or own.kind != risk.model:
        return known
    # INVARIANT: what was learned on a user's runs stays near what ships; the model checks how near.
    if own.base and known is not None and (own.base != known.digest or _start(own.model) != _start(known.model)):
        message = "risk prior: expected one learned from the prior that ships with this version; learn it again"
        raise StateError(message)
    return own


def _start(model: Mapping[str, Any]) -> object:
    """Return the weights that bound what a model learns."""
    inner = model.get("head", model)
    anchored = inner.get("anchor") is not None
    names = ("anchor", "anchor_intercept") if anchored else ("weights", "intercept")
    return [inner.get(name) for name in names]


def _refuse(word: str) -> float:
    raise ValueError(f"expected finite numbers, found `{word}`")
