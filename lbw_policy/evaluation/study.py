"""The whole evaluation of a corpus: every model and rule, on unseen architectures and on unseen faults."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from attrs import field, frozen

from lbw_policy.corpora import BENIGN
from lbw_policy.evaluation.counting import ALWAYS, Detection, Scored, threshold_for
from lbw_policy.evaluation.examples import Example, Floats
from lbw_policy.evaluation.folds import Fold, by_architecture, by_fault
from lbw_policy.evaluation.judging import Judged, Quality, answered, judge, quality
from lbw_policy.evaluation.rules import RULES, Rule
from lbw_policy.evaluation.tracking import Tracked, followed
from lbw_policy.evaluation.training import Task, train

ASKED = (0.1, 0.3, 1.0, 3.0)
"""Budgets at which the tracked threshold is tried, false alarms per 1_000 steps."""
Say = Callable[[str], None]


@frozen
class Row:
    """A model or rule on one split: how it ranks, what it catches at the budget, and at its authors' threshold."""

    name: str
    quality: Quality
    detection: Detection
    nominal: Detection | None = None


@frozen
class Part:
    """What one model catches in one kind of run."""

    name: str
    runs: int
    detection: Detection


@frozen
class Bin:
    """Steps with probabilities near each other: their mean, the share of divergences among them, how many."""

    told: float
    came: float
    steps: int


@frozen
class Split:
    """One way of leaving out: every model and rule, the tracked thresholds by model, and parts of the first model."""

    name: str
    rows: tuple[Row, ...]
    tracked: Mapping[str, tuple[Tracked, ...]]
    faults: tuple[Part, ...]
    architectures: tuple[Part, ...]
    reliability: tuple[Bin, ...]


@frozen
class Counts:
    """What the corpus is made of."""

    runs: int
    steps: int
    calm: int
    healing: int
    diverged: int
    leaving_3: int
    benign: int
    healed: int


@frozen
class Study:
    """An evaluation: the corpus, the task, and the two splits."""

    counts: Counts
    task: Task
    splits: tuple[Split, ...] = field(factory=tuple)


def study(runs: Sequence[Example], kinds: Sequence[str], task: Task, say: Say) -> Study:
    """Evaluate models by name, and every rule, on both splits; `say` is told what is being done."""
    ways = (("unseen architectures", by_architecture(runs)), ("unseen faults", by_fault(runs)))
    found = []
    for name, folds in ways:
        say(f"{name}: {len(folds)} folds")
        found.append(_split(name, folds, _Work(runs, kinds, task, say)))
    return Study(_count(runs), task, tuple(found))


@frozen
class _Work:
    runs: Sequence[Example]
    kinds: Sequence[str]
    task: Task
    say: Say


def _split(name: str, folds: Sequence[Fold], work: _Work) -> Split:
    runs, kinds, task, say = work.runs, work.kinds, work.task, work.say
    trained, judged = {}, {}
    for kind in kinds:
        say(f"{name}: {kind}")
        trained[kind] = [train([runs[place] for place in fold.train], kind, task) for fold in folds]
        judged[kind] = judge(runs, folds, trained[kind], task)
    rows = [Row(kind, quality(each, task.horizon), Detection.of(each.scored, 0.0)) for kind, each in judged.items()]
    for rule in RULES:
        say(f"{name}: {rule.name}")
        rows.append(_rule(runs, folds, rule, task))
    tracked = {}
    for kind in kinds:
        say(f"{name}: {kind}, its threshold tracked at {len(ASKED)} budgets")
        tracked[kind] = tuple(followed(runs, folds, trained[kind], ASKED))
    first = judged[kinds[0]]
    return Split(
        name=name,
        rows=tuple(rows),
        tracked=tracked,
        faults=_parts(first, lambda one: one.run.fault),
        architectures=_parts(first, lambda one: one.run.architecture),
        reliability=reliability(first, task.horizon),
    )


def _rule(runs: Sequence[Example], folds: Sequence[Fold], rule: Rule, task: Task) -> Row:
    """Judge a rule at the threshold that each fold's training runs set, and at its own."""
    scored = [_hard(Scored(one, rule.score(one))) for one in runs]
    moved: dict[int, Scored] = {}
    for fold in folds:
        threshold = threshold_for([scored[place] for place in fold.train], task.budget)
        moved |= {place: scored[place].minus(threshold) for place in fold.test}
    judged = Judged(tuple(moved[place] for place in sorted(moved)), ())
    return Row(
        rule.name,
        quality(judged, task.horizon),
        Detection.of(judged.scored, 0.0),
        Detection.of(scored, rule.nominal),
    )


def _hard(scored: Scored) -> Scored:
    """Give a rule what our models have too: certainty where a value is not finite."""
    return Scored(scored.example, np.where(scored.example.certain, ALWAYS, scored.scores))


def _parts(judged: Judged, key: Callable[[Example], str]) -> tuple[Part, ...]:
    found: dict[str, list[Scored]] = defaultdict(list)
    for each in judged.scored:
        found[key(each.example)].append(each)
    return tuple(Part(name, len(runs), Detection.of(runs, 0.0)) for name, runs in sorted(found.items()))


def reliability(judged: Judged, horizon: int, bins: int = 12) -> tuple[Bin, ...]:
    """Return probabilities against what came, in bins of equal width in log-odds; empty bins are left out."""
    told, came = answered(judged, horizon)
    edges = np.linspace(-8.0, 4.0, bins + 1)
    place = np.digitize(_odds(told), edges)
    return tuple(
        Bin(float(told[place == at].mean()), float(came[place == at].mean()), int((place == at).sum()))
        for at in np.unique(place)
    )


def _odds(probabilities: Floats) -> Floats:
    bounded = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return np.log(bounded / (1 - bounded))


def _count(runs: Sequence[Example]) -> Counts:
    leads = [one.run.lead for one in runs if one.run.diverged]
    return Counts(
        runs=len(runs),
        steps=sum(one.steps for one in runs),
        calm=int(sum(one.calm.sum() for one in runs)),
        healing=int(sum(one.healing.sum() for one in runs)),
        diverged=len(leads),
        leaving_3=sum(lead is not None and lead >= 3 for lead in leads),
        benign=sum(one.run.group == BENIGN for one in runs),
        healed=sum(one.run.healed for one in runs),
    )
