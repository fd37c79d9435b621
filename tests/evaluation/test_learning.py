from __future__ import annotations

import math
from pathlib import Path

import pytest

from lbw_policy.errors import StateError, TraceError
from lbw_policy.evaluation.examples import Example
from lbw_policy.evaluation.learning import Recorded, learn, recorded
from lbw_policy.evaluation.training import Task, train
from lbw_policy.risk import Prior, prior, starting
from lbw_policy.risk.logistic import RADIUS
from lbw_policy.semantics.policy import Risk

RISK = Risk("r", 10, (), True, "logistic", 3e-4, 50, 0.0)


@pytest.fixture(scope="module")
def start(runs: list[Example]) -> Prior:
    return train(runs, "logistic", Task()).prior


def _distance(one: Prior) -> float:
    anchor, weights = one.model["anchor"], one.model["weights"]
    gaps = [weights.get(name, 0.0) - anchor.get(name, 0.0) for name in weights | anchor]
    return math.hypot(*gaps, one.model["intercept"] - one.model["anchor_intercept"])


def test_learning_moves_a_prior_and_keeps_it_near(start: Prior, corpus: Path) -> None:
    """Folding 30 runs in twice moves the weights, never beyond the radius of the prior that it began with."""
    once, told = learn(start, list(recorded(corpus)))
    assert (told.runs, told.positives > 50, told.labels > 3000) == (30, True, True)
    assert 0 < _distance(once) <= RADIUS
    twice, _ = learn(once, list(recorded(corpus)), seed=1)
    assert twice.base == once.base == start.digest
    assert twice.model["anchor"] == start.model["weights"]
    assert _distance(twice) <= RADIUS
    assert twice != once


def test_learning_is_reproducible(start: Prior, corpus: Path) -> None:
    """The same runs, seed and start give the same file."""
    runs = list(recorded(corpus))[:6]
    assert learn(start, runs)[0] == learn(start, runs)[0]


def test_what_a_guard_did_in_a_recorded_run_is_censored(start: Prior) -> None:
    """A trace with an intervention every nine ticks teaches nothing: every label lies within the horizon of one."""
    columns = {"loss": [2.0] * 300, "grad_norm": [1.0 + (step % 7) / 10 for step in range(300)]}
    acted = {**columns, "interventions": [float(step % 9 == 0) for step in range(300)]}
    _, free = learn(start, [Recorded("free", columns, 300)])
    _, hidden = learn(start, [Recorded("acted", acted, 300)])
    assert (free.labels > 200, hidden.labels) == (True, 0)


def test_a_learned_prior_fits_what_it_was_learned_from_only(
    start: Prior, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local prior starts a risk while its own start is what ships; after an update it must be learned again."""
    local, _ = learn(start, list(recorded(corpus))[:4])
    monkeypatch.setattr(prior, "shipped", lambda kind: start)
    assert starting(RISK, local) is local
    monkeypatch.setattr(prior, "shipped", lambda kind: Prior("logistic", 20, start.model))
    with pytest.raises(StateError, match="learn it again"):
        starting(RISK, local)


def test_a_trace_without_losses_teaches_nothing(tmp_path: Path) -> None:
    """A trace must have a `loss`; that it has none is told, with its path."""
    path = tmp_path / "run.csv"
    path.write_text("grad_norm\n1\n2\n")
    with pytest.raises(TraceError, match=r"run\.csv: expected a column `loss`"):
        list(recorded(path))
