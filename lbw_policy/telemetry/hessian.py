"""Curvature from second derivatives, in ticks that ask for it, where the loop hands over its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lbw_policy.telemetry.readings import Due, Numbers, Packet, Value

HESSIAN = frozenset({"gradient_curvature", "hessian_trace"})


class Hessian:
    """`gradient_curvature` and `hessian_trace`, from `guard.curvature(loss)` before `loss.backward()`.

    With g the gradient and H the Hessian of this batch's loss: `gradient_curvature` is g.Hg / g.g, exact;
    `hessian_trace` is z.Hz with z of random signs, unbiased with variance 2 * sum of the squared
    off-diagonal entries (Hutchinson, 1989). Each costs two more backward passes and keeps the graph of
    the first. The signs depend on the tick only.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._due: frozenset[str] = HESSIAN
        self._tick = 0
        self._found: dict[str, torch.Tensor] = {}
        self._failures: list[str] = []
        self._failed = False

    def expect(self, due: frozenset[str], tick: int) -> None:
        """Say what the coming tick asks for."""
        self._due, self._tick = due & HESSIAN, tick

    def take(self, loss: torch.Tensor) -> None:
        """Differentiate twice if the coming tick asks for it; where the model cannot, say so once and try no more."""
        if not self._due or self._failed:
            return
        try:
            with torch.enable_grad():
                self._found = self._differentiated(loss)
        except Exception as error:
            self._failed = True
            first = str(error).partition("\n")[0]
            self._failures.append(f"`guard.curvature` could not differentiate twice: {type(error).__name__}: {first}")

    def measure(self, due: Due, packet: Packet) -> None:
        """Queue what was found for this tick."""
        for name, value in self._found.items():
            packet.add(f"hessian {name}", value)
        self._found = {}
        self.expect(due.next, due.tick + 1)

    def values(self, numbers: Numbers) -> Mapping[str, Value]:
        """Return the readings."""
        return {name: numbers[f"hessian {name}"][0] for name in HESSIAN if f"hessian {name}" in numbers}

    def failures(self) -> tuple[str, ...]:
        """Return and forget what failed since the last call."""
        found, self._failures = tuple(self._failures), []
        return found

    def _differentiated(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        slopes = torch.autograd.grad(loss, self._parameters, create_graph=True, allow_unused=True)
        pairs = [(p, g) for p, g in zip(self._parameters, slopes, strict=True) if g is not None]
        found = {}
        if "gradient_curvature" in self._due:
            along = [g.detach() for _, g in pairs]
            found["gradient_curvature"] = _curved(pairs, along) / _dot(along, along)
        if "hessian_trace" in self._due:
            found["hessian_trace"] = _curved(pairs, [self._signs(number, p) for number, (p, _) in enumerate(pairs)])
        return found

    def _signs(self, number: int, parameter: torch.Tensor) -> torch.Tensor:
        source = torch.Generator(parameter.device).manual_seed(self._tick * 1_000_003 + number)
        bits = torch.randint(2, parameter.shape, generator=source, device=parameter.device, dtype=torch.int8)
        return bits.to(parameter.dtype) * 2 - 1


def _curved(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], way: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return v.Hv for the gradients of some parameters; what a gradient does not depend on has no curvature."""
    bent = [number for number, (_, gradient) in enumerate(pairs) if gradient.requires_grad]
    if not bent:
        return torch.zeros((), device=pairs[0][0].device)
    slope = _dot([pairs[number][1] for number in bent], [way[number] for number in bent])
    turned = torch.autograd.grad(slope, [p for p, _ in pairs], retain_graph=True, allow_unused=True)
    kept = [(h.detach(), v) for h, v in zip(turned, way, strict=True) if h is not None]
    return _dot([h for h, _ in kept], [v for _, v in kept])


def _dot(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> torch.Tensor:
    parts = [(one * other).float().sum() for one, other in zip(left, right, strict=True)]
    return torch.stack([part.to(parts[0].device) for part in parts]).sum()
