"""Evaluates a policy's expressions tick by tick: readings, statistics, numbers, conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lbw_policy import saved
from lbw_policy.errors import StateError
from lbw_policy.machine.closures import NumberClosure, TruthClosure
from lbw_policy.machine.compiler import Compiler, Phase
from lbw_policy.machine.readings import Readings, RiskValues
from lbw_policy.semantics.expressions import Condition, Number
from lbw_policy.semantics.policy import Signal

__all__ = ["Evaluator", "RiskValues"]

_PARTS = ("signals", "ranked", "summed", "trends")


class Evaluator:
    """The values of all numbers and conditions of a policy, over windows of bounded size.

    One tick is `begin`, `finish` (or `read` for both), any number of looks, `commit`. Numbers are
    floats, which may be NaN or infinite, or None while not ready; conditions are `Truth` values.
    `memory` is the number of floats that all windows together can hold.

    >>> from lbw_policy.semantics.expressions import Comparison, Constant, Reading, Statistic
    >>> loss = Reading("loss")
    >>> high = Comparison(">", loss, Statistic("median", loss, samples=3))
    >>> evaluator = Evaluator((Signal("loss", "loss"),), (loss,), (high,))
    >>> for tick, value in enumerate([4.0, 5.0, 4.0, 9.0]):
    ...     evaluator.read(tick, {"loss": value}, {})
    ...     print(evaluator.number(0), evaluator.truth(0))
    ...     evaluator.commit(quarantined=False)
    4.0 1
    5.0 1
    4.0 1
    9.0 3
    """

    def __init__(
        self, signals: tuple[Signal, ...], numbers: tuple[Number, ...], conditions: tuple[Condition, ...]
    ) -> None:
        self._readings = Readings(signals)
        compiler = Compiler(self._readings)
        self._numbers = [compiler.number(node) for node in numbers]
        self._conditions = [compiler.condition(node) for node in conditions]
        self._early, self._late = compiler.early, compiler.late
        self._results, self._learning = compiler.results, compiler.learning
        self._ranked, self._summed = list(compiler.ranked.values()), list(compiler.summed.values())
        self._trends = list(compiler.trends.values())
        self.compiled = compiler
        self._open = False
        self.memory = len(signals) + sum(part.slots for part in (*self._ranked, *self._summed, *self._trends))

    def thin(self, factors: Mapping[str, int]) -> None:
        """Take signals for sampled so many times more rarely than they say, by name."""
        self._readings.thin(factors)

    def read(self, tick: int, values: Mapping[str, float | None], risks: Mapping[str, RiskValues]) -> None:
        """Take in a whole tick: `begin`, then `finish`."""
        self.begin(tick, values)
        self.finish(risks)

    def begin(self, tick: int, values: Mapping[str, float | None]) -> None:
        """Take in the signals of a tick (absent or None: no value) and compute what needs no risk model.

        Ticks grow from call to call. Until `finish`, every risk reading is not ready.
        """
        self._readings.take(tick, values)
        self._readings.risks = {}
        self._forget(self._late)
        self._open = True
        for step in self._early.steps:
            step()

    def finish(self, risks: Mapping[str, RiskValues]) -> None:
        """Take in what the risk models say and compute the rest; at most once a tick."""
        self._readings.risks = risks
        for step in self._late.steps:
            step()

    def number(self, index: int) -> float | None:
        """Return the value of `numbers[index]` this tick, None while it is not ready."""
        return self._numbers[index]()

    def read_number(self, index: int) -> NumberClosure:
        """Return what gives the value of `numbers[index]` in any tick."""
        return self._numbers[index]

    def truth(self, index: int) -> int:
        """Return the `Truth` of `conditions[index]` this tick."""
        return self._conditions[index]()

    def test(self, index: int) -> TruthClosure:
        """Return what gives the `Truth` of `conditions[index]` in any tick."""
        return self._conditions[index]

    def reading(self, signal: str) -> float | None:
        """Return the signal's reading this tick: fresh, held, NaN or None by its `missing` rule."""
        return self._readings.values[self._readings.place(signal)]

    def commit(self, quarantined: bool) -> None:
        """End the tick: the baselines learn its fresh finite samples, unless it is quarantined."""
        if self._open and not quarantined:
            for argument, push in self._learning:
                if argument.learnable:
                    push(argument.sample)
        self._open = False

    def _forget(self, phase: Phase) -> None:
        for argument in phase.arguments:
            argument.forget()
        for place in phase.places:
            self._results[place] = None

    def state_dict(self) -> dict[str, Any]:
        """Return all memory as plain data; call it between `commit` and the next `begin`."""
        return {
            "signals": self._readings.state_dict(),
            "ranked": [window.state_dict() for window in self._ranked],
            "summed": [window.state_dict() for window in self._summed],
            "trends": [trend.state_dict() for trend in self._trends],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state exactly as its owner would have; raise `StateError` if it does not fit.

        After an error the evaluator is as it was before.
        """
        before = self.state_dict()
        try:
            self._load(state)
        except StateError:
            self._load(before)
            raise

    def _load(self, state: object) -> None:
        parts = saved.record(state, _PARTS)
        self._readings.load_state_dict(parts["signals"])
        for name, owners in (("ranked", self._ranked), ("summed", self._summed), ("trends", self._trends)):
            for owner, part in zip(owners, saved.exactly(parts[name], len(owners)), strict=True):
                owner.load_state_dict(part)
        self._forget(self._early)
        self._forget(self._late)
        self._open = False
