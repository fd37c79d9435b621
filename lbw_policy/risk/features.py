"""Observation -> features: finite, bounded, scale-free, and made for one tick in tens of microseconds.

The set was chosen by what foresees divergences on architectures and faults that a model has not seen; see
`docs/risk.md`. How near the loss is to the bar of a divergence, how large updates are against the weights and against
their own past, and whether consecutive gradients disagree carry most of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import Factory, define

from lbw_policy.errors import StateError
from lbw_policy.risk import plain
from lbw_policy.risk.height import Height
from lbw_policy.risk.running import LARGEST, Faded, Past, Track, bounded, compressed, usable

STANDARD_SOURCES: tuple[str, ...] = (
    "loss",
    "lr",
    "grad_norm",
    "grad_agreement",
    "update_ratio",
    "param_norm",
    "overshoot",
    "nonfinite_grads",
    "nonfinite_params",
)
"""The built-in signals (keys of `semantics.signals.SIGNALS`) that the standard features read."""

_MADE_FROM: dict[str, tuple[str, ...]] = {
    "loss": (
        "loss_surprise",
        "loss_rise",
        "loss_above",
        "loss_height",
        "loss_height_low",
        "loss_height_mean",
        "loss_climb",
        "loss_climb_long",
    ),
    "lr": ("lr_jump",),
    "grad_norm": ("grad_surprise", "grad_trend"),
    "grad_agreement": ("grad_agreement", "grad_agreement_mean"),
    "update_ratio": ("update_level", "update_surprise", "update_excess"),
    "param_norm": ("weight_growth",),
    "overshoot": ("overshoot_mean",),
}
_MADE_FROM = {source: tuple(f"standard.{name}" for name in names) for source, names in _MADE_FROM.items()}

STANDARD_FEATURES: tuple[str, ...] = tuple(name for names in _MADE_FROM.values() for name in names)
"""Names of the standard features; the prefix keeps them apart from a policy's own."""

HOLD = 32
"""Ticks a feature stands after its source last had a reading; then it is absent, which a model takes as average."""
READY = 3
"""Ticks with a feature before a model is asked."""
_MUST_BE_FINITE = ("loss", "grad_norm", "param_norm")
_USUAL_RATIO = 1e-3
_QUICK, _SLOW = 0.2, 0.005
_FEW, _GROWTH = 6, 100.0
_MOST_OVERSHOOT = 6.0
_FORGOTTEN = 0.002


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


