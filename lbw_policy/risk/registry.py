"""Risk models by name, and how to ask one that may be broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from lbw_policy.errors import AttachError
from lbw_policy.risk.baseline import Baseline
from lbw_policy.semantics.plugins import ModelPlugin, usable

_NOT_OURS = (KeyboardInterrupt, SystemExit, GeneratorExit)


class Model(Protocol):
    """What a risk model must do; it sees only finite features in [-8, 8], absent ones being average.

    `informed` tells whether it knows what trouble looks like without having seen any in this run (a prior,
    a fixed rule). A model that is not must first earn trust on divergences of this run.
    """

    @property
    def informed(self) -> bool:
        """Tell whether the model knows trouble beforehand."""

    def predict(self, features: Mapping[str, float]) -> float:
        """Return the probability of divergence within the horizon."""

    def learn(self, features: Mapping[str, float], diverged: bool) -> None:
        """Learn one matured label; thinning and weighting are the model's own affair."""

    def drivers(self, features: Mapping[str, float]) -> list[tuple[str, float]]:
        """Return each feature's contribution to the present answer, in the model's own units."""

    def load_prior(self, prior: Mapping[str, Any]) -> None:
        """Start from what earlier runs taught (a `state_dict()`); raise `StateError` where it is damaged."""

    def state_dict(self) -> dict[str, Any]:
        """Return all memory as plain data."""

    def load_state_dict(self, state: object) -> None:
        """Take over saved memory; raise `StateError` where it is damaged."""


def _logistic(seed: int) -> Model:
    # Imported here because River takes 0.7 s.
    from lbw_policy.risk.logistic import Logistic

    return Logistic(seed)


def _trees(seed: int) -> Model:
    from lbw_policy.risk.trees import Trees

    return Trees(seed)


def _anomaly(seed: int) -> Model:
    from lbw_policy.risk.anomaly import Anomaly

    del seed
    return Anomaly()


def _baseline(seed: int) -> Model:
    del seed
    return Baseline()


MODELS: dict[str, Callable[[int], Model]] = {
    "logistic": _logistic,
    "trees": _trees,
    "anomaly": _anomaly,
    "baseline": _baseline,
}
"""Makers of the built-in models by the name a policy uses; each takes the seed of its random choices."""


def make(name: str, seed: int) -> Model:
    """Return a new model, built in or a plugin's.

    Raises `KeyError` where there is none of that name, `AttachError` where a plugin cannot make its own.
    """
    if name in MODELS:
        return MODELS[name](seed)
    plugin = usable(ModelPlugin, name)
    if plugin is None:
        raise KeyError(name)
    try:
        return cast(Model, plugin.make(seed))
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise AttachError(f"the risk model `{name}` of a plugin cannot be made: {text:.200}") from error


def ask(model: Model, features: Mapping[str, float]) -> float | None:
    """Return the model's probability, or None where it fails or answers anything but a number in [0, 1]."""
    try:
        answer = float(model.predict(features))
    except BaseException as error:
        _stand(error)
        return None
    return answer if 0.0 <= answer <= 1.0 else None


def teach(model: Model, features: Mapping[str, float], diverged: bool) -> bool:
    """Let the model learn one label; False where it failed."""
    try:
        model.learn(features, diverged)
    except BaseException as error:
        _stand(error)
        return False
    return True


def explain(model: Model, features: Mapping[str, float], at_most: int = 3) -> tuple[tuple[str, float], ...]:
    """Return the features that raised the answer most, largest first; empty where the model cannot say."""
    try:
        raising = [(name, float(share)) for name, share in model.drivers(features) if 0.0 < share < float("inf")]
    except BaseException as error:
        _stand(error)
        return ()
    return tuple(sorted(raising, key=lambda pair: (-pair[1], pair[0]))[:at_most])


def _stand(error: BaseException) -> None:
    """Re-raise what is no fault of the model: River's Rust panics derive from BaseException, and so do these."""
    if isinstance(error, _NOT_OURS):
        raise error
