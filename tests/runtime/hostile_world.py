"""A small real training seen from outside the guard: what an optimizer was given, what it used, what it left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from attrs import define, field
from torch import nn, optim
from torch.optim import Optimizer

from tests.runtime.loops import Small

State = list[dict[str, Any]]


class ExplosionError(RuntimeError):
    """The optimizer's own step failed half way."""


@define
class Used:
    """What one parameter group of a step really worked with."""

    rate: Any
    gradients: list[torch.Tensor | None]


def spied(kind: type[Optimizer]) -> type[Optimizer]:
    """Return a subclass that notes what each step uses, and can fail before its second group."""

    class Spied(kind):  # type: ignore[misc, valid-type]
        plain = kind

        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - torch's own
            super().__init__(*args, **options)
            self.used: list[Used] = []
            self.explodes = False

        def _init_group(self, group: dict[str, Any], *args: Any) -> Any:  # noqa: ANN401 - torch's own
            if self.explodes and self.used:
                raise ExplosionError("cable")
            self.used.append(Used(copied(group["lr"]), [copied(p.grad) for p in group["params"]]))
            return super()._init_group(group, *args)

    return Spied


def copied(value: Any) -> Any:  # noqa: ANN401 - optimizer state holds anything
    """Return a tensor's copy, anything else as it is."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def alike(one: Any, other: Any) -> bool:  # noqa: ANN401 - optimizer state holds anything
    """Tell whether two values are the same to the bit, where NaN equals itself."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same_kind = one.dtype == other.dtype and one.shape == other.shape
        return same_kind and torch.equal(_bits(one), _bits(other))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return repr(one) == repr(other)
    return type(one) is type(other) and bool(one == other)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


@define
class Picture:
    """Copies of everything an update may change."""

    weights: list[torch.Tensor]
    state: State
    rates: list[Any]
    buffers: list[torch.Tensor] = field(factory=list)

    @classmethod
    def of(cls, optimizer: Optimizer, model: nn.Module | None = None) -> Picture:
        """Take a picture."""
        held = parameters(optimizer)
        state = [{k: copied(v) for k, v in optimizer.state.get(p, {}).items()} for p in held]
        rates = [copied(group["lr"]) for group in optimizer.param_groups]
        buffers = [copied(buffer) for buffer in model.buffers()] if model else []
        return cls([copied(p) for p in held], state, rates, buffers)


def parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return an optimizer's parameters, group by group."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def unguarded_step(optimizer: Optimizer, start: Picture, used: list[Used]) -> Picture:
    """Return where an optimizer of the same kind and state gets from `start` with what was used, without a guard."""
    groups, weights = [], iter(start.weights)
    for group in optimizer.param_groups:
        options = {key: copied(value) for key, value in group.items()}
        groups.append(options | {"params": [nn.Parameter(next(weights).clone()) for _ in group["params"]]})
    twin = optimizer.plain([dict(group) for group in groups], lr=start.rates[0])  # type: ignore[attr-defined]
    for parameter, state in zip(parameters(twin), start.state, strict=True):
        if state:
            twin.state[parameter] = {key: copied(value) for key, value in state.items()}
    for group, work in zip(twin.param_groups, used, strict=False):
        group["lr"] = copied(work.rate)
        for parameter, gradient in zip(group["params"], work.gradients, strict=True):
            parameter.grad = copied(gradient)
    twin.step()
    return Picture.of(twin)


