"""Drives a guard's model over recorded runs, tick by tick: what its tracked threshold does, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
from attrs import frozen

from lbw_policy.evaluation.counting import NEVER, Detection, Scored
from lbw_policy.evaluation.examples import Example, ticks
from lbw_policy.evaluation.folds import Fold
from lbw_policy.evaluation.training import Trained
from lbw_policy.risk import Prior, RiskModel
from lbw_policy.semantics.policy import Risk

TRUST_AFTER = 50


@frozen
class Tracked:
    """What was asked of a tracked threshold, in false alarms per 1_000 steps, what came, and what a step cost."""

    asked: float
    detection: Detection
    trusted: float
    microseconds: float


def followed(
    runs: Sequence[Example], folds: Sequence[Fold], trained: Sequence[Trained], budgets: Iterable[float]
) -> list[Tracked]:
    """Run a guard's model over each fold's test runs, started from the prior of its training runs, once a budget."""
    found = []
    for budget in budgets:
        walks = [
            walk(runs[place], risk(model.prior, budget), model.prior)
            for fold, model in zip(folds, trained, strict=True)
            for place in fold.test
        ]
        steps = sum(each.scored.example.steps for each in walks)
        found.append(
            Tracked(
                asked=budget,
                detection=Detection.of([each.scored for each in walks], 0.0),
                trusted=sum(each.trusted for each in walks) / steps,
                microseconds=1e6 * sum(each.seconds for each in walks) / steps,
            )
        )
    return found


@frozen(eq=False)
class Walk:
    """One run under a model: 1 where its alarm stood, else -1; at how many steps it was trusted; its CPU time."""

    scored: Scored
    trusted: int
    seconds: float


def risk(prior: Prior, budget: float) -> Risk:
    """Return a risk of standard features."""
    return Risk("divergence", prior.horizon, (), True, prior.kind, budget / 1000.0, TRUST_AFTER, 0.0)


def walk(one: Example, block: Risk, prior: Prior | None) -> Walk:
    """Let a model assess and learn every step of a run."""
    model, scores = RiskModel(block, one.run.seed, prior), np.full(one.steps, NEVER)
    trusted, seconds = 0, 0.0
    for step, values in enumerate(ticks(one.run, one.steps)):
        finite = not (values.get("nonfinite_grads") or values.get("nonfinite_params"))
        began = time.process_time()
        said = model.assess(step, values, {})
        model.learn(step, values.get("loss"), finite, intervened=False)
        seconds += time.process_time() - began
        trusted += said.trusted
        scores[step] = 1.0 if said.alarm else -1.0
    return Walk(Scored(one, scores), trusted, seconds)
