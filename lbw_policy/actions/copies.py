"""The way of saved copies back into live storage, and where that is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lbw_policy.actions.shelves import Shelf, Stored

Table = dict[str, Any]


def kept_tables(tables: Mapping[int, Mapping[str, Any]], shelf: Shelf) -> dict[int, Table]:
    """Return a copy of every entry on the shelf."""
    return {number: {key: shelf.keep(value) for key, value in table.items()} for number, table in tables.items()}


def fresh(saved: Any) -> Any:  # noqa: ANN401 - optimizer state holds anything
    """Return a copy of something kept that shares nothing with it, as it was when it was kept."""
    return saved.fresh() if isinstance(saved, Stored) else copy.deepcopy(saved)


def fresh_tables(tables: Mapping[int, Table]) -> dict[int, Table]:
    """Return a copy of every entry that shares nothing with the shelf."""
    return {number: {key: fresh(value) for key, value in table.items()} for number, table in tables.items()}


def put(box: Any, key: Any, saved: Any) -> None:  # noqa: ANN401 - optimizer state holds anything
    """Set an entry to a saved value, in the live tensor's own storage where there is one that fits."""
    live = box[key] if isinstance(box, list) else box.get(key)
    if isinstance(saved, Stored) and (isinstance(live, nn.Parameter) or _fits(live, saved)):
        live.copy_(saved.copy)
    else:
        box[key] = fresh(saved)


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


def _fits(live: object, saved: Stored) -> bool:
    if not isinstance(live, torch.Tensor):
        return False
    return (live.shape, live.dtype, live.device) == (saved.copy.shape, saved.copy.dtype, saved.home)
