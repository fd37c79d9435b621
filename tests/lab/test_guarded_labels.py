"""What a guard does to the labels of its own risk model, on real trainings."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

import lbw_policy as lbw
from lbw_policy.lab.architectures import task_of
from lbw_policy.lab.faults import FAULTS
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.training import Run
from lbw_policy.risk import MODELS, RiskModel
from lbw_policy.risk.labels import Sample

HORIZON, START, STEPS = 10, 60, 130
POLICY = """lbw 1
policy closed_loop { doc "skips what a high learning rate does" }
signal loss = telemetry.loss
signal lr   = telemetry.lr
risk divergence {
  horizon 10 steps  features standard  model recorder  alarm at most 1 false per 100 steps
  trust after 20 steps  fallback 0%
}
reflex glitch { when lr > 2 * median(lr, 40 steps)  do ACTION }
limits { ACTION LIMIT  intervene at most 400 per 1_000 steps }
"""


class _Recorder:
    """A model that keeps every label that it is taught."""

    informed = True

    def __init__(self) -> None:
        self.taught: list[tuple[dict[str, float], bool]] = []

    def predict(self, features: Mapping[str, float]) -> float:
        return 0.001 + 1e-6 * len(features)

    def learn(self, features: Mapping[str, float], diverged: bool) -> None:
        self.taught.append((dict(features), diverged))

    def drivers(self, features: Mapping[str, float]) -> list[tuple[str, float]]:
        return list(features.items())

    def load_prior(self, prior: object) -> None:
        """Ignore it."""

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: object) -> None:
        """Take nothing."""


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """Collect every sample whose wait for a label is over."""
    found: list[Sample] = []
    mature = RiskModel._mature

    def keep(model: RiskModel, sample: Sample) -> None:
        found.append(sample)
        mature(model, sample)

    monkeypatch.setattr(RiskModel, "_mature", keep)
    monkeypatch.setitem(MODELS, "recorder", lambda seed: _Recorder())
    monkeypatch.setattr("lbw_policy.semantics.extensions.RISK_MODELS", ("recorder",))
    return found


def _policy(action: str) -> str:
    name = action.partition(" ")[0]
    limit = {"skip": "at most 40 in a row, at most 90 per 1_000 steps", "scale_lr": "within [0.01, 1]"}[name]
    return POLICY.replace("do ACTION", f"do {action}").replace("ACTION LIMIT", f"{name} {limit}")


def _run(action: str, mode: str) -> tuple[Run, set[int]]:
    """Train a small MLP whose learning rate is 60 times too high for 20 steps; return it and the ticks acted at."""
    fault = FAULTS["lr_glitch"](START, 20, 60.0)
    run = Run(
        task_of("mlp"),
        Recipe(steps=STEPS, seed=3, rate=0.003, optimizer="adamw"),
        fault,
        attach=lambda optimizer, model, scheduler: lbw.attach(optimizer, _policy(action), model=model, mode=mode),
    )
    acted = set()
    for step in range(STEPS):
        run.step()
        if run.guard._turn is not None and run.guard._turn.granted:
            acted.add(step)
    run.guard.detach()
    return run, acted


@pytest.mark.parametrize("action", ["skip", "scale_lr by 0.01"])
def test_ticks_around_what_the_guard_did_get_no_label(samples: list[Sample], action: str) -> None:
    """In a guarded run no tick within the horizon of an intervention, before or after, is taught; all others are."""
    _, acted = _run(action, "act")
    assert acted
    assert min(acted) in (START, START + 1)
    hidden = {tick + shift for tick in acted for shift in range(-HORIZON, HORIZON + 1)}
    labelled = {sample.tick for sample in samples if sample.label is not None}
    assert not labelled & hidden
    far = {sample.tick for sample in samples} - hidden
    assert labelled == far
    assert len(far) > 60


def test_a_prevented_divergence_is_no_negative(samples: list[Sample]) -> None:
    """The same trouble in a shadow run leaves positives; skipped, it leaves neither positives nor negatives there."""
    _run("skip", "shadow")
    before_fault = range(START - HORIZON, START + 1)
    shadow = {sample.tick: sample.label for sample in samples}
    assert True in shadow.values()
    samples.clear()
    _run("skip", "act")
    guarded = {sample.tick: sample.label for sample in samples}
    assert True not in guarded.values()
    assert all(guarded[tick] is None for tick in before_fault if tick in guarded)


def test_shadow_censors_nothing(samples: list[Sample]) -> None:
    """A guard that only watches changes nothing, so every label counts as in an unguarded run."""
    _, decided = _run("skip", "shadow")
    assert decided
    assert not any(sample.censored for sample in samples)
