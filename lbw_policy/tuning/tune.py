"""Tunes a policy: runs parted, settings searched on the one part, the trade-off measured on the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from lbw_policy.tuning.counting import Score
from lbw_policy.tuning.params import Setting, Space
from lbw_policy.tuning.replays import replays
from lbw_policy.tuning.report import Tuned, shown
from lbw_policy.tuning.runs import Run, check_runs, part
from lbw_policy.tuning.search import Search, choose, search
from lbw_policy.tuning.subject import Subject
from lbw_policy.tuning.usable import Usable


@frozen
class Order:
    """How to tune: false alarms per 1_000 healthy steps at most, the share of runs held out, settings to try.

    And `jobs` processes, the seed of all chance, and whether the policy's own tests must go on passing (`keep_tests`).
    """

    budget: float = 0.3
    hold_out: float = 0.3
    trials: int = 60
    jobs: int = 1
    seed: int = 0
    keep_tests: bool = False


def tune(subject: Subject, space: Space, runs: Sequence[Run], order: Order, after: Callable[[Search], None]) -> Tuned:
    """Search the space on the runs that are not held out; `after` is told after each setting tried.

    Raises TuneError where the runs cannot tell good values from bad.
    """
    check_runs(runs)
    parts = part(runs, order.hold_out, order.seed)
    usable, kept = (Usable.of(subject, tests=tests) for tests in (order.keep_tests, True))
    with replays(subject, (*parts.chosen_on, *parts.held_out), order.jobs) as found:
        places = range(len(parts.chosen_on))

        def judge(setting: Setting) -> Score | str:
            return usable.why_not(setting) or Score.of(found.count(setting, places))

        made = search(space, judge, order.trials, order.seed, after)
        chosen = choose(made.tried, space, order.budget)
        rest = range(len(parts.chosen_on), len(found.runs))
        rows = shown(made, space, chosen) if parts.held_out else []
        held = {tuple(one.setting.values()): Score.of(found.count(one.setting, rest)) for one in rows}
    failing = kept.failing(chosen.setting) if chosen else ()
    return Tuned(subject.policy.name, space, parts, order.budget, made, chosen, held, failing)
