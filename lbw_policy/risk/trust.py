"""May the model be believed: its own record, over labels that have matured, and what speaks against it."""

from __future__ import annotations

import math
from typing import Any

from attrs import Factory, asdict, define, fields

from lbw_policy.risk import plain
from lbw_policy.risk.labels import Sample

MATURED = 30
"""Labels before a record says anything."""
SUSPENSION = 100
"""Labels, or answers, for which a model stays distrusted after something spoke against it."""
EPISODES = 3
"""Divergences a model without a prior must have ranked well before it is believed."""
SAME = 100
"""Labels in a row with the same answer to different features: a constant."""
_FADE = 1.0 - 1.0 / 1000.0
_KEPT_EPISODES = 8
_BASE_RATE, _BASE_WEIGHT = 0.005, 200.0
_WORST_SKILL = -0.25
_WORST_RANK = 0.6
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
    false_alarms: float = 0.0

    def fade(self) -> None:
        """Let every sum forget a thousandth of itself."""
        self.labels *= _FADE
        self.positives *= _FADE
        self.excess *= _FADE
        self.excess_squared *= _FADE
        self.spread *= _FADE
        self.false_alarms *= _FADE


@define
class Record:
    """A model's answers against what came of them, each answer given before its label was known.

    Something speaks against a model when one of these holds: it gave no number in [0, 1]; it gave the same
    answer to 100 different ticks in a row; its Brier score is worse than that of the base rate by a quarter
    of the base rate's own, beyond two standard errors (labels within a horizon counted as one); its false
    alarms exceed the budget by three standard deviations and two; or, over the last eight divergences it
    saw (three at least), the ticks before them rank below 0.6 among quiet ticks (1: perfect, 0.5: chance).
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

    def answered(self, valid: bool) -> None:
        """Note whether the model gave a probability this tick; if not, it is distrusted at once."""
        if not valid:
            self._suspend("the model gave no probability")

    def alarmed_falsely(self, times: int) -> None:
        """Note alarms, heeded or not, that nothing followed although nothing was done."""
        if times:
            self.sums.false_alarms += float(times)
            self._weigh()

    def learn(self, sample: Sample, rank: float | None) -> None:
        """Note a tick whose label has matured; `rank` is its score's place among quiet scores."""
        if sample.label is None or sample.probability is None:
            return
        self.matured += 1
        self.suspended = max(self.suspended - 1, 0)
        self._compare(sample.probability, sample.label)
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
        return -self.sums.excess / self.sums.spread if self.sums.spread > 0.0 else None

    def against(self) -> str:
        """Return what speaks against the model at present, or an empty text."""
        rank, skill = self.rank(), self.skill()
        if self.same >= SAME:
            return "the model gives one answer whatever it sees"
        if self.matured >= MATURED and skill is not None and skill < _WORST_SKILL and self._significant():
            return f"its probabilities are worse than the base rate (Brier skill {skill:.2f})"
        if self.sums.false_alarms > self._allowed():
            return f"{self.sums.false_alarms:.0f} false alarms are more than its budget explains"
        if rank is not None and rank < _WORST_RANK:
            return f"it ranks divergences no higher than quiet steps (mean rank {rank:.2f})"
        return ""

    def _compare(self, probability: float, label: bool) -> None:
        base, truth = self.base_rate(), float(label)
        excess = (probability - truth) ** 2 - (base - truth) ** 2
        sums = self.sums
        sums.fade()
        sums.labels += 1.0
        sums.positives += truth
        sums.excess += excess
        sums.excess_squared += excess * excess
        sums.spread += base * (1.0 - base)

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
        expected = self.budget * self.sums.labels
        return expected + 3.0 * math.sqrt(expected) + 2.0

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
        }

    def load_state_dict(self, state: object) -> None:
        """Take over a saved record; raise `StateError` where it is damaged."""
        sums = plain.entry(state, "sums")
        self.sums = Sums(**{each.name: plain.number(sums, each.name) for each in fields(Sums)})
        self.episodes = [_episode(each) for each in plain.items(state, "episodes")][-_KEPT_EPISODES:]
        counts = plain.entry(state, "counts")
        self.matured, self.same, self.suspended = (plain.whole(counts, key) for key in _COUNTS)
        self.previous, self.reason = None, plain.text(state, "reason")
        if plain.entry(state, "previous") is not None:
            previous = plain.entry(state, "previous")
            self.previous = plain.number(previous, "probability"), plain.named_numbers(previous, "features")


def _episode(state: object) -> Episode:
    return Episode(plain.whole(state, "event"), plain.number(state, "total"), plain.whole(state, "count"))
