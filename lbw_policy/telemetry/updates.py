"""How far the weights moved, and how the gradient changed on the way, from a fixed sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from lbw_policy.errors import StateError
from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value, added, cosine, largest, quotient, root
from lbw_policy.telemetry.samples import Sample, Sampler
from lbw_policy.telemetry.scopes import Scope, Scopes

_SIZES = frozenset({"update_norm", "update_ratio", "update_ratio_max"})
_TURNS = frozenset({"curvature", "overshoot"})
_MOVES = _SIZES | _TURNS
_TWO_GRADIENTS = _TURNS | {"grad_agreement"}
UPDATES = _MOVES | {"grad_agreement", "param_norm"}


class Motion:
    """Weights and gradients of this tick beside those of the last one.

    All are sums over a fixed sample, each element counted as often as it stands for others. Weights
    are compared between the two decisions, so the update is all that happened to them in between.
    The curvature is the secant estimate `(g - g_prev).dw / dw.dw` (the reciprocal of the step
    length of Barzilai and Borwein, 1988). The overshoot puts the slope in the denominator: for
    gradient descent, preconditioned or not, on a quadratic it is the learning rate times the
    curvature along the step, which must stay below 2 (Cohen et al., 2021; for Adam, arXiv
    2506.04805). Both gradients come from different batches: see `docs/signals.md` for what that adds.
    Ratios with a zero denominator are not available. `scales` gives what this tick's gradients were
    multiplied by.
    """

    def __init__(
        self, scales: Callable[[], Iterable[torch.Tensor]], sampler: Sampler, scopes: Scopes, *, ranked: bool = False
    ) -> None:
        self._scales = scales
        self._sampler = sampler
        self._scopes = scopes.of(UPDATES)
        self._members = scopes.members
        self._ranked = ranked
        self._weights: torch.Tensor | None = None
        self._gradient: Sample | None = None
        self._saved: dict[str, list[float]] = {}
        self.by_layer: dict[str, float] = {}
        """The latest update ratio of every layer; kept only if it is asked for."""

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue the sums of what happened since the last tick, and keep what the next tick compares with."""
        if due.again:
            return
        before = self._weights if due.now & _MOVES else None
        wanted = before is not None or "param_norm" in due.now or due.next & _MOVES
        weights, change = self._sampler.weights().values if wanted else None, None
        if weights is not None and before is not None:
            change = weights - before
            self._measure_update(before, change, packet)
        if weights is not None and "param_norm" in due.now:
            self._add("squares", self._sampler.weighted(weights), weights, packet)
        self._measure_turn(due, change, packet)
        self._weights = weights if due.next & _MOVES else None

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the readings whose two ticks are known."""
        numbers, self._saved = self._saved | dict(numbers), {}
        if self._ranked and "moved" in numbers:
            ratios = {name: _ratio(numbers, held) for name, held in self._members.items()}
            self.by_layer = self.by_layer | {name: ratio for name, ratio in ratios.items() if ratio is not None}
        found = {scope.key: self._read(scope, numbers) for scope in self._scopes}
        return {key: value for key, value in found.items() if value is not None}

    def forget(self) -> None:
        """Drop the memory of the last tick: the next one reports no motion."""
        self._weights, self._gradient, self._saved = None, None, {}

    def state_dict(self) -> dict[str, object]:
        """Return the last update's sums; sampled vectors are not kept: what needs two gradients pauses for a tick."""
        if self._weights is None:
            return {"moved": self._saved.get("moved"), "stood": self._saved.get("stood")}
        packet = Packet()
        change = self._sampler.weights("saved").values - self._weights
        self._measure_update(self._weights, change, packet)
        return dict(packet.unpack())

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the last update's sums; `StateError` if they are damaged."""
        self.forget()
        found = {name: state.get(name) for name in ("moved", "stood")}
        if all(sums is None for sums in found.values()):
            return
        for name, sums in found.items():
            if not isinstance(sums, list) or len(sums) != self._sampler.sums or not _are_numbers(sums):
                raise StateError(f"expected `{name}` to be {self._sampler.sums} numbers in the saved telemetry")
            self._saved[name] = list(sums)

    def _measure_update(self, before: torch.Tensor, change: torch.Tensor, packet: Packet) -> None:
        self._add("moved", self._sampler.weighted(change), change, packet)
        self._add("stood", self._sampler.weighted(before), before, packet)

    def _measure_turn(self, due: Due, change: torch.Tensor | None, packet: Packet) -> None:
        previous, self._gradient = self._gradient, None
        if not (due.now | due.next) & _TWO_GRADIENTS:
            return
        current = self._sampler.gradients()
        for scale in self._scales():
            current = Sample(current.values / scale, current.absent)
        if previous is not None and due.now & _TWO_GRADIENTS:
            absent = current.absent | previous.absent
            now, last = (self._sampler.without(one, absent) for one in (current, previous))
            if change is not None and due.now & _TURNS:
                self._add("turned", self._sampler.weighted(now - last), change, packet)
                if "overshoot" in due.now:
                    self._add("slope", self._sampler.weighted(last), change, packet)
            if "grad_agreement" in due.now:
                self._compare(now, last, packet)
        self._gradient = current if due.next & _TWO_GRADIENTS else None

    def _compare(self, now: torch.Tensor, last: torch.Tensor, packet: Packet) -> None:
        weighted = self._sampler.weighted(now)
        self._add("agreed", weighted, last, packet)
        self._add("length", weighted, now, packet)
        self._add("last length", self._sampler.weighted(last), last, packet)

    def _add(self, name: str, weighted: torch.Tensor, other: torch.Tensor, packet: Packet) -> None:
        packet.add(name, self._sampler.dot(weighted, other))

    def _read(self, scope: Scope, numbers: Numbers) -> Value:
        part = scope.parameters if self._sampler.divided else (0,)
        match scope.source:
            case "param_norm" if "squares" in numbers:
                return root(added(numbers["squares"], part))
            case "update_norm" if "moved" in numbers:
                return root(added(numbers["moved"], part))
            case "update_ratio" if "moved" in numbers:
                return _ratio(numbers, part)
            case "update_ratio_max" if "moved" in numbers:
                found = (_ratio(numbers, self._members[name]) for name in scope.layers)
                return largest(ratio for ratio in found if ratio is not None)
            case "curvature" if "turned" in numbers:
                return quotient(added(numbers["turned"], part), added(numbers["moved"], part))
            case "overshoot" if "slope" in numbers:
                slope = added(numbers["slope"], part)
                return None if slope > 0 else quotient(added(numbers["turned"], part), -slope)
            case "grad_agreement" if "agreed" in numbers:
                return cosine(numbers, ("agreed", "length", "last length"), part)
        return None


def _ratio(numbers: Numbers, part: Sequence[int]) -> Value:
    return quotient(root(added(numbers["moved"], part)), root(added(numbers["stood"], part)))


def _are_numbers(values: list[object]) -> bool:
    return all(isinstance(value, float) for value in values)
