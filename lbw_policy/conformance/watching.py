"""Watches a plugin's code at work: read-backs from the device, and calls that belong to the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lbw_policy.conformance.worlds import World

_READS = {
    "aten::_local_scalar_dense": "a tensor's value became a number (`.item()`, `float()`, `bool()`, `if`)",
    "aten::equal": "`torch.equal`",
    "aten::nonzero": "`nonzero`, whose size depends on values",
    "aten::masked_select": "`masked_select`, whose size depends on values",
    "aten::_unique2": "`unique`, whose size depends on values",
}
"""Operations after which the host waits for the device."""
_METHODS = {"tolist", "numpy", "cpu", "__array__", "__format__", "__repr__"}
_NUMBERS = {"item", "__bool__", "__float__", "__int__", "__index__", "is_nonzero"}


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its making of subclasses untyped
    def __init__(self, seen: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self._seen = seen

    def __torch_dispatch__(
        self,
        func: OpOverload[..., Any],
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        name = func._schema.name
        if name in _READS:
            self._seen.append(_READS[name])
        elif name == "aten::index" and _masked(args[1]):
            self._seen.append("an index of truth values, whose size depends on values")
        return func(*args, **(kwargs or {}))


def _masked(indices: Sequence[Tensor | None]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


class _Methods(TorchFunctionMode):
    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        name = getattr(func, "__name__", "")
        if name in _METHODS | _NUMBERS or (name == "to" and (*args[1:2], *(kwargs or {}).values()).count("cpu")):
            self._seen.append(f"`.{name}(...)`")
        return func(*args, **(kwargs or {}))


@contextmanager
def read_backs() -> Iterator[list[str]]:
    """Give the list to which each read-back inside of the block is added; on the CPU too, where none waits."""
    seen: list[str] = []
    with _Methods(seen), _Operations(seen):
        yield seen


@contextmanager
def loop_calls(world: World) -> Iterator[list[str]]:
    """Give the list to which each `step` of any optimizer and each `backward` into the world is added."""
    seen: list[str] = []
    registers: list[Callable[..., Any]] = [one.register_post_accumulate_grad_hook for one in world.model.parameters()]
    handles = [register(lambda _: seen.append("backward")) for register in registers]
    handles.append(register_optimizer_step_pre_hook(lambda *_: seen.append("step")))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
