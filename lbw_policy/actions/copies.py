"""Copies that share nothing with what they were made from, and their way back into live storage."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

Table = dict[str, Any]


def _alike(one: object, other: object) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    return (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)


def kept(value: Any, old: Any) -> Any:  # noqa: ANN401 - optimizer state holds anything
    """Return a copy that shares nothing with the value, in the memory of the old copy where it fits."""
    if not isinstance(value, torch.Tensor):
        return copy.deepcopy(value)
    return old.copy_(value.detach()) if _alike(value, old) else value.detach().clone()


def kept_tables(tables: Mapping[int, Mapping[str, Any]], old: Mapping[int, Table]) -> dict[int, Table]:
    """Return a copy of every entry, in the memory of the old copies where they fit."""
    return {
        number: {key: kept(value, old.get(number, {}).get(key)) for key, value in table.items()}
        for number, table in tables.items()
    }


def put(box: Any, key: Any, saved: Any) -> None:  # noqa: ANN401 - optimizer state holds anything
    """Set an entry to a saved value, in the live tensor's own storage where there is one that fits."""
    live = box[key] if isinstance(box, list) else box.get(key)
    if isinstance(live, nn.Parameter) or _alike(live, saved):
        live.copy_(saved)
    else:
        box[key] = kept(saved, None)


def put_table(live: MutableMapping[str, Any], saved: Table) -> None:
    """Make the live table hold exactly the saved entries, in place where they fit."""
    for key in [key for key in live if key not in saved]:
        del live[key]
    for key, value in saved.items():
        put(live, key, value)


def module_places(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, container and key of every parameter and buffer, persistent or not."""
    for root, module in modules.items():
        for path, part in module.named_modules():
            for box in (part._parameters, part._buffers):
                yield from ((f"{root}/{path}/{key}", box, key) for key in box)


def group_places(optimizer: Optimizer) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, container and key of every parameter an optimizer holds."""
    for number, group in enumerate(optimizer.param_groups):
        yield from ((f"group{number}/{place}", group["params"], place) for place in range(len(group["params"])))


def shape(value: object) -> tuple[int, ...] | None:
    """Return a tensor's shape, None for anything else."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None
