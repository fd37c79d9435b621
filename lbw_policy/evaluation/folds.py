"""Which runs a model is trained on and which it is measured on; no run is ever in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import field, frozen

from lbw_policy.corpora import BENIGN
from lbw_policy.errors import TraceError
from lbw_policy.evaluation.examples import Example


def _apart(fold: Fold, _attribute: object, test: tuple[int, ...]) -> None:
    # INVARIANT: what a model is measured on it has never seen.
    if set(fold.train) & set(test):
        raise AssertionError(f"fold `{fold.name}` has runs in both parts")


@frozen
class Fold:
    """The places, in one list of runs, of those to train on and those to measure on."""

    name: str
    train: tuple[int, ...]
    test: tuple[int, ...] = field(validator=_apart)


def by_architecture(runs: Sequence[Example]) -> list[Fold]:
    """Leave one architecture out at a time, with all its runs."""
    return _leave_out(runs, lambda place: runs[place].run.architecture)


def by_fault(runs: Sequence[Example]) -> list[Fold]:
    """Leave one group of faults out at a time, with every run of that group; benign runs are dealt to the folds."""
    groups = sorted({each.run.group for each in runs} - {BENIGN})
    benign = [place for place, each in enumerate(runs) if each.run.group == BENIGN]
    dealt = {place: groups[number % len(groups)] for number, place in enumerate(benign)} if groups else {}
    return _leave_out(runs, lambda place: dealt.get(place, runs[place].run.group))


def _leave_out(runs: Sequence[Example], key: Callable[[int], str]) -> list[Fold]:
    keys = [key(place) for place in range(len(runs))]
    if len(set(keys)) < 2:
        raise TraceError(f"the corpus: expected at least two kinds of runs to leave one out, found {sorted(set(keys))}")
    return [
        Fold(
            name,
            tuple(place for place, each in enumerate(keys) if each != name),
            tuple(place for place, each in enumerate(keys) if each == name),
        )
        for name in sorted(set(keys))
    ]
