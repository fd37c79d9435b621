"""The check of risk models: each way to break the contract is found; what is built in conforms."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest

from lbw_policy.conformance import check, check_model
from lbw_policy.errors import StateError
from lbw_policy.plugins import ModelPlugin
from lbw_policy.risk import MODELS


class Counting:
    """A model that conforms: the share of positives among the labels, and how high the features are."""

    informed = False

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.labels, self.positives = seed, 0, 0

    def predict(self, features: Mapping[str, float]) -> float:
        highest = max(features.values(), default=0.0)
        return (self.positives + 0.01 + 0.001 * (highest + 8)) / (self.labels + 2)

    def learn(self, features: Mapping[str, float], diverged: bool) -> None:
        self.labels += 1
        self.positives += diverged

    def drivers(self, features: Mapping[str, float]) -> list[tuple[str, float]]:
        return list(features.items())

    def load_prior(self, prior: Mapping[str, Any]) -> None:
        """Ignore it."""

    def state_dict(self) -> dict[str, Any]:
        return {"labels": self.labels, "positives": self.positives}

    def load_state_dict(self, state: object) -> None:
        try:
            self.labels, self.positives = (int(dict(state)[name]) for name in ("labels", "positives"))
        except (TypeError, KeyError, ValueError) as error:
            raise StateError(f"expected two counts, found {state!r:.40}") from error


def _with(**changes: object) -> ModelPlugin:
    return ModelPlugin("counting", type("Changed", (Counting,), changes), "share of positives so far")


def _raise(*_: object) -> float:
    raise RuntimeError("broken")


def _learning(self: Counting, features: Mapping[str, float]) -> float:
    self.labels += 1
    return 0.5 / self.labels


def _chance(self: Counting, features: Mapping[str, float]) -> float:
    return random.random()  # noqa: S311 - this is the fault


def _forgets(self: Counting, state: object) -> None:
    Counting.load_state_dict(self, state)
    self.positives += 3


BAD = {
    "cannot be made": ModelPlugin("counting", lambda seed: _raise(), "share of positives so far"),
    "lacks a method": _with(drivers=None),
    "does not say whether it is informed": _with(informed="yes"),
    "raises": _with(learn=_raise),
    "answers with no probability": _with(predict=lambda self, features: 1.5),
    "learns when asked": _with(predict=_learning),
    "answers differently for one seed": _with(predict=_chance),
    "cannot say what drives it": _with(drivers=_raise),
    "has no plain state": _with(state_dict=lambda self: {"self": self}),
    "has a large state": _with(
        state_dict=lambda self: {**Counting.state_dict(self), "all": [0.123456789] * 100_000},
    ),
    "is not restored": _with(load_state_dict=_forgets),
    "fails on a damaged state": _with(load_state_dict=lambda self, state: setattr(self, "labels", state["labels"])),
    "takes a damaged state": _with(
        load_state_dict=lambda self, state: (
            Counting.load_state_dict(self, state) if isinstance(state, dict) and "labels" in state else None
        )
    ),
    "has no meaning": ModelPlugin("counting", Counting, " "),
    "has a reserved name": ModelPlugin("and", Counting, "a word of the language"),
    "cannot be used by a policy": ModelPlugin("logistic", Counting, "is built in"),
}


@pytest.mark.parametrize("what", BAD)
def test_each_fault_of_a_model_is_found(what: str) -> None:
    """The check names the line of the contract that is broken."""
    assert what in [finding.what for finding in check(BAD[what])]


def test_a_model_that_keeps_its_contract_is_clean() -> None:
    """Nothing is found on one that conforms."""
    assert check_model(ModelPlugin("counting", Counting, "share of positives so far")) == ()


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_built_in_conforms(kind: str) -> None:
    """The package's own models keep the contract that plugins must keep, and their state is small."""
    assert check(ModelPlugin(f"my_{kind}", MODELS[kind], "as built in")) == ()
    assert len(json.dumps(MODELS[kind](0).state_dict())) < 10_000