@define
class StandardFeatures:
    """The standard features of a run; fed once a tick, each feature judged against the ticks before."""

    losses: Track = Factory(lambda: Track(relative=1e-3, absolute=1e-12))
    height: Height = Factory(Height)
    grads: Track = Factory(Track)
    updates: Track = Factory(Track)
    fast_losses: Past = Factory(lambda: Past(_FEW))
    above: Past = Factory(lambda: Past(16))
    weights: Past = Factory(lambda: Past(_FEW))
    agreement: Faded = Factory(lambda: Faded(_QUICK))
    overshoot: Faded = Factory(lambda: Faded(_QUICK))
    usual_update: float | None = None
    usual_lr: float | None = None
    seen: int = 0
    latest: dict[str, float] = Factory(dict)
    age: dict[str, int] = Factory(dict)

    @property
    def ready(self) -> bool:
        """True once some features have stood for a few ticks."""
        return self.seen >= READY

    def update(self, values: Mapping[str, float | None]) -> dict[str, float]:
        """Take one tick's readings and return the features that stand, each in [-8, 8]."""
        get = values.get
        self._take("loss", usable(get("loss")), self._loss)
        self._take("lr", _logarithm(get("lr")), self._lr)
        self._take("grad_norm", _logarithm(get("grad_norm")), self._grad)
        self._take("grad_agreement", usable(get("grad_agreement")), self._agreement)
        self._take("update_ratio", _logarithm(get("update_ratio")), self._update_ratio)
        self._take("param_norm", _logarithm(get("param_norm")), self._param_norm)
        self._take("overshoot", usable(get("overshoot")), self._overshoot)
        self.seen += bool(self.latest)
        return dict(self.latest)

    def _take(self, source: str, reading: float | None, note: Any) -> None:  # noqa: ANN401 - one of the methods below
        age = self.age
        if reading is not None:
            age[source] = 0
            note(reading)
        elif source in age:
            age[source] += 1
            if age[source] > HOLD:
                del age[source]
                for feature in _MADE_FROM[source]:
                    self.latest.pop(feature, None)

    def _loss(self, loss: float) -> None:
        latest, track = self.latest, self.losses
        self.height.push(loss)
        latest["standard.loss_height"] = self.height.now
        latest["standard.loss_height_low"] = self.height.low
        latest["standard.loss_height_mean"] = self.height.mean
        latest["standard.loss_climb"] = self.height.climb
        latest["standard.loss_climb_long"] = self.height.climb_long
        if track.push(loss):
            self.fast_losses.push(track.fast)
            self.above.push(float(loss > track.mean))
            latest["standard.loss_surprise"] = track.surprise
            latest["standard.loss_rise"] = compressed((track.fast - self.fast_losses.oldest) / track.spread())
            latest["standard.loss_above"] = self.above.mean

    def _lr(self, rate: float) -> None:
        """Compare with what was usual: a reference that follows a rise in some ten ticks, a fall over hundreds."""
        usual = rate if self.usual_lr is None else self.usual_lr
        self.latest["standard.lr_jump"] = bounded(rate - usual)
        followed = usual + _QUICK * (rate - usual) if rate > usual else rate
        self.usual_lr = max(usual - _FORGOTTEN, followed)

    def _grad(self, norm: float) -> None:
        if self.grads.push(norm):
            self.latest["standard.grad_surprise"] = self.grads.surprise
            self.latest["standard.grad_trend"] = self.grads.trend

    def _agreement(self, cosine: float) -> None:
        cosine = max(-1.0, min(1.0, cosine))
        self.latest["standard.grad_agreement"] = cosine
        self.latest["standard.grad_agreement_mean"] = self.agreement.push(cosine)

    def _update_ratio(self, ratio: float) -> None:
        latest = self.latest
        latest["standard.update_level"] = bounded(ratio - math.log(_USUAL_RATIO))
        if self.updates.push(ratio):
            usual = self.updates.mean if self.usual_update is None else self.usual_update
            self.usual_update = usual + _SLOW * max(-1.0, min(1.0, ratio - usual))
            latest["standard.update_surprise"] = self.updates.surprise
            latest["standard.update_excess"] = bounded(ratio - self.usual_update)

    def _param_norm(self, norm: float) -> None:
        self.weights.push(norm)
        self.latest["standard.weight_growth"] = compressed(_GROWTH * (norm - self.weights.oldest))

    def _overshoot(self, overshoot: float) -> None:
        held = max(-_MOST_OVERSHOOT, min(_MOST_OVERSHOOT, overshoot))
        self.latest["standard.overshoot_mean"] = self.overshoot.push(held)

    def state_dict(self) -> dict[str, Any]:
        """Return the baselines and the features that stand as plain data."""
        return {
            "parts": {name: getattr(self, name).state_dict() for name in _PARTS},
            "latest": dict(self.latest),
            "age": dict(self.age),
            "usual": {"update": self.usual_update, "lr": self.usual_lr},
            "seen": self.seen,
        }

    def load_state_dict(self, state: object) -> None:
        """Take over saved baselines; raise `StateError` where they are damaged."""
        saved = plain.entry(state, "parts")
        for name in _PARTS:
            getattr(self, name).load_state_dict(plain.entry(saved, name))
        self.latest = plain.named_numbers(state, "latest")
        self.age = {name: int(age) for name, age in plain.named_numbers(state, "age").items()}
        if not (set(self.age) <= set(_MADE_FROM) and set(self.latest) <= set(STANDARD_FEATURES)):
            message = "risk state: expected the standard features, found other names"
            raise StateError(message)
        usual = plain.entry(state, "usual")
        self.usual_update, self.usual_lr = (plain.optional_number(usual, key) for key in ("update", "lr"))
        self.seen = plain.natural(state, "seen")


_PARTS = ("losses", "height", "grads", "updates", "fast_losses", "above", "weights", "agreement", "overshoot")
"""The attributes that have a memory of their own."""
