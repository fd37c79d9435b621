"""May the model be believed: its own record, over labels that have matured, and what speaks against it."""

from __future__ import annotations

import math
from typing import Any

from attrs import Factory, asdict, define, fields

from lbw_policy.errors import StateError
from lbw_policy.risk import plain
from lbw_policy.risk.alarm import SCORE_BOUND, Outcome
from lbw_policy.risk.drift import Drift
from lbw_policy.risk.labels import Sample
from lbw_policy.risk.standing import Events, Standing

MATURED = 30
"""Labels before a record says anything."""
SUSPENSION = 100
"""Labels, or answers, for which a model stays distrusted after something spoke against it."""
EPISODES = 3
"""Divergences a model without a prior must have ranked well before it is believed."""
SAME = 100
"""Labels in a row with the same answer to different features: a constant."""
FOUND_OUT = 200
"""Labels within which a constant, a random answer of 10 % or more at times, or one that lies where it was right, is
found out in any run; smaller lies by the third divergence. What is not found out keeps to `most_alarms`."""
_MEMORY = 1000.0
_FADE = 1.0 - 1.0 / _MEMORY
_KEPT_EPISODES = 8
_BASE_RATE, _BASE_WEIGHT = 0.005, 200.0
_WORST_LOSS = 0.25
_WORST_RANK = 0.6
_GROWN, _MOVED = 8.0, 10.0
"""What the excess of squared errors, and the scores of quiet ticks over their bound, must add up to for a drift."""
_SLIP = 1e-6
"""What rounding may add to a saved sum."""
_COUNTS = ("matured", "same", "suspended")


@define
class Episode:
    """How high the ticks before one divergence ranked among quiet ticks (mean share of them below)."""

    event: int
    total: float = 0.0
    count: int = 0


@define
class Sums:
    """Running sums over matured labels that fade with a memory of 1_000 labels."""

    labels: float = 0.0
    positives: float = 0.0
    excess: float = 0.0
    excess_squared: float = 0.0
    spread: float = 0.0
    reference: float = 0.0
    expected: float = 0.0
    false_alarms: float = 0.0

    def fade(self) -> None:
        """Let every sum forget a thousandth of itself."""
        self.labels *= _FADE
        self.positives *= _FADE
        self.excess *= _FADE
        self.excess_squared *= _FADE
        self.spread *= _FADE
        self.reference *= _FADE
        self.expected *= _FADE
        self.false_alarms *= _FADE


