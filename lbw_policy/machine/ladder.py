"""The levels as a state machine: holds, transitions, timers and the lr factor of each level. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from attrs import asdict, evolve, field, frozen

from lbw_policy import saved
from lbw_policy.errors import StateError
from lbw_policy.limits.budget import clamp
from lbw_policy.semantics.ceilings import SCALE_FLOOR
from lbw_policy.semantics.expressions import Truth
from lbw_policy.semantics.policy import Action, Clip, Freeze, Level, ScaleLr, Trigger
from lbw_policy.semantics.walk import chain, first_actions


@frozen
class Configuration:
    """Where the ladder stands. Tuples have one entry a level, in the order of escalation.

    `armed` tells that the level was entered from below, or again, so that its actions run.
    `since` counts ticks in the level. `entering` and `leaving` are bit masks of the last ticks in
    which a trigger held. `cooling` counts the ticks a level stays shut. `factors` are the levels'
    lr factors and `restoring` what each regains a tick (0 while it is held). `started` has a bit for
    each lasting action of a level that it has done since it was entered (see `Ladder.lasting`).
    """

    level: int
    armed: bool
    since: int
    leaving: int
    entering: tuple[int, ...]
    cooling: tuple[int, ...]
    holding: tuple[bool, ...]
    factors: tuple[float, ...]
    restoring: tuple[float, ...]
    started: tuple[int, ...]


@frozen
class Truths:
    """What one tick says as `Truth` values: each level's `enter`, the present level's `leave`.

    None where there is no trigger.
    """

    enter: tuple[int | None, ...]
    leave: int | None


@frozen
class Ladder:
    """The transition rules of a policy's levels; the first level is the calm one."""

    levels: tuple[Level, ...]
    restore: tuple[int, ...] = field(init=False)
    """Ticks over which each level's lr factor comes back to 1."""
    lasting: tuple[tuple[Action, ...], ...] = field(init=False)
    """The actions each level goes on with once it has done them; what is declared as a fallback is among them."""

    _whole: tuple[float, ...] = field(init=False)

    @_whole.default
    def _ones(self) -> tuple[float, ...]:
        return (1.0,) * len(self.levels)

    @restore.default
    def _restore(self) -> tuple[int, ...]:
        return tuple(_restore_ticks(level) for level in self.levels)

    @lasting.default
    def _lasting(self) -> tuple[tuple[Action, ...], ...]:
        return tuple(tuple(dict.fromkeys(a for a in _actions(level) if lasts(a))) for level in self.levels)

    def start(self) -> Configuration:
        """Return the configuration of a fresh run."""
        zeros = (0,) * len(self.levels)
        ones = (1.0,) * len(self.levels)
        still = (0.0,) * len(self.levels)
        held = (False,) * len(self.levels)
        return Configuration(0, False, 0, 0, zeros, zeros, held, ones, still, zeros)

    def advance(self, now: Configuration, truths: Truths) -> tuple[Configuration, bool]:
        """Return the configuration after one tick, and whether a level was entered with its actions.

        At most one transition a tick, in this order: up to the highest level whose trigger fires,
        down because `stay` is over, down because `leave` fires.
        """
        if _idle(now, truths):
            return now, False
        ticked = self._tick(now, truths)
        target = self._escalation(ticked)
        if target is not None:
            return self._move(ticked, target, armed=True), True
        if ticked.level and (self._overstayed(ticked) or self._released(ticked)):
            return self._move(ticked, ticked.level - 1, armed=False), False
        return ticked, False

    def _tick(self, now: Configuration, truths: Truths) -> Configuration:
        enter = zip(now.entering, self.levels, truths.enter, strict=True)
        level = self.levels[now.level]
        factors = [min(1.0, f + r) for f, r in zip(now.factors, now.restoring, strict=True)]
        return Configuration(
            level=now.level,
            armed=now.armed,
            since=now.since + 1 if now.level else 0,
            # Unknown lets a level be entered and never lets one be left.
            leaving=_shift(now.leaving, level.leave, truths.leave == Truth.TRUE),
            entering=tuple(
                _shift(mask, lv.enter, truth is not None and truth >= _UNKNOWN) for mask, lv, truth in enter
            ),
            cooling=tuple(max(0, left - 1) for left in now.cooling),
            holding=now.holding,
            factors=tuple(factors),
            restoring=tuple(r if f < 1.0 else 0.0 for f, r in zip(factors, now.restoring, strict=True)),
            started=now.started,
        )

    def _escalation(self, now: Configuration) -> int | None:
        lowest = now.level + (now.armed or now.level == 0)
        for index in range(len(self.levels) - 1, lowest - 1, -1):
            trigger = self.levels[index].enter
            shut = now.cooling[index] and index != now.level
            if trigger and not shut and now.entering[index].bit_count() >= trigger.count:
                return index
        return None

    def _overstayed(self, now: Configuration) -> bool:
        stay = self.levels[now.level].stay
        return stay is not None and now.since >= stay

    def _released(self, now: Configuration) -> bool:
        leave = self.levels[now.level].leave
        return leave is not None and now.leaving.bit_count() >= leave.count

    def _move(self, now: Configuration, target: int, *, armed: bool) -> Configuration:
        above = range(target + 1, len(self.levels))
        left = {index for index in above if now.holding[index]}
        cooling = list(now.cooling)
        if target < now.level:
            cooling[now.level] = self.levels[now.level].cooldown
        holding = [held and index not in left for index, held in enumerate(now.holding)]
        holding[target] = holding[target] or armed
        restoring = [
            _regain(now.factors[index], self.restore[index]) if index in left else speed
            for index, speed in enumerate(now.restoring)
        ]
        entering = [0 if index == target else mask for index, mask in enumerate(now.entering)]
        return evolve(
            now,
            level=target,
            armed=armed,
            since=0,
            leaving=0,
            entering=tuple(entering),
            cooling=tuple(cooling),
            holding=tuple(holding),
            restoring=tuple(restoring),
            started=tuple(0 if index in left else mask for index, mask in enumerate(now.started)),
        )

    def hold(self, now: Configuration, level: int, action: Action) -> Configuration:
        """Return the configuration in which a level goes on with one of its lasting actions."""
        bit = 1 << self.lasting[level].index(action)
        return evolve(now, started=_with(now.started, level, now.started[level] | bit))

    def held(self, now: Configuration, level: int) -> list[Action]:
        """Return the lasting actions that a level goes on with."""
        mask = now.started[level]
        return [action for place, action in enumerate(self.lasting[level]) if mask >> place & 1]

    def scale(self, now: Configuration, level: int, factor: float) -> Configuration:
        """Return the configuration with a level's lr factor multiplied by `factor`, and held."""
        # INVARIANT: every factor lies in [SCALE_FLOOR, 1], whatever a policy's expression gives.
        held = clamp(now.factors[level] * clamp(factor, SCALE_FLOOR, 1.0), SCALE_FLOOR, 1.0)
        return evolve(
            now,
            factors=_with(now.factors, level, held),
            restoring=_with(now.restoring, level, 0.0),
        )

    def fresh(self, now: Configuration) -> Configuration:
        """Return the configuration with the present level as it begins, before its actions run: it holds nothing."""
        return evolve(
            now,
            factors=_with(now.factors, now.level, 1.0),
            restoring=_with(now.restoring, now.level, 0.0),
            started=_with(now.started, now.level, 0),
        )

    def settled(self, now: Configuration, more: int = 0) -> bool:
        """Tell whether the level is the calm one, or in `more` ticks has lasted for those after which it settles."""
        if not now.level:
            return True
        settles = self.levels[now.level].settles
        return settles is not None and now.since + more >= settles

    def at_rest(self, now: Configuration) -> bool:
        """Tell whether no level asks for anything: none is held or armed, and every lr factor is 1."""
        return not now.armed and not any(now.holding) and now.factors == self._whole

    # State

    def save(self, now: Configuration) -> dict[str, Any]:
        """Return a configuration as plain data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(now, recurse=False).items()}

    def load(self, state: Mapping[str, Any]) -> Configuration:
        """Return a saved configuration; raises StateError unless it fits this ladder."""
        parts = saved.record(state, tuple(asdict(self.start())))
        count = len(self.levels)
        if not isinstance(parts["armed"], bool):
            raise StateError("expected `armed` to be true or false in the saved state")
        factors = [saved.finite(value) for value in saved.exactly(parts["factors"], count)]
        if not all(SCALE_FLOOR <= factor <= 1.0 for factor in factors):
            raise StateError(f"expected lr factors in [{SCALE_FLOOR}, 1] in the saved state")
        return Configuration(
            level=saved.within(parts["level"], count - 1),
            armed=parts["armed"],
            since=saved.natural(parts["since"]),
            leaving=saved.natural(parts["leaving"]),
            entering=tuple(saved.natural(mask) for mask in saved.exactly(parts["entering"], count)),
            cooling=tuple(saved.natural(left) for left in saved.exactly(parts["cooling"], count)),
            holding=tuple(value is True for value in saved.exactly(parts["holding"], count)),
            factors=tuple(factors),
            restoring=tuple(saved.finite(value) for value in saved.exactly(parts["restoring"], count)),
            started=tuple(
                saved.within(mask, (1 << len(actions)) - 1)
                for mask, actions in zip(saved.exactly(parts["started"], count), self.lasting, strict=True)
            ),
        )


_UNKNOWN = int(Truth.UNKNOWN)


def _idle(now: Configuration, truths: Truths) -> bool:
    """Tell whether a tick changes nothing: calm, nothing pending, no trigger holds."""
    if now.level or any(now.entering) or any(now.cooling) or any(now.restoring):
        return False
    for truth in truths.enter:  # noqa: SIM110 - a generator costs more than the whole look, on every tick
        if truth is not None and truth >= _UNKNOWN:
            return False
    return True


def lasts(action: Action) -> bool:
    """Tell whether a level that does an action goes on with it, in every update until it is left."""
    return isinstance(action, ScaleLr | Clip | Freeze)


_T = TypeVar("_T")


def _with(values: Sequence[_T], index: int, value: _T) -> tuple[_T, ...]:
    return (*values[:index], value, *values[index + 1 :])


def _regain(factor: float, ticks: int) -> float:
    """Return what a factor regains a tick, so that it is whole after `ticks`, or one more for rounding's sake."""
    # INVARIANT: never so little that adding it to a factor just below 1 is rounded away, for ever.
    return max((1.0 - factor) / ticks, 2 * ticks * sys.float_info.epsilon) if factor < 1.0 else 0.0


def _shift(mask: int, trigger: Trigger | None, holds: bool) -> int:
    return ((mask << 1) | holds) & ((1 << trigger.window) - 1) if trigger else 0


def _actions(level: Level) -> Iterator[Action]:
    return (one for action in first_actions(level) for one in chain(action))


def _restore_ticks(level: Level) -> int:
    return max((action.restore for action in _actions(level) if isinstance(action, ScaleLr)), default=1)
