"""Replays many runs under one setting after another, in this process or in several."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from attrs import define, field

from lbw_policy.semantics import check_source
from lbw_policy.tuning.counting import RULES, Counted, count
from lbw_policy.tuning.params import Setting
from lbw_policy.tuning.runs import Run
from lbw_policy.tuning.subject import Subject

_PORTIONS = 4
"""Portions of runs for each process, so that none waits long for the last."""


def counted(subject: Subject, setting: Setting, runs: Sequence[Run]) -> list[Counted]:
    """Replay runs under a setting that checks, and count."""
    policy = check_source(subject.source, setting, subject.path).policy
    assert policy is not None, "only settings that check are replayed"
    return list(count(policy, runs, RULES[subject.alarm]))


@define(eq=False)
class Replays:
    """Counts what a setting does to some of the runs; the answer is the same with any number of processes."""

    subject: Subject
    runs: tuple[Run, ...]
    _pool: ProcessPoolExecutor | None = field(default=None, alias="pool")
    _portions: int = field(default=1, alias="portions")

    def count(self, setting: Setting, places: Sequence[int]) -> list[Counted]:
        """Return what was counted in the runs at these places, in their order."""
        if self._pool is None:
            return counted(self.subject, setting, [self.runs[place] for place in places])
        # Dealt out, so that long runs, which stand together, are spread over the portions.
        dealt = [places[number :: self._portions] for number in range(self._portions)]
        waiting = [self._pool.submit(_count, setting, portion) for portion in dealt if portion]
        found = {place: one for job in waiting for place, one in job.result()}
        return [found[place] for place in places]


@contextmanager
def replays(subject: Subject, runs: Sequence[Run], jobs: int) -> Iterator[Replays]:
    """Open the replays of these runs; with several jobs, every process gets them once."""
    if jobs == 1:
        _collect_seldom()
        yield Replays(subject, tuple(runs))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(subject, tuple(runs))) as pool:
        try:
            yield Replays(subject, tuple(runs), pool, jobs * _PORTIONS)
        finally:
            pool.shutdown(cancel_futures=True)


_OWN: list[tuple[Subject, tuple[Run, ...]]] = []
"""What a process of the pool works on; empty in all others."""


def _begin(subject: Subject, runs: tuple[Run, ...]) -> None:
    _collect_seldom()
    _OWN[:] = [(subject, runs)]


def _count(setting: Setting, places: Sequence[int]) -> list[tuple[int, Counted]]:
    subject, runs = _OWN[0]
    return list(zip(places, counted(subject, setting, [runs[place] for place in places]), strict=True))


def _collect_seldom() -> None:
    """Look for cyclic garbage seldom: a tick makes none, and the runs are there to the end."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
