"""Where the readings of a policy stand in a run that it would call healthy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import define, evolve, field

from lbw_policy.machine.program import tests_in
from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.expressions import Truth
from lbw_policy.semantics.walk import conditions_of
from lbw_policy.witness.aims import Solver, palette
from lbw_policy.witness.nearness import Look, Wish
from lbw_policy.witness.scripts import VALUE, Channel, channels, titles_in, value

_ROUNDS = 3
_PLAUSIBLE = 30.0
"""A built-in signal's healthy level stays within this factor of the ordinary one."""
_CALM = 3.0
"""How much more it matters that nothing alarms than that every level would be left."""


def healthy(policy: p.Policy) -> tuple[Channel, ...]:
    """Return a policy's channels at levels at which no rule of it fires and each level is left, as far as there are.

    They are looked for around the ordinary levels and around what each is compared with; a run that stands still is
    imagined, not run: statistics of level equal it, deviations and slopes are 0.
    """
    return _Settling(policy, channels(policy)).settled()


@define
class _Settling:
    policy: p.Policy
    found: tuple[Channel, ...]
    _wishes: list[tuple[Wish, float]] = field(init=False)

    @_wishes.default
    def _all_wishes(self) -> list[tuple[Wish, float]]:
        leaves = [level.leave.condition for level in self.policy.levels if level.leave]
        alarming = [one for one in conditions_of(self.policy) if one not in leaves]
        calm = [(Wish.of(e.Not(one), Truth.TRUE), _CALM) for one in alarming]
        return calm + [(Wish.of(one, Truth.TRUE), 1.0) for one in leaves]

    def settled(self) -> tuple[Channel, ...]:
        best, most, before = self._score(self.found), sum(weight for _, weight in self._wishes), -1.0
        for _ in range(_ROUNDS):
            if best in (before, most):
                break
            before = best
            for place in range(len(self.found)):
                best = self._improve(place, best)
        return self.found

    def _improve(self, place: int, best: float) -> float:
        for level in self._levels(self.found[place]):
            changed = evolve(self.found[place], base=value(level))
            found = (*self.found[:place], changed, *self.found[place + 1 :])
            score = self._score(found)
            if score > best + 1e-9:
                best, self.found = score, found
        return best

    def _levels(self, channel: Channel) -> Iterator[float]:
        """Yield levels that a healthy run may have in place of the present one."""
        wishes = [wish.condition for wish, _ in self._wishes if channel.title in titles_in(wish.condition)]
        if channel.part in (t.ALARM, t.TRUSTED) or not wishes:
            return
        tests = [test for condition in wishes for test in tests_in(condition)]
        ordinary = next(one.level for one in channels(self.policy) if one.title == channel.title)
        for shape in palette(channel, tests, _by_title(self.found)):
            if shape.kind == VALUE and self._is_plausible(channel, shape.values[0], ordinary):
                yield shape.values[0]

    def _is_plausible(self, channel: Channel, level: float, ordinary: float) -> bool:
        if level - level:  # not finite
            return False
        signal = next((one for one in self.policy.signals if one.name == channel.name and not channel.part), None)
        if signal is None or signal.observed:
            return True
        return ordinary / _PLAUSIBLE <= level <= ordinary * _PLAUSIBLE

    def _score(self, found: Sequence[Channel]) -> float:
        seen = _still(found)
        return sum(weight * (seen.near(wish) >= 1.0) for wish, weight in self._wishes)


def _by_title(found: Sequence[Channel]) -> Mapping[str, float]:
    return {one.title: one.level for one in found}


def _still(found: Sequence[Channel]) -> Look:
    """Return what a run shows in which every channel stands at its level."""
    levels = _by_title(found)
    solver = Solver(levels)

    def says(node: e.RiskReading) -> bool | None:
        return levels.get(titles_in(node)[0], float(node.field == t.TRUSTED)) == 1.0

    return Look(solver.still, says)
