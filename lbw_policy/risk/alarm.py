"""Where an alarm begins: a threshold on the score that keeps to a budget of false alarms."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from typing import Any

from attrs import Factory, asdict, define, frozen

from lbw_policy.risk import plain

SCORE_BOUND = 12.0
"""Scores are log-odds in `[-SCORE_BOUND, SCORE_BOUND]`."""
REFRACTORY = 25
"""Ticks after an alarm begins in which no new one is counted."""
WINDOW = 500
"""Quiet scores the tail is taken from."""
ENOUGH = 60
"""Quiet scores before the tail is known; until then only a prior's threshold can alarm."""
_TAIL = 0.05
LEAST_SCALE = 0.25
"""The least unit of the shift, in log-odds."""
_LOWEST_SHIFT = -2.0
_LOG_2 = math.log(2.0)


def log_odds(probability: float) -> float:
    """Return the score of a probability in [0, 1]: its log-odds, within `SCORE_BOUND`."""
    if probability <= 0.0 or probability >= 1.0:
        return SCORE_BOUND if probability >= 1.0 else -SCORE_BOUND
    return min(max(math.log(probability) - math.log1p(-probability), -SCORE_BOUND), SCORE_BOUND)


@define
class Raised:
    """An alarm, heeded or not, whose truth is not yet known; `hidden` once an intervention hides its outcome."""

    tick: int
    hidden: bool = False


@frozen
class Outcome:
    """What a tick shows of earlier alarms: how many were false with nothing hidden, how many trouble followed."""

    false: int = 0
    true: int = 0


_NOTHING_SHOWN = Outcome()


