"""Delayed labels: whether the run diverged within the horizon, and whether the tick may teach it.

A tick's label is 1 if the run diverges within the next `horizon` ticks, and known exactly `horizon` ticks
later. Some ticks get none: see `Labels`. An alarm is not among the inputs, so it can never become a label.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from attrs import Factory, define, field

from lbw_policy.errors import StateError
from lbw_policy.risk import plain
from lbw_policy.risk.divergence import Divergence, sustain


@define
class Sample:
    """One tick waiting for its label.

    `event` is the tick of the divergence that settled the label, if one did.
    """

    tick: int
    features: dict[str, float]
    probability: float | None
    score: float | None
    label: bool | None = None
    censored: bool = False
    event: int | None = None

    @property
    def open(self) -> bool:
        """True until something settles the label or takes it away."""
        return self.label is None and not self.censored

    def state_dict(self) -> dict[str, Any]:
        """Return the sample as plain data."""
        return {
            "tick": self.tick,
            "features": dict(self.features),
            "probability": self.probability,
            "score": self.score,
            "positive": self.label is True,
            "censored": self.censored,
            "event": self.event,
        }

    @classmethod
    def restored(cls, state: object) -> Sample:
        """Return a saved sample; raise `StateError` where it is damaged."""
        return cls(
            tick=plain.whole(state, "tick"),
            features=plain.named_numbers(state, "features"),
            probability=plain.optional_number(state, "probability"),
            score=plain.optional_number(state, "score"),
            label=True if plain.truth(state, "positive") else None,
            censored=plain.truth(state, "censored"),
            event=plain.optional_whole(state, "event"),
        )


@define
class Labels:
    """The ticks of the last `horizon` ticks, and what became of the run after them.

    - A divergence settles every open tick of the horizon before it as positive.
    - An intervention at t censors the open ticks of `[t - horizon, t + horizon]`, even if the run diverges at t:
      what would have happened without it is unknown. Ticks already settled by an earlier divergence stay.
    - A tick in trouble itself (loss above the bar) predicts nothing and gets no label.
    - At the horizon an open tick is negative, unless a crossing is still undecided or no loss was seen since.
    - A gap in the ticks censors: what happened meanwhile is unknown.
    """

    horizon: int
    divergence: Divergence = field(default=Factory(lambda self: Divergence(sustain(self.horizon)), takes_self=True))
    waiting: deque[Sample] = Factory(deque)
    censored_until: int | None = None
    last: int | None = None
    seen: int | None = None

    def observe(self, tick: int, loss: float | None, finite: bool, intervened: bool) -> list[Sample]:
        """Take one tick's outcome and return the ticks whose wait is over, oldest first."""
        self._bridge(tick)
        struck = self.divergence.observe(loss, finite)
        self.seen = tick if loss is not None or not finite else self.seen
        if intervened:
            self._censor(tick)
        if struck:
            self._settle(tick)
        return self._ripe(tick)

    def admit(self, sample: Sample) -> None:
        """Let a tick wait for its label, after its own outcome was observed; a tick in trouble is left out."""
        if self.divergence.troubled:
            return
        sample.censored = self.censors(sample.tick)
        self.waiting.append(sample)

    def censors(self, tick: int) -> bool:
        """Tell whether an intervention hides what would have become of a tick."""
        return self.censored_until is not None and tick <= self.censored_until

    def _bridge(self, tick: int) -> None:
        if self.last is not None and tick <= self.last:
            self.waiting.clear()
            self.censored_until = None
        elif self.last is not None and tick != self.last + 1:
            self._close()
        self.last = tick

    def _censor(self, tick: int) -> None:
        self._close()
        self.censored_until = tick + self.horizon

    def _close(self) -> None:
        for sample in self.waiting:
            sample.censored = sample.censored or sample.open

    def _settle(self, tick: int) -> None:
        for sample in self.waiting:
            if sample.open:
                sample.label, sample.event = True, tick

    def _ripe(self, tick: int) -> list[Sample]:
        ripe = []
        while self.waiting and self.waiting[0].tick <= tick - self.horizon:
            sample = self.waiting.popleft()
            if sample.open and not self.divergence.pending and self.seen is not None and self.seen > sample.tick:
                sample.label = False
            ripe.append(sample)
        return ripe

    def state_dict(self) -> dict[str, Any]:
        """Return the waiting ticks and the outcome stream as plain data."""
        return {
            "divergence": self.divergence.state_dict(),
            "waiting": [sample.state_dict() for sample in self.waiting],
            "censored_until": self.censored_until,
            "last": self.last,
            "seen": self.seen,
        }

    def load_state_dict(self, state: object) -> None:
        """Take over saved ticks; raise `StateError` where they are damaged."""
        waiting = [Sample.restored(each) for each in plain.items(state, "waiting")]
        ticks = [sample.tick for sample in waiting]
        if ticks != sorted(set(ticks)):
            message = "risk state: expected waiting ticks in order, found others"
            raise StateError(message)
        self.divergence.load_state_dict(plain.entry(state, "divergence"))
        self.waiting = deque(waiting)
        self.censored_until = plain.optional_whole(state, "censored_until")
        self.last, self.seen = plain.optional_whole(state, "last"), plain.optional_whole(state, "seen")
