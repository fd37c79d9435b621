"""Observation -> features: finite, bounded, scale-free, and made for one tick in tens of microseconds.

The set follows an ablation on 421 small trainings (see `docs/risk.md`): the absolute update-to-weight
ratio matters most; loss and gradient norm alone are no better than hand rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import Factory, define

from lbw_policy.errors import StateError
from lbw_policy.risk import plain
from lbw_policy.risk.running import LARGEST, Track, bounded, compressed, usable

_CORE = ("loss", "grad_norm", "update_ratio")
_MUST_BE_FINITE = ("loss", "grad_norm", "param_norm")
_TRACKED = (*_CORE, "layer", "param_norm", "curvature", "activation_variance", "activation_outliers", "activation_max")

STANDARD_SOURCES: tuple[str, ...] = (
    "loss",
    "grad_norm",
    "grad_norm_max",
    "update_ratio",
    "param_norm",
    "curvature",
    "activation_variance",
    "activation_outliers",
    "activation_max",
    "nonfinite_grads",
    "nonfinite_params",
)
"""The built-in signals (keys of `semantics.signals.SIGNALS`) that the standard features read."""

STANDARD_FEATURES: tuple[str, ...] = tuple(
    f"standard.{name}"
    for name in (
        "loss_surprise",
        "loss_trend",
        "loss_creep",
        "loss_lost",
        "grad_surprise",
        "grad_trend",
        "grad_creep",
        "grad_gap",
        "layer_surprise",
        "update_surprise",
        "update_trend",
        "update_level",
        "update_peak",
        "weight_trend",
        "curvature_surprise",
        "activation_variance_surprise",
        "activation_outliers_surprise",
        "activation_max_surprise",
    )
)
"""Names of the standard features; the prefix keeps them apart from a policy's own."""

HOLD = 32
"""Ticks a feature stands after its source last had a reading; then it is absent, which a model takes as average."""
_USUAL_RATIO = 1e-3
_FADE = 0.05


def non_finite(values: Mapping[str, float | None]) -> bool:
    """Tell whether the tick breaks the hard rule: a NaN or infinite loss or norm, or any non-finite tensor."""
    get = values.get
    for name in _MUST_BE_FINITE:
        value = get(name)
        if value is not None and not math.isfinite(value):
            return True
    grads, params = get("nonfinite_grads") or 0.0, get("nonfinite_params") or 0.0
    return not grads <= 0.0 or not params <= 0.0


def own_features(extra: Mapping[str, float | None]) -> dict[str, float]:
    """Return the policy's own features, compressed into the bounds; one that is None or NaN is absent."""
    isnan = math.isnan
    return {name: compressed(value) for name, value in extra.items() if value is not None and not isnan(value)}


def _logarithm(value: float | None) -> float | None:
    # One comparison for what nearly every reading is; NaN fails it.
    if value is not None and 0.0 < value <= LARGEST:
        return math.log(value)
    number = usable(value)
    return math.log(number) if number is not None and number > 0.0 else None


def _readings(values: Mapping[str, float | None]) -> tuple[float | None, ...]:
    """Return one reading per name in `_TRACKED`, in its order: logarithms where the scale is a ratio's."""
    get = values.get
    grad, largest = _logarithm(get("grad_norm")), _logarithm(get("grad_norm_max"))
    outliers = usable(get("activation_outliers"))
    return (
        usable(get("loss")),
        grad,
        _logarithm(get("update_ratio")),
        None if grad is None or largest is None else largest - grad,
        _logarithm(get("param_norm")),
        usable(get("curvature")),
        _logarithm(get("activation_variance")),
        None if outliers is None else math.log(max(outliers, 0.0) + 1e-4),
        _logarithm(get("activation_max")),
    )


def _tracks() -> dict[str, Track]:
    tracks = {name: Track() for name in _TRACKED}
    tracks["loss"] = Track(relative=1e-3, absolute=1e-12)
    tracks["curvature"] = Track(relative=1e-3, absolute=1e-12)
    tracks["param_norm"] = Track(absolute=1e-4)
    return tracks


