"""How much a guard's sampling is thinned at present, and when each source changes over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import define, field

from lbw_policy import saved
from lbw_policy.errors import StateError
from lbw_policy.runtime.cadence import FACTORS, Want, together


@define(eq=False)
class Pace:
    """The factors of all wants.

    A longer distance holds at once, for the samples of the longer are among those of the shorter. A
    shorter one holds for each want from its next sample on: so a value stands until its next one comes.
    """

    wants: tuple[Want, ...]
    ranks: bool = False
    """Whether layers are ranked by what no want reads."""
    factor: int = field(init=False, default=1)
    ranking: int = field(init=False, default=1)
    """The factor of what only ranks layers."""
    _now: list[int] = field(init=False)
    _told: set[str] = field(init=False, factory=set)
    _settled: tuple[int, int] = field(init=False, default=(1, 0))
    """The factor that all wants have, and how many sources were told then; only another one is anything to do."""

    @_now.default
    def _whole(self) -> list[int]:
        return [1] * len(self.wants)

    def told(self, keys: Iterable[str]) -> None:
        """Thin these sources no more: the loop tells them, so they cost nothing."""
        self._told.update(want.key for want in self.wants if want.most > 1 and want.key in keys)

    def turn(self, tick: int) -> bool:
        """Go over to the factor where this tick allows it, before anything is read; tell whether anything changed."""
        asked = (self.factor, len(self._told))
        if self._settled == asked:
            return False
        changed, self.ranking = self.ranks and self.ranking != self.factor, self.factor
        for place, (want, now) in enumerate(zip(self.wants, self._now, strict=True)):
            goal = self._goal(want, self.factor)
            if goal > now or (goal < now and tick % (want.every * now) == 0):
                self._now[place], changed = goal, True
        if self._now == [self._goal(want, self.factor) for want in self.wants]:
            self._settled = asked
        return changed

    def _goal(self, want: Want, factor: int) -> int:
        return 1 if want.key in self._told else min(factor, want.most)

    @property
    def can_thin(self) -> bool:
        """Whether some greater factor would thin anything."""
        at_most, present = (
            together(self.wants, [self._goal(want, factor) for want in self.wants])
            for factor in (FACTORS[-1], self.factor)
        )
        return self.factor < FACTORS[-1] and (self.ranks or at_most != present)

    @property
    def every(self) -> dict[str, int]:
        """The ticks between two readings of each source."""
        return together(self.wants, self._now)

    @property
    def signals(self) -> dict[str, int]:
        """The factor of each signal."""
        return {want.signal: now for want, now in zip(self.wants, self._now, strict=True) if want.signal}

    def state_dict(self) -> dict[str, Any]:
        """Return the factors as plain data."""
        return {"factor": self.factor, "now": list(self._now), "told": sorted(self._told)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved factors; raises StateError, changing nothing, where they are damaged."""
        parts = saved.record(state, ("factor", "now", "told"))
        now = saved.exactly(parts["now"], len(self.wants))
        told = {str(key) for key in saved.items(parts["told"])}
        sound = all(_is_factor(one, want.most) for one, want in zip(now, self.wants, strict=True))
        if not sound or not _is_factor(parts["factor"], FACTORS[-1]) or not told <= {w.key for w in self.wants}:
            raise StateError("expected factors that this policy allows in the saved pace")
        self.factor = self.ranking = saved.whole(parts["factor"])
        self._told = told
        self._now, self._settled = [saved.whole(one) for one in now], (0, 0)


def _is_factor(value: object, most: int) -> bool:
    return value in FACTORS and saved.whole(value) <= most
