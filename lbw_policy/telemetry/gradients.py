"""Exact norms of gradients and weights, and how many tensors are not finite."""

from __future__ import annotations

import math
import statistics
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import torch
from attrs import frozen
from torch.optim import Optimizer

from lbw_policy.telemetry.layers import Layers
from lbw_policy.telemetry.readings import Due, Numbers, Packet, Plan, Present, Value, largest, widest
from lbw_policy.telemetry.samples import gradient_scale, plain
from lbw_policy.telemetry.scopes import Scope, Scopes

GRADIENTS = frozenset({"grad_norm", "grad_norm_max", "grad_norm_min", "grad_norm_spread", "nonfinite_grads"})
_PER_LAYER = GRADIENTS - {"grad_norm", "nonfinite_grads"}
_CLIP_EPSILON = 1e-6  # that of torch.nn.utils.clip_grad_norm_


@frozen(eq=False)
class Clipped:
    """The norms of gradients before the loop's clip, and what tells that nothing was done to them after it."""

    norms: torch.Tensor
    limit: float
    factor: torch.Tensor
    left: tuple[tuple[weakref.ref[torch.Tensor], int], ...]

    def stands(self, parameters: Iterable[torch.nn.Parameter]) -> bool:
        """Tell whether every parameter still has the gradient that the clip left it with, unchanged since."""
        found = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return len(found) == len(self.left) and all(
            kept() is gradient and gradient._version == version
            for (kept, version), gradient in zip(self.left, found, strict=True)
        )


