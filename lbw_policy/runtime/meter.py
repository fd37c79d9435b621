"""How long the guard itself takes, and how long a step does without it."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from attrs import define, field

from lbw_policy.telemetry.stopwatch import Stopwatch

WINDOW = 50
"""Steps whose median is the time of a step, and steps between two judgements."""
WARM_UP = 10
"""Steps that are not measured, at the beginning and after a gap: caches and allocators fill."""
_OF_A_KIND = 9
"""Ticks of one kind whose median is what such a tick costs."""
_ENOUGH = 3
"""Ticks of a kind of which a median can be taken; of fewer the cheapest counts."""
_CAPTURES = 5
_LONGEST = 4_096
"""Most ticks that are looked ahead to count how often each kind of tick comes."""
_MOST_KINDS = 256

Kind = tuple[frozenset[str], frozenset[str]]
"""The sources due in a tick and in the next: for the latter, hooks and samples are set up."""


@define(eq=False)
class Meter:
    """The time of steps, of ticks by their kind, and of snapshots; medians of the last ones."""

    watch: Stopwatch
    laps: int = field(init=False, default=0)
    """Steps measured since the last gap."""
    kind: Kind | None = field(init=False, default=None)
    """What is due in the tick that goes on."""
    _steps: deque[float] = field(init=False, factory=lambda: deque(maxlen=WINDOW))
    _costs: dict[Kind, deque[float]] = field(init=False, factory=dict)
    _captures: deque[float] = field(init=False, factory=lambda: deque(maxlen=_CAPTURES))
    _capturing: float = field(init=False, default=0.0)
    _last: float | None = field(init=False, default=None)
    _skipped: int = field(init=False, default=0)

    def lap(self) -> None:
        """Begin a tick, and end the one before: all since then is one step."""
        now = self.watch.clock()
        spent, captured = self.watch.take(), self._capturing
        last, kind = self._last, self.kind
        self._last, self.kind, self._capturing = now, None, 0.0
        if last is None:
            return
        if self._skipped < WARM_UP:
            self._skipped += 1
            return
        rest = now - last - spent - captured
        # A clock may be set back, or stand still: what is no time is not counted.
        if kind is not None and 0 < rest < math.inf and 0 <= spent < math.inf:
            self._steps.append(rest)
            self._cost(kind).append(spent)
            self.laps += 1

    def _cost(self, kind: Kind) -> deque[float]:
        if kind not in self._costs and len(self._costs) >= _MOST_KINDS:
            del self._costs[next(iter(self._costs))]
        return self._costs.setdefault(kind, deque(maxlen=_OF_A_KIND))

    def gap(self) -> None:
        """Forget that a tick goes on: what comes until the next is no step."""
        self._last, self.kind, self._skipped, self._capturing = None, None, 0, 0.0
        self.watch.take()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Take the time of a snapshot, apart from that of the tick."""
        with self.watch.resting():
            began = self.watch.clock()
            yield
            took = self.watch.clock() - began
        if 0 <= took < math.inf:
            self._captures.append(took)
            self._capturing += took

    @property
    def step(self) -> float | None:
        """Seconds of a step without the guard."""
        return statistics.median(self._steps) if len(self._steps) == WINDOW else None

    @property
    def snapshot(self) -> float:
        """Seconds of a snapshot."""
        return statistics.median(self._captures) if self._captures else 0.0

    def sampling(self, every: Mapping[str, int]) -> float:
        """Return the seconds a tick costs on average, kinds of ticks weighed by how often they come."""
        counts = _kinds(tuple(sorted(every.items())))
        return sum(count * self._typical(kind) for kind, count in counts.items()) / counts.total()

    @property
    def least(self) -> float:
        """Seconds of the cheapest kind of tick: what is left if nothing were sampled but what is never thinned."""
        return min((self._typical(kind) for kind in self._costs), default=0.0)

    def _typical(self, kind: Kind) -> float:
        costs = self._costs.get(kind, ())
        return statistics.median(costs) if len(costs) >= _ENOUGH else min(costs, default=0.0)


def due(every: Mapping[str, int], tick: int) -> frozenset[str]:
    """Return the sources that a tick reads."""
    return frozenset(key for key, ticks in every.items() if tick % ticks == 0)


@functools.lru_cache(maxsize=8)
def _kinds(every: tuple[tuple[str, int], ...]) -> Counter[Kind]:
    """Count the kinds of ticks over a whole turn of all distances."""
    turn, found = min(math.lcm(*(ticks for _, ticks in every)), _LONGEST), dict(every)
    sources = [due(found, tick) for tick in range(1, turn + 2)]
    return Counter(itertools.pairwise(sources))
