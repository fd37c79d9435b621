"""Searches a policy's params for the settings that catch most at the lowest price, and chooses one within a budget."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from lbw_policy.tuning.counting import Score
from lbw_policy.tuning.params import Setting, Space, Tunable

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_MOST_ASKED = 5
"""Settings asked for, for each that is to be tried: those known already or unusable cost nearly nothing."""

_STEPS = (-0.1, 0.1, -0.3, 0.3)
"""How far each param is moved alone, as shares of its range."""
_WORST = (0.0, 1000.0)
"""What an unusable setting is said to do, so that others like it are not asked for."""


@frozen
class Tried:
    """A setting, and its score on the runs that params are chosen on."""

    setting: Setting
    score: Score


Judge = Callable[[Setting], Score | str]
"""Returns what a setting does, or why it is unusable."""


@define
class Search:
    """What was tried, the present setting first, and how many settings were passed over for which reason."""

    tried: list[Tried] = field(factory=list)
    passed_over: Counter[str] = field(factory=Counter)

    @property
    def present(self) -> Tried:
        """What the policy does as it is."""
        return self.tried[0]


def search(space: Space, judge: Judge, trials: int, seed: int, after: Callable[[Search], None]) -> Search:
    """Try the present setting and others, `trials` in all; `after` is told after each.

    First each param alone is moved to both sides. Then two objectives, the share caught and the false alarms, are
    sought at once by a tree-structured Parzen estimator (Ozaki et al., "Multiobjective tree-structured Parzen
    estimator", JAIR 2022), as optuna has it: what is caught is a step function of the params, without a gradient.
    The same space, judge and seed try the same.
    """
    found, known = Search(), dict[tuple[float, ...], Score | str]()
    for setting, tell in _proposals(space, trials * _MOST_ASKED, seed):
        key = tuple(setting.values())
        if key not in known:
            known[key] = judge(setting)
            _keep(found, setting, known[key], after)
        tell(known[key])
        if len(found.tried) == trials:
            break
    return found


def _keep(found: Search, setting: Setting, verdict: Score | str, after: Callable[[Search], None]) -> None:
    if isinstance(verdict, Score):
        found.tried.append(Tried(setting, verdict))
        after(found)
    else:
        found.passed_over[verdict] += 1


def _proposals(space: Space, most: int, seed: int) -> Iterator[tuple[Setting, Callable[[Score | str], None]]]:
    """Yield settings, the present one first, each with the function that is to be told what it does."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    starts = list(_starts(space))
    for start in starts:
        study.enqueue_trial({one.name: _asked(one, start[one.name]) for one in space.params})
    ranges = {one.name: _distribution(one) for one in space.params}
    for number in range(most):
        trial = study.ask(ranges)

        def tell(verdict: Score | str, trial: optuna.Trial = trial) -> None:
            study.tell(trial, [verdict.caught, verdict.rate] if isinstance(verdict, Score) else _WORST)

        drawn = {one.name: one.snapped(trial.params[one.name]) for one in space.params}
        yield (starts[number] if number < len(starts) else drawn), tell


def _starts(space: Space) -> Iterator[Setting]:
    yield space.present
    for share in _STEPS:
        for one in space.params:
            yield {**space.present, one.name: one.moved(share)}


def _asked(one: Tunable, value: float) -> float:
    return round(value) if one.whole else value


def _distribution(one: Tunable) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    if one.whole:
        return IntDistribution(int(one.low), int(one.high), log=one.logarithmic)
    return FloatDistribution(one.low, one.high, log=one.logarithmic)


def front(tried: Sequence[Tried], space: Space) -> list[Tried]:
    """Return the settings that no other beats in what it catches and what it costs, by rising false alarms.

    Of those that do as well, the one that is earlier, then the one nearer to the present setting stands for all.
    """
    found: list[Tried] = []
    for each in sorted(tried, key=lambda one: (one.score.rate, *_worth(one, space))):
        if not found or each.score.caught > found[-1].score.caught:
            found.append(each)
    return found


def choose(tried: Sequence[Tried], space: Space, budget: float) -> Tried | None:
    """Return the setting that catches most within the budget; None where none that keeps to it catches anything.

    Of those that catch as much, the one with the longest median lead, then with the fewest false alarms, then the one
    nearest to the present setting.
    """
    within = [one for one in tried if one.score.rate <= budget and one.score.leads]
    return min(within, key=lambda one: _worth(one, space), default=None)


def _worth(one: Tried, space: Space) -> tuple[float, float, float, float]:
    """Return what orders settings, the best first."""
    lead = one.score.lead
    return -one.score.caught, math.inf if lead is None else -lead, one.score.rate, space.distance(one.setting)
