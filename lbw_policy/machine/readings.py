"""What a tick brings: the present value of each signal, which of them are fresh, and what the risk models say."""

from __future__ import annotations

import math
from collections.abc import Mapping

from attrs import Factory, define, field, frozen

from lbw_policy import saved
from lbw_policy.semantics.policy import Signal


@frozen
class RiskValues:
    """What one risk model says this tick; None is not ready."""

    probability: float | None = None
    alarm: bool | None = None
    trusted: bool = False


@define(eq=False)
class Readings:
    """The present reading of every signal: fresh, held, or missing by the signal's own rule.

    A value stands silently for the `every` ticks that begin with its own; then it is missing.
    `fresh` has bit i set if signal i has a value of this very tick.
    """

    signals: tuple[Signal, ...]
    tick: int = field(init=False, default=0)
    fresh: int = field(init=False, default=0)
    values: list[float | None] = field(init=False)
    risks: Mapping[str, RiskValues] = field(init=False, factory=dict)
    _names: tuple[str, ...] = field(
        init=False, default=Factory(lambda self: tuple(signal.name for signal in self.signals), takes_self=True)
    )
    _reach: tuple[int, ...] = field(
        init=False, default=Factory(lambda self: tuple(_reach(signal) for signal in self.signals), takes_self=True)
    )
    _last: list[float] = field(init=False)
    _since: list[int | None] = field(init=False)

    @values.default
    def _no_values(self) -> list[float | None]:
        return [None] * len(self.signals)

    @_last.default
    def _no_last(self) -> list[float]:
        return [math.nan] * len(self.signals)

    @_since.default
    def _never(self) -> list[int | None]:
        return [None] * len(self.signals)

    def place(self, signal: str) -> int:
        """Return the index of the signal's reading in `values`."""
        return self._names.index(signal)

    def thin(self, factors: Mapping[str, int]) -> None:
        """Let the values of signals stand for so many times their `every`, as they are sampled that more rarely."""
        self._reach = tuple(_reach(signal, factors.get(signal.name, 1)) for signal in self.signals)

    def take(self, tick: int, given: Mapping[str, float | None]) -> None:
        """Begin a tick with the values at hand; a signal that is absent or None has none."""
        self.tick, self.fresh, bit = tick, 0, 1
        for index, name in enumerate(self._names):
            value = given.get(name)
            if value is None:
                self.values[index] = self.standing(index, tick)
            else:
                self.values[index] = self._last[index] = value
                self._since[index] = tick
                self.fresh |= bit
            bit <<= 1

    def standing(self, index: int, tick: int) -> float | None:
        """Return what a signal without a fresh value reads at a tick: its last one, NaN or None."""
        since, kind = self._since[index], self.signals[index].missing.kind
        if since is None:
            return math.nan if kind == "unsafe" else None
        if tick - since < self._reach[index]:
            return self._last[index]
        return None if kind == "skip" else math.nan

    def state_dict(self) -> dict[str, list[float] | None]:
        """Return the tick and the value of each signal's last fresh sample, None where there was none."""
        since = zip(self._names, self._since, self._last, strict=True)
        return {name: None if tick is None else [tick, value] for name, tick, value in since}

    def load_state_dict(self, state: object) -> None:
        """Take the samples of `state_dict()`; raise `StateError` if they do not fit."""
        given = saved.record(state, self._names)
        for index, name in enumerate(self._names):
            sample = given[name]
            tick, value = (None, math.nan) if sample is None else saved.exactly(sample, 2)
            self._since[index] = None if tick is None else saved.whole(tick)
            self._last[index] = saved.number(value)
        self.values[:] = self._no_values()  # INVARIANT: one list for ever, the closures hold it
        self.fresh, self.risks = 0, {}


def _reach(signal: Signal, factor: int = 1) -> int:
    return signal.every * factor + (signal.missing.steps if signal.missing.kind == "hold" else 0)
