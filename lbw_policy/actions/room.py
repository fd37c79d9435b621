"""How much memory snapshots will take, and how much there is."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import optim
from torch.optim import Optimizer

from lbw_policy.actions.shelves import Where, padded, shelved
from lbw_policy.errors import AttachError

Group = Mapping[str, Any]

_COPIES: dict[type[Optimizer], Callable[[Group, torch.Tensor], float]] = {
    optim.SGD: lambda group, _: group["momentum"] != 0,
    optim.Adam: lambda group, _: 3 if group["amsgrad"] else 2,
    optim.RMSprop: lambda group, _: 1 + (group["momentum"] > 0) + group["centered"],
    optim.Adagrad: lambda *_: 1,
    optim.ASGD: lambda *_: 1,
    optim.Adafactor: lambda _, held: 1 if held.dim() < 2 else 1 / held.shape[-1] + 1 / held.shape[-2],
    **({optim.Muon: lambda *_: 1} if hasattr(optim, "Muon") else {}),  # since torch 2.9
}
"""How much these optimizers hold for a parameter, in its own size; the others hold two such tensors at most."""
_OTHERS = 2
_SMALL = 4
"""Numbers besides (step counts), each padded."""
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def needed(optimizer: Optimizer, tensors: Iterable[torch.Tensor]) -> dict[torch.device, int]:
    """Return the bytes of one copy of the tensors and of the optimizer's state, by the device they live on.

    State that does not exist yet is reckoned from the parameters. What no shelf keeps (sparse, sharded) is left out.
    """
    found: Counter[torch.device] = Counter()
    for tensor in filter(shelved, tensors):
        found[tensor.device] += padded(tensor.nbytes)
    for group in optimizer.param_groups:
        for parameter in filter(shelved, group["params"]):
            found.update(_state(optimizer, group, parameter))
    return dict(found)


def check_room(sizes: Mapping[torch.device, int], where: Where) -> None:
    """Raise AttachError if so many bytes are more than is free; what cannot be known is not refused."""
    for place, size in by_place(sizes, where).items():
        free = available(place)
        if free is not None and size > free:
            other = "choose another" if isinstance(place, Path) else 'keep them elsewhere with `snapshots="host"` or'
            raise AttachError(
                f"snapshots for `rollback` need {told(size)} on {place}, and {told(free)} are free; {other} a directory"
            )


def by_place(sizes: Mapping[torch.device, int], where: Where) -> dict[torch.device | Path, int]:
    """Return the bytes by where they will lie."""
    if where == "device":
        return {device: size for device, size in sizes.items() if size}
    return {where if isinstance(where, Path) else torch.device("cpu"): sum(sizes.values())}


def available(place: torch.device | Path) -> int | None:
    """Return the bytes that can be taken on a device or in a directory, None where that cannot be told."""
    if isinstance(place, Path):
        return shutil.disk_usage(place).free
    if place.type == "cuda":
        cached = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
        return int(torch.cuda.mem_get_info(place)[0]) + cached
    if place.type == "cpu":
        return min((free for free in (_free_memory(), _free_in_container()) if free is not None), default=None)
    return None


def told(size: int) -> str:
    """Return a number of bytes for people."""
    unit, name = next(((unit, name) for unit, name in _UNITS if size >= unit), (1, "bytes"))
    return f"{size / unit:.3g} {name}"


def _state(optimizer: Optimizer, group: Group, parameter: torch.Tensor) -> Counter[torch.device]:
    held = [value for value in optimizer.state.get(parameter, {}).values() if isinstance(value, torch.Tensor)]
    found: Counter[torch.device] = Counter()
    for value in held:
        found[value.device] += padded(value.nbytes)
    if not held and parameter.requires_grad:
        small = padded(1) * _SMALL  # some lie with the parameter, some on the host
        found[parameter.device] += padded(int(parameter.nbytes * _copies(optimizer, group, parameter))) + small
        found[torch.device("cpu")] += small
    return found


def _copies(optimizer: Optimizer, group: Group, parameter: torch.Tensor) -> float:
    known = (copies for kind, copies in _COPIES.items() if isinstance(optimizer, kind))
    return next((copies(group, parameter) for copies in known), _OTHERS)


def _free_memory() -> int | None:
    lines = _lines("/proc/meminfo")
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _free_in_container(folder: str = "/sys/fs/cgroup") -> int | None:
    """Return what the limit of a control group (version 2) leaves; pages of files can be given up."""
    most, now = _lines(f"{folder}/memory.max"), _lines(f"{folder}/memory.current")
    if not most or not now or not most[0].isdecimal():
        return None
    files = (line.split()[1] for line in _lines(f"{folder}/memory.stat") if line.startswith("inactive_file "))
    return int(most[0]) - int(now[0]) + int(next(files, "0"))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
