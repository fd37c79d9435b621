"""Where snapshots lie: on their own device, in the host's memory, or in files."""

from __future__ import annotations

import copy
import mmap
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import define, field, frozen

_ALIGNED = 64
_PIECE = 1 << 24
_PLAIN = (torch.Tensor, torch.nn.Parameter)

Where = str | Path
"""`device`, `host`, or a directory."""


def padded(size: int) -> int:
    """Return the room that so many bytes take on a shelf."""
    return -(-size // _ALIGNED) * _ALIGNED


def shelved(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is kept in the shelf's own memory; sparse and sharded ones are cloned instead."""
    return type(tensor) in _PLAIN and tensor.layout is torch.strided


@frozen(eq=False)
class Stored:
    """A copy of a tensor, and the device that the tensor itself lives on."""

    copy: torch.Tensor
    home: torch.device

    def fresh(self) -> torch.Tensor:
        """Return one more copy, at home, that shares nothing with this one."""
        return self.copy.to(self.home, copy=True)


@define(eq=False)
class _Block:
    room: torch.Tensor
    used: int = 0

    def take(self, like: torch.Tensor) -> torch.Tensor | None:
        """Return a tensor like the given one in the next free piece, None where it does not fit."""
        end = self.used + like.nbytes
        if end > self.room.numel():
            return None
        piece = self.room[self.used : end]
        self.used = padded(end)
        return piece.view(like.dtype).view(like.shape)


@define(eq=False)
class Shelf:
    """The memory of one snapshot, taken in one piece for each device and used again by every capture.

    `where` is `device` (beside the tensors), `host` (page-locked for tensors of a GPU, so that the host need
    not wait for the copy) or a directory: then in files without a name, which vanish with the shelf.
    What lies there is raw numbers; reading it runs no code.
    """

    where: Where = "device"
    _blocks: dict[torch.device, list[_Block]] = field(factory=dict)
    _copied: list[tuple[torch.device, Any]] = field(factory=list)

    def reserve(self, sizes: Mapping[torch.device, int]) -> None:
        """Take so many bytes for the tensors of each device, and touch them all."""
        for device, size in sizes.items():
            missing = size - sum(block.room.numel() for block in self._blocks.get(device, []))
            if missing > 0:
                self._blocks.setdefault(device, []).append(_Block(_room(self.where, device, missing)))

    def clear(self) -> None:
        """Begin anew: what was kept may be overwritten."""
        for blocks in self._blocks.values():
            for block in blocks:
                block.used = 0

    def release(self) -> None:
        """Give all memory back once nothing kept is in use any more."""
        self._blocks.clear()

    def keep(self, value: Any) -> Any:  # noqa: ANN401 - optimizer state holds anything
        """Return a copy that shares nothing with the value: `Stored` for a tensor."""
        if not isinstance(value, torch.Tensor):
            return copy.deepcopy(value)
        if not shelved(value):
            return Stored(value.detach().clone(), value.device)
        held = self._take(value)
        # On the present stream, so in order with the run's own work: nothing can write to the tensor meanwhile.
        held.copy_(value.detach(), non_blocking=self.where == "host")
        return Stored(held, value.device)

    def copied(self) -> None:
        """Note that everything is under way, for `wait` and `settle`."""
        event: Callable[[], Any] = torch.cuda.Event
        self._copied = [(device, event()) for device in self._blocks if device.type == "cuda"]
        for device, one in self._copied:
            one.record(torch.cuda.current_stream(device))

    def wait(self) -> None:
        """Let the present streams wait until all copies are there; the host goes on."""
        for device, one in self._copied:
            one.wait(torch.cuda.current_stream(device))

    def settle(self) -> None:
        """Let the host wait until all copies are there."""
        for _, one in self._copied:
            one.synchronize()

    def _take(self, value: torch.Tensor) -> torch.Tensor:
        blocks = self._blocks.setdefault(value.device, [])
        for block in blocks:
            found = block.take(value)
            if found is not None:
                return found
        more = max(value.nbytes, sum(block.room.numel() for block in blocks) // 4)
        blocks.append(_Block(_room(self.where, value.device, more)))
        return self._take(value)


def _room(where: Where, device: torch.device, size: int) -> torch.Tensor:
    if isinstance(where, Path):
        return _mapped(where, size)
    locked = where == "host" and device.type == "cuda"
    place = torch.device("cpu") if where == "host" else device
    # `zeros` would leave the page faults to the first capture.
    return torch.empty(size, dtype=torch.uint8, device=place, pin_memory=locked).fill_(0)


def _mapped(directory: Path, size: int) -> torch.Tensor:
    """Return the memory of a file without a name; it is written through, so that a full disk is an error here."""
    if size == 0:
        return torch.empty(0, dtype=torch.uint8)
    with tempfile.TemporaryFile(dir=directory) as file:
        for start in range(0, size, _PIECE):
            file.write(bytes(min(_PIECE, size - start)))
        file.flush()
        return torch.frombuffer(mmap.mmap(file.fileno(), size), dtype=torch.uint8)
