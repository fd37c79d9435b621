"""Streams and stand-in models shared by the tests of `lbw_policy.risk`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import evolve

from lbw_policy.risk import RiskModel
from lbw_policy.semantics.policy import Risk

RISK = Risk(
    name="divergence",
    horizon=10,
    features=(),
    standard=True,
    model="logistic",
    alarm=3e-4,
    trust_after=200,
    fallback=0.25,
)


def risk(**changes: object) -> Risk:
    """Return a risk block with some fields changed."""
    return evolve(RISK, **changes)


def dice(seed: int) -> random.Random:
    """Return repeatable chance."""
    return random.Random(seed)  # noqa: S311 - repeatable, and no secret hangs on it


def healthy(rng: random.Random, tick: int) -> dict[str, float | None]:
    """Return the telemetry of an ordinary tick, every standard source among it."""
    grad = math.exp(rng.gauss(0, 0.3))
    return {
        "loss": 2 + 8 * math.exp(-tick / 300) + rng.gauss(0, 0.1),
        "grad_norm": grad,
        "lr": 1e-3 * (1 + tick % 7 / 100),
        "grad_agreement": rng.uniform(-0.2, 0.6),
        "overshoot": rng.gauss(1.0, 0.3),
        "update_ratio": 1e-3 * math.exp(rng.gauss(0, 0.1)),
        "param_norm": 50 + tick * 1e-3,
        "nonfinite_grads": 0.0,
        "nonfinite_params": 0.0,
    }


class Scripted:
    """A model that answers by a function of the features and learns nothing; it stands for any plugin."""

    informed = True

    def __init__(self, answer: Callable[[random.Random, Mapping[str, float]], Any], seed: int = 0) -> None:
        self.answer = answer
        self.rng = dice(seed)
        self.taught: list[bool] = []

    def predict(self, features: Mapping[str, float]) -> object:
        """Answer whatever the script says."""
        return self.answer(self.rng, features)

    def learn(self, features: Mapping[str, float], diverged: bool) -> None:
        """Remember only what was taught."""
        self.taught.append(diverged)

    def drivers(self, features: Mapping[str, float]) -> list[tuple[str, float]]:
        """Name every feature."""
        return list(features.items())

    def load_prior(self, prior: Mapping[str, Any]) -> None:
        """Ignore it."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: object) -> None:
        """Take nothing."""


def truthful(features: Mapping[str, float]) -> float:
    """Return a good model's probability for `episodes`: it sees `lead` rise before each divergence."""
    return 1 / (1 + math.exp(6 - 6 * features.get("lead", 0.0)))


def episodes(ticks: int, seed: int = 0, start: int = 400, period: int = 400) -> Iterator[tuple[float, float, float]]:
    """Yield `(lead, noise, loss)`: from `start` on a divergence every `period` ticks, announced 15 ticks ahead."""
    rng = dice(seed)
    for tick in range(ticks):
        phase = tick % period
        lead = rng.gauss(2.3 if tick >= start - 20 and phase >= period - 15 else 0.0, 0.2)
        yield lead, rng.gauss(0, 1), 20.0 if tick >= start and phase < 12 else 2 + rng.gauss(0, 0.1)


def area_under_curve(pairs: list[tuple[float, bool]]) -> float:
    """Return the probability that a positive scores above a negative (ties count half)."""
    above = [score for score, label in pairs if label]
    below = [score for score, label in pairs if not label]
    wins = sum((high > low) + 0.5 * (high == low) for high in above for low in below)
    return wins / (len(above) * len(below))


def run_episodes(model: RiskModel, ticks: int, seed: int = 0, start: int = 400) -> list[Any]:
    """Feed `episodes` to a model with two features of its own and return its assessments."""
    said = []
    for tick, (lead, noise, loss) in enumerate(episodes(ticks, seed, start)):
        said.append(model.assess(tick, {}, {"lead": lead, "noise": noise}))
        model.learn(tick, loss, finite=True, intervened=False)
    return said