@define
class StandardFeatures:
    """The standard features of a run; fed once a tick, each feature judged against the ticks before."""

    tracks: dict[str, Track] = Factory(_tracks)
    latest: dict[str, float] = Factory(dict)
    age: dict[str, int] = Factory(dict)
    first: float | None = None
    lowest: float | None = None
    peak: float | None = None

    @property
    def ready(self) -> bool:
        """True once loss, gradient norm or update ratio has a baseline."""
        tracks = self.tracks
        return tracks["loss"].warm or tracks["grad_norm"].warm or tracks["update_ratio"].warm

    def update(self, values: Mapping[str, float | None]) -> dict[str, float]:
        """Take one tick's readings and return the features that stand, each in [-8, 8]."""
        age = self.age
        for (name, track), reading in zip(self.tracks.items(), _readings(values), strict=True):
            if reading is None:
                if name in age:
                    self._miss(name)
            elif track.push(reading):
                age[name] = 0
                self._note(name, reading, track)
        return dict(self.latest)

    def _miss(self, name: str) -> None:
        self.age[name] += 1
        if self.age[name] > HOLD:
            del self.age[name]
            for feature in _FEATURES_OF[name]:
                self.latest.pop(feature, None)

    def _note(self, name: str, reading: float, track: Track) -> None:
        latest = self.latest
        if name == "loss":
            latest["standard.loss_surprise"] = track.surprise
            latest["standard.loss_trend"] = track.trend
            latest["standard.loss_creep"] = track.creep
            latest["standard.loss_lost"] = self._lost()
        elif name == "grad_norm":
            latest["standard.grad_surprise"] = track.surprise
            latest["standard.grad_trend"] = track.trend
            latest["standard.grad_creep"] = track.creep
            latest["standard.grad_gap"] = track.gap
        elif name == "update_ratio":
            level = bounded(reading - math.log(_USUAL_RATIO))
            latest["standard.update_surprise"] = track.surprise
            latest["standard.update_trend"] = track.trend
            latest["standard.update_level"] = level
            latest["standard.update_peak"] = self._peaked(level)
        elif name == "param_norm":
            latest["standard.weight_trend"] = track.trend
        else:
            latest[_FEATURES_OF[name][0]] = track.surprise

    def _lost(self) -> float:
        """Return how much of the progress made so far the recent loss has given back (0: none, 1: all)."""
        track = self.tracks["loss"]
        if self.first is None or self.lowest is None:
            self.first, self.lowest = track.mean, track.fast
        self.lowest = min(self.lowest, track.fast)
        return compressed((track.fast - self.lowest) / (max(self.first - self.lowest, 0.0) + track.spread()))

    def _peaked(self, level: float) -> float:
        peak = self.peak
        self.peak = level if peak is None or level >= peak else peak + _FADE * (level - peak)
        return self.peak

    def state_dict(self) -> dict[str, Any]:
        """Return the baselines and the features that stand as plain data."""
        return {
            "tracks": {name: track.state_dict() for name, track in self.tracks.items()},
            "latest": dict(self.latest),
            "age": dict(self.age),
            "marks": {"first": self.first, "lowest": self.lowest, "peak": self.peak},
        }

    def load_state_dict(self, state: object) -> None:
        """Take over saved baselines; raise `StateError` where they are damaged."""
        saved = plain.entry(state, "tracks")
        for name, track in self.tracks.items():
            track.load_state_dict(plain.entry(saved, name))
        self.latest = plain.named_numbers(state, "latest")
        self.age = {name: int(age) for name, age in plain.named_numbers(state, "age").items()}
        if not (set(self.age) <= set(_TRACKED) and set(self.latest) <= set(STANDARD_FEATURES)):
            message = "risk state: expected the standard features, found other names"
            raise StateError(message)
        marks = plain.entry(state, "marks")
        self.first, self.lowest, self.peak = (plain.optional_number(marks, key) for key in ("first", "lowest", "peak"))


_SPELLING = {"grad_norm": "grad", "update_ratio": "update", "param_norm": "weight"}
_FEATURES_OF: dict[str, tuple[str, ...]] = {
    name: tuple(
        feature
        for feature in STANDARD_FEATURES
        if feature.removeprefix("standard.").rpartition("_")[0] == _SPELLING.get(name, name)
    )
    for name in _TRACKED
}
