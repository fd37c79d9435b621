from __future__ import annotations

import math

import numpy as np
import pytest

from lbw_policy.evaluation.examples import Example
from lbw_policy.evaluation.fitting import FITS, Rows
from lbw_policy.evaluation.folds import by_architecture
from lbw_policy.evaluation.judging import judge, quality
from lbw_policy.evaluation.training import BUDGETS, Task, calibrate, crossed, line_of, train
from lbw_policy.risk import MODELS, RiskModel
from lbw_policy.risk.alarm import log_odds
from lbw_policy.risk.features import STANDARD_FEATURES
from lbw_policy.risk.prior import Prior
from lbw_policy.semantics.policy import Risk

TASK = Task()


@pytest.mark.parametrize("kind", FITS)
def test_the_model_of_a_run_answers_as_the_fit_did(runs: list[Example], kind: str) -> None:
    """A model started from the plain state gives the scores that the fit gives to the same features."""
    fitted = FITS[kind](Rows.of(runs, TASK.horizon, TASK.seed))
    model = MODELS[kind](0)
    model.load_prior(fitted.state)
    one = next(each for each in runs if each.run.diverged)
    scores = fitted.scored(one).scores
    for step in range(40, one.steps, 7):
        row = one.points[step]
        features = {name: value for name, value in zip(STANDARD_FEATURES, row, strict=True) if not math.isnan(value)}
        assert log_odds(model.predict(features)) == pytest.approx(np.clip(scores[step], -12, 12), abs=1e-6)


@pytest.mark.parametrize("kind", FITS)
def test_what_announces_a_divergence_is_learned_and_transfers(runs: list[Example], kind: str) -> None:
    """On an unseen architecture of the small corpus, whose faults show, ranking is nearly perfect and calibrated."""
    folds = by_architecture(runs)[:1]
    trained = [train([runs[place] for place in fold.train], kind, TASK) for fold in folds]
    judged = judge(runs, folds, trained, TASK)
    found = quality(judged, TASK.horizon)
    assert found.auroc > 0.98
    assert found.skill is not None
    assert found.skill > 0.4


def test_positives_before_the_fault_are_left_out(runs: list[Example]) -> None:
    """A step from which the fault lies ahead is neither positive nor negative, and the rows weigh as all steps do."""
    one = next(each for each in runs if each.run.diverged)
    labels = one.labels(20)
    assert (labels[:92] == 0).all()
    assert (labels[92:100] == -1).all()
    assert (labels[100:] == 1).all()
    rows = Rows.of(runs, 10, 0)
    calm = sum(int((each.calm & each.asked).sum()) for each in runs)
    assert rows.weights[rows.labels == 0].sum() == pytest.approx(calm, rel=0.1)


def test_calibration_finds_the_true_probabilities() -> None:
    """From 40_000 scores whose true log-odds are half of them, less 3, it recovers that line where there are many."""
    dice = np.random.default_rng(0)
    scores = dice.normal(-2.0, 2.0, 40_000)
    labels = (dice.random(40_000) < 1 / (1 + np.exp(3.0 - scores / 2))).astype(float)
    line = line_of(scores, labels)
    assert list(line.values) == sorted(line.values)
    for score in (-4.0, -2.0, 0.0, 2.0):
        assert line.line(score) == pytest.approx(score / 2 - 3.0, abs=0.4)


def test_a_handful_of_steps_is_no_certainty() -> None:
    """Three positives at the top of 10_000 negatives do not make certain what comes there."""
    scores = np.concatenate([np.linspace(-6, 0, 10_000), [5.0, 5.1, 5.2]])
    labels = (scores > 4).astype(float)
    assert 1 / (1 + math.exp(-line_of(scores, labels).line(5.1))) < 0.2


def test_calibration_of_a_corpus_does_not_promise_too_much(runs: list[Example]) -> None:
    """Over runs not trained on, calibrated probabilities add up to no more than the divergences that came."""
    scored = crossed(runs, FITS["logistic"], TASK)
    line = calibrate(scored, TASK.horizon)
    told = came = 0.0
    for each in scored:
        known = each.example.asked & (each.example.labels(TASK.horizon) >= 0)
        told += sum(1 / (1 + math.exp(-line.line(score))) for score in each.scores[known])
        came += each.example.labels(TASK.horizon)[known].sum()
    assert 0.5 * came < told < 1.1 * came
    assert calibrate([each for each in scored if not each.example.run.diverged], TASK.horizon).scores == ()


def test_training_is_reproducible_and_its_thresholds_fall(runs: list[Example]) -> None:
    """The same runs and seed give the same prior, to the digest; a larger budget has a lower threshold."""
    one, two = (train(runs, "logistic", TASK).prior for _ in range(2))
    assert one.digest == two.digest
    assert [budget for budget, _ in one.thresholds] == [budget / 1000 for budget in BUDGETS]
    assert Prior.of(one.plain()) == one


def test_a_trained_prior_foresees_a_run_of_another_seed(runs: list[Example]) -> None:
    """From a prior a guard's model alarms before the divergence of a run, from its first trusted step on."""
    prior = train([each for each in runs if each.run.architecture != "gpt"], "logistic", TASK).prior
    model = RiskModel(Risk("r", 10, (), True, "logistic", 3e-4, 50, 0.0), 0, prior)
    assert model.threshold == prior.threshold(3e-4)