_KINDS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "sgd": (optim.SGD, {"lr": 0.05}),
    "sgd momentum": (optim.SGD, {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    "sgd tensor lr": (optim.SGD, {"lr": 0.05, "foreach": False}),
    "adam": (optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
    "adamw": (optim.AdamW, {"lr": 0.01}),
    "adamw amsgrad tensor lr": (optim.AdamW, {"lr": 0.01, "amsgrad": True, "foreach": False}),
}
KINDS = tuple(_KINDS)
SPIED = {kind: spied(kind) for kind, _ in _KINDS.values()}


def optimizer_of(name: str, model: nn.Module) -> Optimizer:
    """Return an optimizer with two parameter groups of different learning rates."""
    kind, options = _KINDS[name]
    first, second = list(model.parameters())[:4], list(model.parameters())[4:]
    rates = [options["lr"], options["lr"] / 2]
    if "tensor lr" in name:
        rates = [torch.tensor(rate) for rate in rates]
    groups = [{"params": first, "lr": rates[0]}, {"params": second, "lr": rates[1]}]
    return SPIED[kind](groups, **(options | {"lr": copied(rates[0])}))


class World:
    """A model, its optimizer and a schedule, with every way to spoil a step."""

    def __init__(self, kind: str, *, scheduled: bool) -> None:
        self.kind = kind
        self.model = Small()
        self.optimizer: Any = optimizer_of(kind, self.model)
        self.scheduler = optim.lr_scheduler.ExponentialLR(self.optimizer, 0.95) if scheduled else None
        self.batch = 0

    def copy(self) -> World:
        """Return a world that goes on from this one's checkpoint, as a new process would."""
        other = World(self.kind, scheduled=self.scheduler is not None)
        other.model.load_state_dict(self.model.state_dict())
        other.optimizer.load_state_dict(self.optimizer.state_dict())
        if self.scheduler and other.scheduler:
            other.scheduler.load_state_dict(self.scheduler.state_dict())
        other.batch = self.batch
        return other

    def backward(self, poison: str = "none") -> torch.Tensor:
        """Fill the gradients for the next batch, spoil them, and return the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        random = torch.Generator().manual_seed(self.batch)
        self.batch += 1
        inputs = torch.randn(8, 6, generator=random)
        loss = nn.functional.mse_loss(self.model(inputs), inputs[:, :3])
        loss.backward()
        POISON[poison](parameters(self.optimizer))
        return loss.detach()

    def gradients(self) -> list[torch.Tensor | None]:
        """Return the gradients themselves."""
        return [parameter.grad for parameter in parameters(self.optimizer)]

    def set_rate(self, rate: float) -> None:
        """Set every group's learning rate as a user's loop would."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def corrupt(self, number: int, how: str) -> None:
        """Spoil one weight: a NaN, or a flipped exponent bit."""
        weight = parameters(self.optimizer)[number].detach().reshape(-1)[:1]
        if how == "nan":
            weight.fill_(math.nan)
        else:
            bits = weight.view(torch.int32)
            bits.bitwise_xor_(1 << 30)

    def heal(self) -> None:
        """Start again from sound weights and moments if some are not, as a user would after a corruption."""
        tensors = [*parameters(self.optimizer), *(t for s in Picture.of(self.optimizer).state for t in s.values())]
        if not all(bool(tensor.isfinite().all()) for tensor in tensors if isinstance(tensor, torch.Tensor)):
            self.model.load_state_dict(Small().state_dict())
            self.optimizer.state.clear()


def _fill(value: float) -> Callable[[list[nn.Parameter]], None]:
    def spoil(held: list[nn.Parameter]) -> None:
        for parameter in held[::3]:
            if parameter.grad is not None:
                parameter.grad.fill_(value)

    return spoil


def _drop(held: list[nn.Parameter]) -> None:
    for parameter in held:
        parameter.grad = None


def _drop_some(held: list[nn.Parameter]) -> None:
    _drop(held[::2])


POISON: dict[str, Callable[[list[nn.Parameter]], None]] = {
    "none": lambda _: None,
    "nan": _fill(math.nan),
    "inf": _fill(math.inf),
    "huge": _fill(1e30),
    "zero": _fill(0.0),
    "absent": _drop,
    "partly absent": _drop_some,
}


def layer_numbers(model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, list[int]]]:
    """Yield each layer's name and the places of its parameters in the optimizer."""
    place = {id(parameter): number for number, parameter in enumerate(parameters(optimizer))}
    for name, module in model.named_modules():
        held = [place[id(parameter)] for parameter in module.parameters(recurse=False)]
        if held:
            yield name, held
