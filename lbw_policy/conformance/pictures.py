"""Everything of a run that a plugin could change, copied, and what differs between two such pictures."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from attrs import fields, frozen
from torch import Tensor, nn
from torch.optim import Optimizer

from lbw_policy.conformance.worlds import World

_OPTIMIZER_HOOKS = tuple(
    f"_optimizer_{name}_hooks"
    for name in ("step_pre", "step_post", "state_dict_pre", "state_dict_post", "load_state_dict_pre",
                 "load_state_dict_post")
)  # fmt: skip
_MODULE_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")

Table = Mapping[str, object]


@frozen
class Picture:
    """Copies of what a plugin could change; each table maps a place, in words, to what is there."""

    weights: Table
    gradients: Table
    state: Table
    lr: Table
    options: Table
    structure: Table
    storages: Table
    hooks: Table
    modes: Table
    random: Table

    @classmethod
    def of(cls, world: World) -> Picture:
        """Return a picture of the world, and of the process's settings and random numbers."""
        named = _named(world.model)
        options = dict(_options(world.optimizer))
        return cls(
            weights={name: _copy(tensor) for name, tensor in named.items()},
            gradients={f"the gradient of {name}": _copy(tensor.grad) for name, tensor in _parameters(world.model)},
            state=dict(_state(world)),
            lr={name: value for name, value in options.items() if name.startswith("`lr`")},
            options={name: value for name, value in options.items() if not name.startswith("`lr`")},
            structure=dict(_structure(world)),
            storages={name: (tensor.data_ptr(), tuple(tensor.shape), tensor.dtype) for name, tensor in named.items()},
            hooks=dict(_hooks(world)),
            modes=dict(_modes(world.model)),
            random=_random(),
        )


PARTS = tuple(part.name for part in fields(Picture))


def changes(before: Picture, after: Picture, parts: Iterable[str] = PARTS) -> Iterator[tuple[str, str]]:
    """Yield each part that differs, with the first place where it does."""
    for part in parts:
        place = _first(getattr(before, part), getattr(after, part))
        if place is not None:
            yield part, place


def _first(one: Table, other: Table) -> str | None:
    return next((key for key in (*one, *other) if key not in one or key not in other or not same(one[key], other[key])),
                None)  # fmt: skip


def same(one: object, other: object) -> bool:
    """Tell whether two values are the same to the bit; NaN is itself."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(_bits(one), _bits(other))
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))  # noqa: PLR0124 - NaN


def went_bad(before: Table, after: Table) -> str | None:
    """Return a place with a number that is not finite where there was none before; None if there is no such place."""
    return next((place for place, found in after.items() if _worse(before.get(place), found)), None)


def _worse(before: object, after: object) -> bool:
    if isinstance(after, float):
        after = torch.tensor(after)
    if isinstance(before, int | float):
        before = torch.tensor(float(before))
    if not isinstance(after, Tensor) or not after.is_floating_point():
        return False
    bad = ~torch.isfinite(after)
    if isinstance(before, Tensor) and before.shape == after.shape:
        bad &= torch.isfinite(before)
    return bool(bad.any())


# What is where


def _copy(tensor: Tensor | None) -> Tensor | None:
    if tensor is None:
        return None
    with torch.no_grad():
        return tensor.detach().to_dense().clone() if tensor.is_sparse else tensor.detach().clone()


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(f"`{name}`", parameter) for name, parameter in model.named_parameters()]


def _named(model: nn.Module) -> dict[str, Tensor]:
    return dict(_parameters(model)) | {f"`{name}`": buffer for name, buffer in model.named_buffers()}


def _state(world: World) -> Iterator[tuple[str, object]]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in _parameters(world.model)}
    for owner, entries in world.optimizer.state.items():
        name = names[owner] if owner in names else f"a `{type(owner).__name__}`"
        for key, value in entries.items() if isinstance(entries, Mapping) else [("its entry", entries)]:
            yield f"`{key}` of {name}", _copy(value) if isinstance(value, Tensor) else value


def _options(optimizer: Optimizer) -> Iterator[tuple[str, object]]:
    for place, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params":
                yield f"`{key}` of group {place}", _copy(value) if isinstance(value, Tensor) else value


def _structure(world: World) -> Iterator[tuple[str, object]]:
    """Yield which groups, options and parameters there are; a learning rate that is a tensor stays that tensor."""
    yield "the list of groups", (id(world.optimizer.param_groups), len(world.optimizer.param_groups))
    for place, group in enumerate(world.optimizer.param_groups):
        yield f"group {place}", id(group)
        yield f"the parameters of group {place}", tuple(id(parameter) for parameter in group["params"])
        for key, value in group.items():
            yield f"`{key}` of group {place}", _kind(value)
    for name, module in world.model.named_modules():
        yield f"the module `{name}`", (id(module), type(module).__name__)
    for name, parameter in world.model.named_parameters(remove_duplicate=False):
        yield f"the parameter `{name}`", id(parameter)


def _kind(value: object) -> object:
    if isinstance(value, Tensor):
        return id(value)
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def _hooks(world: World) -> Iterator[tuple[str, object]]:
    owners: list[tuple[str, Any, tuple[str, ...]]] = [("the optimizer", world.optimizer, _OPTIMIZER_HOOKS)]
    owners += [(f"the module `{name}`", module, _MODULE_HOOKS) for name, module in world.model.named_modules()]
    owners += [(name, parameter, _TENSOR_HOOKS) for name, parameter in _parameters(world.model)]
    for name, owner, attributes in owners:
        for attribute in attributes:
            hooks = getattr(owner, attribute, None) or {}
            yield f"{attribute.strip('_').replace('_', ' ')} of {name}", tuple(id(hook) for hook in hooks.values())


def _modes(model: nn.Module) -> Iterator[tuple[str, object]]:
    for name, module in model.named_modules():
        yield f"the training mode of `{name}`", module.training
    for name, parameter in _parameters(model):
        yield f"`requires_grad` of {name}", parameter.requires_grad
    yield "the default dtype", str(torch.get_default_dtype())
    yield "the gradient mode", torch.is_grad_enabled()


def _random() -> dict[str, object]:
    state = np.random.get_state(legacy=True)
    return {
        "torch's generator": torch.get_rng_state(),
        "`random`": hash(random.getstate()),
        "numpy's generator": tuple(part.tobytes() if isinstance(part, np.ndarray) else part for part in state),
    }