@define
class Record:
    """A model's answers against what came of them, each answer given before its label was known.

    Something speaks against a model when one of these holds: it gave no number in [0, 1]; it gave the same
    answer to 100 different ticks in a row; its Brier score is worse than that of the base rate by a quarter
    of the base rate's own, beyond two standard errors (labels within a horizon counted as one); its errors have
    grown (a Page-Hinkley test of what it loses to the base rate: a long good record must not hide a change);
    its false alarms exceed the budget by three standard deviations and two; or, over the last eight divergences
    it saw (three at least), the ticks before them rank below 0.6 among quiet ticks (1: perfect, 0.5: chance).
    """

    horizon: int
    budget: float
    sums: Sums = Factory(Sums)
    episodes: list[Episode] = Factory(list)
    matured: int = 0
    same: int = 0
    previous: tuple[float, dict[str, float]] | None = None
    suspended: int = 0
    reason: str = ""
    events: Events = Factory(Events)
    errors: Drift = Factory(lambda: Drift(_GROWN, "up"))
    scores: Drift = Factory(lambda: Drift(_MOVED, "both"))

    def answered(self, valid: bool) -> None:
        """Note whether the model gave a probability this tick; if not, it is distrusted at once."""
        if not valid:
            self._suspend("the model gave no probability")

    def alarmed(self, outcome: Outcome) -> None:
        """Note alarms, heeded or not, whose truth has become known: followed by trouble, or by nothing."""
        self.events.alarmed(true=outcome.true, false=outcome.false)
        if outcome.false:
            self.sums.false_alarms += float(outcome.false)
            self._weigh()

    def diverged(self, *, foreseen: bool, hidden: bool) -> None:
        """Note a divergence; one not foreseen right after an intervention says nothing, its ticks being hidden."""
        if foreseen or not hidden:
            self.events.diverged(foreseen=foreseen)

    def learn(self, sample: Sample, rank: float | None) -> None:
        """Note a tick whose label has matured; `rank` is its score's place among quiet scores."""
        if sample.label is None or sample.probability is None:
            return
        self.matured += 1
        self.suspended = max(self.suspended - 1, 0)
        if self.errors.push(self._compare(sample.probability, sample.label)):
            self._suspend("its errors have grown (drift)")
        if not sample.label and sample.score is not None:
            self.scores.push(sample.score / SCORE_BOUND)
        self._repeat(sample.probability, sample.features)
        if sample.event is not None and rank is not None:
            self._place(sample.event, rank)
        self._weigh()

    def base_rate(self) -> float:
        """Return the share of positives, never below 0.5 %: a run without any must not be unbeatable."""
        return max((self.sums.positives + _BASE_RATE * _BASE_WEIGHT) / (self.sums.labels + _BASE_WEIGHT), _BASE_RATE)

    def rank(self) -> float | None:
        """Return how high divergences ranked on average, or None before there were three."""
        if len(self.episodes) < EPISODES:
            return None
        known = [episode.total / episode.count for episode in self.episodes if episode.count]
        return sum(known) / len(known) if len(known) >= EPISODES else None

    def skill(self) -> float | None:
        """Return the Brier skill against the base rate (1: perfect, 0: no better), or None without labels."""
        return -self.sums.excess / self.sums.reference if self.sums.reference > 0.0 else None

    def loss(self) -> float:
        """Return how much worse than the base rate's the Brier score is, in what the base rate is expected to lose.

        Without a positive the skill would divide by next to nothing.
        """
        return self.sums.excess / self.sums.spread if self.sums.spread > 0.0 else 0.0

    def standing(self) -> Standing:
        """Return how well the model did so far."""
        events, sums = self.events, self.sums
        return Standing(
            labels=self.matured,
            alarms=events.alarms,
            divergences=events.divergences,
            precision=events.precision,
            recall=events.recall,
            skill=self.skill(),
            expected=sums.expected,
            observed=sums.positives,
            drifts=self.errors.found,
            shifts=self.scores.found,
        )

    def against(self) -> str:
        """Return what speaks against the model at present, or an empty text."""
        rank, loss = self.rank(), self.loss()
        if self.same >= SAME:
            return "the model gives one answer whatever it sees"
        if self.matured >= MATURED and loss > _WORST_LOSS and self._significant():
            return f"its probabilities are worse than the base rate (Brier score {1.0 + loss:.2f} times as large)"
        if self.sums.false_alarms > self._allowed():
            return f"{self.sums.false_alarms:.0f} false alarms are more than its budget explains"
        if rank is not None and rank < _WORST_RANK:
            return f"it ranks divergences no higher than quiet steps (mean rank {rank:.2f})"
        return ""

    def _compare(self, probability: float, label: bool) -> float:
        """Add a label up; return how much more it lost by it than the base rate would have."""
        base, truth = self.base_rate(), float(label)
        reference = (base - truth) ** 2
        excess = (probability - truth) ** 2 - reference
        sums = self.sums
        sums.fade()
        sums.labels += 1.0
        sums.positives += truth
        sums.excess += excess
        sums.excess_squared += excess * excess
        sums.spread += base * (1.0 - base)
        sums.reference += reference
        sums.expected += probability
        return excess

    def _repeat(self, probability: float, features: dict[str, float]) -> None:
        if self.previous is not None and self.previous[0] != probability:
            self.same = 0
        elif self.previous is not None and self.previous[1] != features:
            self.same += 1
        self.previous = probability, features

    def _place(self, event: int, rank: float) -> None:
        if not self.episodes or self.episodes[-1].event != event:
            self.episodes = [*self.episodes[1 - _KEPT_EPISODES :], Episode(event)]
        self.episodes[-1].total += rank
        self.episodes[-1].count += 1

    def _significant(self) -> bool:
        # Labels closer than the horizon share their fate, so they count as one observation.
        return self.sums.excess > 2.0 * math.sqrt(self.sums.excess_squared * self.horizon)

    def _allowed(self) -> float:
        return _allowed(self.budget * self.sums.labels)

    def _weigh(self) -> None:
        against = self.against()
        if against:
            self._suspend(against)

    def _suspend(self, reason: str) -> None:
        self.suspended, self.reason = SUSPENSION, reason

    def state_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""
        previous = self.previous
        return {
            "sums": asdict(self.sums),
            "episodes": [asdict(episode) for episode in self.episodes],
            "counts": {"matured": self.matured, "same": self.same, "suspended": self.suspended},
            "previous": None if previous is None else {"probability": previous[0], "features": dict(previous[1])},
            "reason": self.reason,
            "events": self.events.state_dict(),
            "drift": {"errors": self.errors.state_dict(), "scores": self.scores.state_dict()},
        }

    def load_state_dict(self, state: object) -> None:
        """Take over a saved record; raise `StateError` where it is damaged."""
        self.sums = _sums(plain.entry(state, "sums"))
        self.episodes = [_episode(each) for each in plain.items(state, "episodes")][-_KEPT_EPISODES:]
        counts = plain.entry(state, "counts")
        self.matured, self.same, self.suspended = (plain.natural(counts, key) for key in _COUNTS)
        self.previous, self.reason = None, plain.text(state, "reason")
        self.events.load_state_dict(plain.entry(state, "events"))
        drift = plain.entry(state, "drift")
        self.errors.load_state_dict(plain.entry(drift, "errors"))
        self.scores.load_state_dict(plain.entry(drift, "scores"))
        if plain.entry(state, "previous") is not None:
            previous = plain.entry(state, "previous")
            self.previous = plain.number(previous, "probability"), plain.named_numbers(previous, "features")


