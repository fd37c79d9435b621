"""Signals of plugins: measured by foreign code, carried over with everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value
from lbw_policy.telemetry.told import number

Measure = Callable[[int], object]


class Plugged:
    """What plugins measure, each by a function of the tick; one that raises has no reading, and is told of once."""

    def __init__(self, measures: Mapping[str, Measure]) -> None:
        self._measures = measures
        self._values: dict[str, float | torch.Tensor] = {}
        self._failed: set[str] = set()
        self._failures: list[str] = []

    def measure(self, due: Due, packet: Packet) -> None:
        """Measure what is due; tensors are queued, and nothing is read back here."""
        self._values = {}
        for name, measure in self._measures.items():
            if name in due.now:
                self._take(name, measure, due.tick)
        for name, value in self._values.items():
            if isinstance(value, torch.Tensor):
                packet.add(f"plugin {name}", value)

    def _take(self, name: str, measure: Measure, tick: int) -> None:
        try:
            found = measure(tick)
            if found is not None:
                self._values[name] = number(name, found)
        except Exception as error:
            if name not in self._failed:
                self._failed.add(name)
                self._failures.append(f"the plugin signal `{name}` failed: {type(error).__name__}: {error}")

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return what was measured."""
        return {
            name: numbers[f"plugin {name}"][0] if isinstance(value, torch.Tensor) else value
            for name, value in self._values.items()
        }

    def failures(self) -> tuple[str, ...]:
        """Return and forget what failed for the first time since the last call."""
        found, self._failures = tuple(self._failures), []
        return found
