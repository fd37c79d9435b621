from __future__ import annotations

import pytest

from lbw_policy.corpora import BENIGN
from lbw_policy.errors import TraceError
from lbw_policy.evaluation.examples import Example
from lbw_policy.evaluation.folds import Fold, by_architecture, by_fault


def test_every_run_is_measured_once_by_what_never_saw_it(runs: list[Example]) -> None:
    """In both ways of leaving out, the test parts together are the corpus, and no run is in both parts of a fold."""
    for folds in (by_architecture(runs), by_fault(runs)):
        assert sorted(place for fold in folds for place in fold.test) == list(range(len(runs)))
        assert all(not set(fold.train) & set(fold.test) for fold in folds)


def test_what_is_left_out_is_left_out_whole(runs: list[Example]) -> None:
    """No training run has the architecture, or a fault of the group, that its fold is measured on."""
    for fold in by_architecture(runs):
        assert fold.name not in {runs[place].run.architecture for place in fold.train}
    for fold in by_fault(runs):
        assert fold.name not in {runs[place].run.group for place in fold.train}
        assert BENIGN in {runs[place].run.group for place in fold.test}


def test_an_overlap_is_refused() -> None:
    """A fold that would measure a model on a run it was trained on cannot be made."""
    with pytest.raises(AssertionError, match="both parts"):
        Fold("x", (1, 2), (2, 3))


def test_one_kind_of_run_cannot_be_left_out(runs: list[Example]) -> None:
    """A corpus of one architecture is refused with the reason."""
    with pytest.raises(TraceError, match="at least two kinds"):
        by_architecture([each for each in runs if each.run.architecture == "mlp"])
