"""How far the weights moved, and how the gradient changed on the way, from a fixed sample."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.optim import Optimizer

from lbw_policy.errors import StateError
from lbw_policy.telemetry.layers import Layers
from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value
from lbw_policy.telemetry.samples import Sampler, gradient_scale

MOTION = frozenset({"update_norm", "update_ratio", "curvature"})


class Motion:
    """`param_norm`, `update_norm`, `update_ratio` and `curvature`.

    All are sums over a fixed strided sample, each element counted as often as it stands for others.
    The curvature is the secant estimate `(g - g_prev).dw / dw.dw` (the reciprocal of the step
    length of Barzilai and Borwein, 1988). Ratios with a zero denominator are not available.
    """

    def __init__(self, optimizer: Optimizer, layers: Layers) -> None:
        self._optimizer = optimizer
        self._sampler = Sampler(layers.distinct())
        self._next: frozenset[str] = frozenset()
        self._weights: torch.Tensor | None = None
        self._before: torch.Tensor | None = None
        self._change: torch.Tensor | None = None
        self._squares: torch.Tensor | None = None
        self._gradient: tuple[torch.Tensor, frozenset[int]] | None = None

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue the last update's sums, and sample what the coming update will be compared with."""
        if due.now & MOTION and self._squares is not None:
            packet.add("moved", self._squares)
        self._measure_curvature(due, packet)
        self._measure_weights(due, packet)
        self._next, self._before, self._change, self._squares = due.next & MOTION, None, None, None

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the readings whose two ticks are known."""
        found: dict[str, Value] = {}
        if "param_norm" in numbers:
            found["param_norm"] = math.sqrt(numbers["param_norm"][0])
        if "moved" in numbers:
            moved, weight = numbers["moved"]
            found["update_norm"] = math.sqrt(moved)
            found["update_ratio"] = _quotient(math.sqrt(moved), math.sqrt(weight))
            if "turned" in numbers:
                found["curvature"] = _quotient(numbers["turned"][0], moved)
        return found

    def before_update(self) -> None:
        """Remember the sampled weights if the next tick will report on this update."""
        if self._next:
            self._before = self._sampler.weights() if self._weights is None else self._weights

    def after_update(self) -> None:
        """Sum up the update, on the device."""
        if self._before is None:
            return
        self._change = self._sampler.weights() - self._before
        pair = torch.stack((self._change, self._before))
        self._squares = (pair.square() * self._sampler.multiplicity).sum(1)
        self._before = self._weights = None

    def forget(self) -> None:
        """Drop the motion memory: the next tick reports no motion."""
        self._next = frozenset()
        self._weights = self._before = self._change = self._squares = self._gradient = None

    def state_dict(self) -> dict[str, object]:
        """Return the last update's sums; the sampled vectors are not kept, so curvature pauses for one tick."""
        return {"moved": None if self._squares is None else self._squares.tolist()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the last update's sums; `StateError` if they are damaged."""
        moved = state.get("moved")
        self.forget()
        if moved is None:
            return
        if not isinstance(moved, list) or len(moved) != 2 or not all(isinstance(x, float) for x in moved):
            raise StateError("expected `moved` to be two numbers in the saved telemetry")
        self._squares = torch.tensor(moved, dtype=torch.float64)

    def _measure_curvature(self, due: Due, packet: Packet) -> None:
        previous, self._gradient = self._gradient, None
        if "curvature" not in due.now | due.next:
            return
        sample, absent = self._sampler.gradients()
        scale = gradient_scale(self._optimizer)
        current = sample if scale is None else sample / scale
        if previous is not None and self._change is not None:
            turned = current - previous[0]
            for number in absent | previous[1]:
                turned[self._sampler.places(number)] = 0
            packet.add("turned", (turned * self._change * self._sampler.multiplicity).sum())
        if "curvature" in due.next:
            self._gradient = (current, absent)

    def _measure_weights(self, due: Due, packet: Packet) -> None:
        wanted = "param_norm" in due.now
        self._weights = self._sampler.weights() if wanted or due.next & MOTION else None
        if wanted and self._weights is not None:
            packet.add("param_norm", (self._weights.square() * self._sampler.multiplicity).sum())


def _quotient(above: float, below: float) -> Value:
    return None if below == 0 else above / below