class GradientNorms:
    """`grad_norm`, its largest, smallest and spread over layers, `nonfinite_grads`, and the norm of each layer.

    One pass over the gradients with fp32 accumulation, whatever their type (relative error measured
    on a CPU: below 1e-3 for tensors of up to 10 million elements, 3e-3 at 40 million). `grad_norm` is put
    together from them in fp64, on the device. An infinite norm is
    looked at again in fp64, as finite squares may have overflowed; that is a second transfer, in
    such ticks and no others. If the host does not wait for a tick's numbers it cannot: then it counts for infinite.
    Gradients that were clipped through `clip` are not passed over again.
    """

    def __init__(self, optimizer: Optimizer, layers: Layers, scopes: Scopes, plan: Plan) -> None:
        self._optimizer = optimizer
        self._waits = plan.waits
        self._parameters = layers.distinct()
        self._members = scopes.members
        self._scopes = scopes.of(GRADIENTS)
        self._by_layer = "grad_norm" in plan.layer_statistics or bool(scopes.of(_PER_LAYER))
        self._numbers: tuple[int, ...] = ()
        self._tensors: list[torch.Tensor] = []
        self._norms: torch.Tensor | None = None
        self._whole: torch.Tensor | None = None
        self._told: Clipped | None = None
        self._clipped: Clipped | None = None
        self.by_layer: dict[str, float] = {}
        """The latest gradient norm of every layer that has had one; kept only if it is asked for."""
        self.norm: Value = None
        """The L2 norm of the gradients as they are now, if this tick measured it."""
        self.factor: torch.Tensor | None = None
        """What `clip` multiplied this tick's gradients by, on the device."""

    def clip(self, limit: float) -> torch.Tensor:
        """Scale all gradients down to an L2 norm of at most `limit`, and return the norm before, on the device."""
        gradients = [_alone(parameter) for parameter in self._parameters if parameter.grad is not None]
        if not gradients:
            return torch.zeros(())
        norms = norms_of([plain(gradient) for gradient in gradients])
        whole: torch.Tensor = torch.linalg.vector_norm(norms)
        factor = (limit / (whole + _CLIP_EPSILON)).clamp(max=1.0)
        torch._foreach_mul_([plain(gradient) for gradient in gradients], factor)
        dense = all(gradient.layout is torch.strided for gradient in gradients)
        left = tuple((weakref.ref(gradient), gradient._version) for gradient in gradients)
        self._told = Clipped(norms, limit, factor, left) if dense else None
        return whole

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue one norm for each parameter that has a gradient."""
        found = dict(self._found()) if due.now & GRADIENTS else {}
        self._numbers, self.norm, self._norms, self._whole = tuple(found), None, None, None
        self._tensors = list(found.values()) if self._waits else []
        told, self._told = self._told, None
        self._clipped = told if told is not None and told.stands(self._parameters) else None
        self.factor = None if self._clipped is None else self._clipped.factor
        if found:
            self._norms = norms_of(list(found.values())) if self._clipped is None else self._clipped.norms
            scale = gradient_scale(self._optimizer)
            self._queue(packet, self._norms, None if scale is None else 1 / scale)

    def _queue(self, packet: Packet, norms: torch.Tensor, unscale: torch.Tensor | None) -> None:
        packet.add("grad_norms", norms)
        if unscale is not None:
            packet.add("grad_unscale", unscale)
        wide = widest(norms.device)
        if wide is torch.float64:
            whole = torch.linalg.vector_norm(norms, dtype=wide)
            self._whole = whole if unscale is None else whole * unscale.to(whole.device, wide).reshape(())
            packet.add("grad_norm", self._whole)

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the readings, none where no parameter has a gradient."""
        if not self._numbers:
            return {}
        norms, broken = settle(numbers["grad_norms"], self._tensors if self._waits else None)
        if self._clipped is not None:
            norms = numbers["grad_norms"]
        (unscale,) = numbers.get("grad_unscale", [1.0])
        present = {number: norm * unscale for number, norm in zip(self._numbers, norms, strict=True)}
        bad = {number for number, one in zip(self._numbers, broken, strict=True) if one}
        whole = self._together(present, numbers.get("grad_norm"))
        self.norm = whole if self._clipped is None else _after_clip(whole, self._clipped.limit)
        self._tensors = []
        layers = dict(self._of_layers(present)) if self._by_layer else {}
        self.by_layer = self.by_layer | layers
        return {scope.key: _READ[scope.source](_Norms(scope, present, layers, bad, whole)) for scope in self._scopes}

    def present(self, wanted: Collection[str]) -> Mapping[str, Present]:
        """Return `grad_norm` and `nonfinite_grads` before the transfer, the very numbers that will come over."""
        if self._norms is None or self._whole is None:
            return {"grad_norm": None, "nonfinite_grads": None}
        if "nonfinite_grads" not in wanted:
            return {"grad_norm": self._whole}
        return {"grad_norm": self._whole, "nonfinite_grads": (~self._norms.isfinite()).sum().to(self._whole.dtype)}

    def present_norm(self) -> Present:
        """Return the norm of the gradients as they are now before the transfer."""
        if self._whole is None or self._clipped is None:
            return self._whole
        room = torch.full_like(self._whole, self._clipped.limit) / (self._whole + _CLIP_EPSILON)
        shortened = self._whole * torch.where(room < 1.0, room, torch.ones_like(room))
        return torch.where(self._whole.isfinite(), shortened, torch.full_like(room, math.nan))

    def _together(self, present: Mapping[int, float], found: list[float] | None) -> float:
        """Return the norm of all, as the device found it unless a norm among them was looked at again."""
        if found is not None and (math.isfinite(found[0]) or not self._waits):
            return found[0]
        return total(present.values())

    def _found(self) -> Iterator[tuple[int, torch.Tensor]]:
        for number, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                yield number, plain(parameter.grad)

    def _of_layers(self, present: Mapping[int, float]) -> Iterator[tuple[str, float]]:
        for name, numbers in self._members.items():
            held = [present[number] for number in numbers if number in present]
            if held:
                yield name, total(held)


@frozen(eq=False)
class _Norms:
    """What one reading is made from: the norms of a scope's parameters and layers, which are not finite, the whole."""

    scope: Scope
    present: Mapping[int, float]
    layers: Mapping[str, float]
    broken: set[int]
    whole: float

    def of_parameters(self) -> list[float]:
        """Return the norm of each parameter in scope that has a gradient."""
        return [self.present[number] for number in self.scope.parameters if number in self.present]

    def of_layers(self) -> list[float]:
        """Return the norm of each layer in scope that has a gradient."""
        return [self.layers[name] for name in self.scope.layers if name in self.layers]


def _norm(norms: _Norms) -> Value:
    found = norms.of_parameters()
    if len(found) == len(norms.present):
        return norms.whole
    return total(found) if found else None


def _largest(norms: _Norms) -> Value:
    return largest(norms.of_layers())