def _allowed(expected: float) -> float:
    """Return the false alarms that chance explains where so many are expected: three standard deviations and two."""
    return expected + 3.0 * math.sqrt(expected) + 2.0


def most_alarms(ticks: int, budget: float) -> int:
    """Return the most alarms that a policy can see in so many ticks without trouble, whatever the model answers.

    Those that chance explains and the one that is too many cost trust; up to two more begin before they are known
    to be false. Trust comes back when the record has faded below what is allowed: every further alarm, and the two
    that may follow, take it away for the ticks in which a thousandth a tick of the record fades by one.
    """
    allowed = _allowed(budget * _MEMORY)
    fading = _MEMORY * math.log1p(1.0 / allowed)
    return math.ceil(allowed) + 2 + 3 * math.ceil(ticks / fading)


def _sums(state: object) -> Sums:
    """Return saved sums, which must be those of answers and labels from 0 to 1 with a memory of 1_000."""
    found = Sums(**{each.name: plain.number(state, each.name) for each in fields(Sums)})
    least = min(value for name, value in asdict(found).items() if name != "excess")
    # INVARIANT: no credit of good answers outlasts the memory: a Brier score is never below 0.
    sane = -found.excess - _SLIP <= found.reference <= found.labels + _SLIP <= _MEMORY + 2 * _SLIP
    if least < 0.0 or not sane:
        message = f"risk state: expected the sums of at most {_MEMORY:g} labels, found {asdict(found)}"
        raise StateError(message)
    return found


def _episode(state: object) -> Episode:
    return Episode(plain.whole(state, "event"), plain.number(state, "total"), plain.whole(state, "count"))