@define
class Threshold:
    """Tracks a high quantile of the score over quiet ticks, so that alarms keep to `budget` a tick.

    The threshold is `base + scale * shift`. `shift` is moved by what happens (quantile tracking as in conformal PID
    control: Angelopoulos et al. 2023): up by one at each false alarm, down by `budget` at each quiet tick, never below
    -2. Quiet ticks are those whose label matured as negative. From a prior, `base` is `start`, which kept to the budget
    on other runs, and `scale` is `unit`, what their scores' tail falls by a factor e in. Without one they are made
    from this run: `base = u + scale log(0.05 / budget)`, `u` being the 95 % quantile of the last 500 quiet scores
    and `scale` the median excess above it over log 2 (an exponential tail, as in SPOT: Siffer et al. 2017, with a
    median for the ticks before trouble that pass for quiet).

    A false alarm is one after which the loss stayed calm, not even crossing its bar, for `grace` ticks. An alarm
    counts where it begins and again only after 25 ticks. One whose outcome an intervention hides counts as false:
    else a guard that acts on every alarm would never learn that it alarms too much.

    Guarantee, for any sequence of scores and outcomes: after N quiet ticks the false alarms are at most
    `budget N + K + ceil(grace / 25)`, where K is the highest score seen beyond `base`, in units of `scale` (0 if
    none was). It needs no assumption, but says little before N is several times `K / budget`; until then the
    rate is right if this run's quiet scores are exchangeable with those of the prior's runs, or, without a prior,
    with one another over the window, their tail falling off exponentially or faster.
    """

    budget: float
    grace: int = REFRACTORY
    start: float | None = None
    unit: float = LEAST_SCALE
    shift: float = 0.0
    recent: deque[float] = Factory(deque)
    ordered: list[float] = Factory(list)
    raised: list[Raised] = Factory(list)
    last: int | None = None
    quiet: int = 0
    false_alarms: int = 0
    warned: bool = False
    _base: tuple[float, float] | None = None

    @property
    def value(self) -> float | None:
        """The score above which an alarm stands, or None while none can."""
        base = self._level()
        return None if base is None else base[0] + base[1] * self.shift

    def excess(self, score: float) -> float | None:
        """Return how far a score lies beyond the threshold before its shift, in tail units."""
        base = self._level()
        return None if base is None else (score - base[0]) / base[1]

    def exceeded(self, score: float) -> bool:
        """Tell whether an alarm stands at this score."""
        base = self._level()
        return base is not None and (score - base[0]) / base[1] > self.shift

    def _level(self) -> tuple[float, float] | None:
        """Return the threshold before its shift and the unit of the shift, or None while there is none."""
        return self._base if self.start is None or self.budget <= 0.0 else (self.start, self.unit)

    def rank(self, score: float) -> float | None:
        """Return the share of recent quiet scores below this one, or None while there are too few."""
        if len(self.ordered) < ENOUGH:
            return None
        return bisect_left(self.ordered, score) / len(self.ordered)

    def judge(self, tick: int, score: float) -> bool:
        """Tell whether an alarm stands at this score, and note where one begins."""
        above = self.exceeded(score)
        if above and (self.last is None or not 0 <= tick - self.last < REFRACTORY):
            self.last = tick
            self.raised.append(Raised(tick))
        return above

    def observe(self, tick: int, troubled: bool, intervened: bool) -> Outcome:
        """Take a tick's outcome; return what it shows of earlier alarms.

        `warned` then tells whether an alarm came before the present trouble.
        """
        if troubled:
            true, self.raised = len(self.raised), []
            self.warned = self.warned or true > 0
            return Outcome(true=true)
        self.warned = False
        if not self.raised:
            return _NOTHING_SHOWN
        for alarm in self.raised:
            alarm.hidden = alarm.hidden or intervened
        due = [alarm for alarm in self.raised if tick - alarm.tick >= self.grace]
        self.raised = [alarm for alarm in self.raised if 0 <= tick - alarm.tick < self.grace]
        self.false_alarms += len(due)
        self.shift += float(len(due))
        return Outcome(false=sum(not alarm.hidden for alarm in due))

    def learn(self, score: float) -> None:
        """Take the score of a tick whose label matured as negative: the threshold sinks by the budget."""
        self.quiet += 1
        self.shift = max(self.shift - self.budget, _LOWEST_SHIFT)
        self._keep(score)

    def _keep(self, score: float) -> None:
        if len(self.recent) == WINDOW:
            del self.ordered[bisect_left(self.ordered, self.recent.popleft())]
        self.recent.append(score)
        insort(self.ordered, score)
        self._settle()

    def _settle(self) -> None:
        ordered = self.ordered
        count = len(ordered)
        if count < ENOUGH or self.budget <= 0.0:
            return
        at = int((1.0 - _TAIL) * count)
        level = ordered[at - 1]
        scale = max((ordered[at + (count - at) // 2] - level) / _LOG_2, LEAST_SCALE)
        self._base = level + scale * math.log(_TAIL / self.budget), scale

    def state_dict(self) -> dict[str, Any]:
        """Return the quiet scores and the shift as plain data."""
        return {
            "start": self.start,
            "unit": self.unit,
            "shift": self.shift,
            "recent": list(self.recent),
            "raised": [asdict(alarm) for alarm in self.raised],
            "last": self.last,
            "quiet": self.quiet,
            "false_alarms": self.false_alarms,
            "warned": self.warned,
        }

    def load_state_dict(self, state: object) -> None:
        """Take over a saved threshold; raise `StateError` where it is damaged."""
        recent = plain.numbers(state, "recent")[-WINDOW:]
        self.start, self.unit = plain.optional_number(state, "start"), max(plain.number(state, "unit"), LEAST_SCALE)
        self.shift = plain.number(state, "shift")
        self.raised = [
            Raised(plain.whole(each, "tick"), plain.truth(each, "hidden")) for each in plain.items(state, "raised")
        ]
        self.last = plain.optional_whole(state, "last")
        self.quiet, self.false_alarms = plain.whole(state, "quiet"), plain.whole(state, "false_alarms")
        self.warned = plain.truth(state, "warned")
        self.recent, self.ordered, self._base = deque(recent), sorted(recent), None
        self._settle()