def _smallest(norms: _Norms) -> Value:
    found = largest(-norm for norm in norms.of_layers())
    return None if found is None else -found


def _spread(norms: _Norms) -> Value:
    found = norms.of_layers()
    if not all(math.isfinite(norm) for norm in found):
        return math.nan
    logs = [math.log2(norm) for norm in found if norm > 0]
    return statistics.pstdev(logs) if len(logs) > 1 else None


def _broken(norms: _Norms) -> Value:
    return float(len(norms.broken.intersection(norms.scope.parameters))) if norms.of_parameters() else None


_READ = {
    "grad_norm": _norm,
    "grad_norm_max": _largest,
    "grad_norm_min": _smallest,
    "grad_norm_spread": _spread,
    "nonfinite_grads": _broken,
}


class WeightCheck:
    """`nonfinite_params`, exact: one pass over all weights in ticks where it is due."""

    def __init__(self, layers: Layers, scopes: Scopes, plan: Plan) -> None:
        self._parameters = layers.distinct()
        self._waits = plan.waits
        self._scopes = scopes.of({"nonfinite_params"})

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue one norm for each parameter."""
        if "nonfinite_params" in due.now:
            packet.add("param_norms", norms_of([plain(parameter) for parameter in self._parameters]))

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the count of tensors with NaN or inf."""
        if "param_norms" not in numbers:
            return {}
        weights = [plain(parameter) for parameter in self._parameters] if self._waits else None
        _, broken = settle(numbers["param_norms"], weights)
        return {scope.key: float(sum(broken[number] for number in scope.parameters)) for scope in self._scopes}


def norms_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the L2 norm of each tensor on the first one's device, accumulated in fp32 (fp64 if any is fp64)."""
    wide = any(tensor.dtype is torch.float64 for tensor in tensors)
    norms = torch._foreach_norm(list(tensors), 2, dtype=torch.float64 if wide else torch.float32)
    home = tensors[0].device
    return torch.stack([norm if norm.device == home else norm.to(home, non_blocking=True) for norm in norms])


def settle(norms: list[float], tensors: Sequence[torch.Tensor] | None) -> tuple[list[float], list[bool]]:
    """Return the norms with fp32 overflows put right, and of each tensor whether it is truly not finite.

    Without the tensors there is nothing to look at again: an overflow counts for infinite.
    """
    if math.isfinite(sum(norms)):
        return norms, [False] * len(norms)
    settled, broken = list(norms), [not math.isfinite(norm) for norm in norms]
    if tensors is None:
        return settled, broken
    doubtful = [number for number, norm in enumerate(norms) if norm == math.inf]
    for number, (norm, finite) in zip(doubtful, _look_closer([tensors[n] for n in doubtful]), strict=True):
        settled[number], broken[number] = norm, not finite
    return settled, broken


def _look_closer(tensors: Sequence[torch.Tensor]) -> list[tuple[float, bool]]:
    """Return the exact norm of each tensor, taken relative to its peak, and whether every element is finite."""
    packet = Packet()
    for tensor in tensors:
        peak = torch.linalg.vector_norm(tensor, math.inf)
        packet.add("peaks", peak)
        packet.add(
            "shapes", torch.linalg.vector_norm(tensor / peak, dtype=torch.promote_types(tensor.dtype, torch.float))
        )
    numbers = packet.unpack()
    pairs = zip(numbers.get("peaks", []), numbers.get("shapes", []), strict=True)
    return [(peak * shape if math.isfinite(peak) else math.inf, math.isfinite(peak)) for peak, shape in pairs]


def total(norms: Iterable[float]) -> float:
    """Return the norm of norms, NaN if any is NaN; it does not overflow before the result does."""
    found = list(norms)
    return math.nan if any(math.isnan(norm) for norm in found) else math.hypot(*found)


def _after_clip(norm: float, limit: float) -> float:
    return norm * min(1.0, limit / (norm + _CLIP_EPSILON)) if math.isfinite(norm) else math.nan


def _alone(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Return the gradient of a parameter; a sparse one is left with no index twice, so that it can be scaled."""
    assert parameter.grad is not None
    if parameter.grad.layout is torch.sparse_coo:
        parameter.grad = parameter.grad.coalesce()
    return parameter.grad
