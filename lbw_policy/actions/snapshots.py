"""Two rotating copies of everything a rollback must put back."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from attrs import define, field, frozen
from torch import nn
from torch.optim import Optimizer

from lbw_policy.actions.copies import (
    Table,
    fresh,
    fresh_tables,
    group_places,
    kept_tables,
    module_places,
    put,
    put_table,
    shape,
)
from lbw_policy.actions.room import by_place, check_room, needed, told
from lbw_policy.actions.shelves import Shelf, Where
from lbw_policy.errors import AttachError, StateError

_SLOTS = 2


@runtime_checkable
class Stateful(Protocol):
    """Anything that can say and take back its state: a scheduler, a gradient scaler."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state."""

    def load_state_dict(self, state_dict: Any, /) -> object:  # noqa: ANN401 - torch's own signature
        """Take the state back."""


@frozen
class SnapshotInfo:
    """When a snapshot was taken: the tick, and the progress of the weights then."""

    tick: int
    progress: int


@define(eq=False)
class _Slot:
    shelf: Shelf
    info: SnapshotInfo | None = None
    weights: Table = field(factory=dict)
    state: dict[int, Table] = field(factory=dict)
    groups: dict[int, Table] = field(factory=dict)
    extras: Table = field(factory=dict)

    def empty(self) -> None:
        """Forget everything; the memory is used again."""
        # INVARIANT: a slot that is being written is not offered for a rollback.
        self.info = None
        for table in (self.weights, self.state, self.groups, self.extras):
            table.clear()
        self.shelf.clear()


@frozen
class _Loaded:
    """A saved snapshot that was read and fits."""

    info: SnapshotInfo
    weights: Table
    state: dict[int, Table]
    groups: dict[int, Table]
    extras: Table


class Snapshots:
    """Copies weights, buffers, optimizer state and extras, and puts them back in place.

    `extras` are objects with `state_dict` and `load_state_dict` (scheduler, scaler) or modules
    (EMA weights), which are copied like the model. `where` the copies lie is `device`, `host` or a directory.
    A restore keeps storages, so captured graphs and views stay valid. Take snapshots while no update
    scale is applied. Taking one copies about three times the weights under Adam; nothing is read back
    by it except what an extra's own `state_dict` reads.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module | None = None,
        extras: Mapping[str, object] | None = None,
        where: str | os.PathLike[str] = "device",
    ) -> None:
        self._optimizer = optimizer
        given = dict(extras or {})
        modules = {name: extra for name, extra in given.items() if isinstance(extra, nn.Module)}
        self._modules: dict[str, nn.Module] = ({} if model is None else {"": model}) | modules
        self._extras = dict(_stateful({name: extra for name, extra in given.items() if name not in modules}))
        self._where = _place(where)
        self._slots = [_Slot(Shelf(self._where)) for _ in range(_SLOTS)]

    def reserve(self) -> None:
        """Take the memory of all slots and touch it; `AttachError` if there is not as much.

        The first touch of memory costs about as much as eight copies into it, so it is better paid here than in a step.
        """
        sizes = self._sizes()
        check_room({device: _SLOTS * size for device, size in sizes.items()}, self._where)
        for slot in self._slots:
            slot.shelf.reserve(sizes)

    def release(self) -> None:
        """Forget all snapshots and give their memory back."""
        for slot in self._slots:
            slot.empty()
            slot.shelf.release()

    def __str__(self) -> str:
        whole = {device: _SLOTS * size for device, size in self._sizes().items()}
        return ", ".join(f"{told(size)} on {place}" for place, size in by_place(whole, self._where).items())

    @property
    def slots(self) -> tuple[SnapshotInfo, ...]:
        """The snapshots at hand, oldest first."""
        found = [slot.info for slot in self._slots if slot.info is not None]
        return tuple(sorted(found, key=lambda info: info.tick))

    @property
    def bytes(self) -> int:
        """The memory of all slots, reckoned for optimizer state that does not exist yet."""
        return _SLOTS * sum(self._sizes().values())

    def capture(self, tick: int, progress: int) -> None:
        """Copy everything into the slot with the same progress, else a free one, else the oldest."""
        slot = min(self._slots, key=lambda slot: _turn(slot, progress))
        slot.empty()
        weights = {name: box[key] for name, (box, key) in self._weights().items()}
        extras = {name: dict(extra.state_dict()) for name, extra in self._extras.items()}
        self._fill(slot, _Loaded(SnapshotInfo(tick, progress), weights, self._states(), self._groups(), extras))

    def restore(self, progress: int) -> None:
        """Put everything back in place as it was, and clear all gradients; `LookupError` without such a snapshot.

        Optimizer state created since is removed. Keys that came into a parameter group since stay.
        An extra that fails to take its state back raises, after all else is back.
        """
        slot = self._slot(progress)
        slot.shelf.wait()
        with torch.no_grad():
            for name, (container, key) in self._weights().items():
                if name in slot.weights:
                    put(container, key, slot.weights[name])
        failures = self._restore_extras(slot)
        with torch.no_grad():
            self._restore_optimizer(slot)
        self._clear_gradients()
        if failures:
            raise failures[0]

    def drop(self, progress: int) -> None:
        """Forget the snapshot of this progress, if there is one; its memory is used again."""
        for slot in self._slots:
            if slot.info is not None and slot.info.progress == progress:
                slot.empty()

    def state_dict(self) -> dict[str, object]:
        """Return the snapshots; the tensors are copies."""
        return {"slots": [_saved(slot, slot.info) for slot in self._slots if slot.info is not None]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take saved snapshots over; `StateError` if they are damaged or of another model."""
        found = state.get("slots")
        if not isinstance(found, list) or len(found) > _SLOTS:
            raise StateError(f"expected at most {_SLOTS} saved snapshots under `slots`")
        loaded = [self._loaded(saved) for saved in found]
        for slot in self._slots:
            slot.empty()
        for slot, one in zip(self._slots, loaded, strict=False):
            self._fill(slot, one)

    def _fill(self, slot: _Slot, source: _Loaded) -> None:
        with torch.no_grad():
            slot.weights = {name: slot.shelf.keep(value) for name, value in source.weights.items()}
            slot.state = kept_tables(source.state, slot.shelf)
            slot.groups = kept_tables(source.groups, slot.shelf)
        slot.extras = copy.deepcopy(source.extras)
        slot.shelf.copied()
        slot.info = source.info

    def _sizes(self) -> dict[torch.device, int]:
        """Return the bytes of one slot by the device that the tensors live on."""
        held = [box[key] for box, key in self._weights().values()]
        held += [value for group in self._groups().values() for value in group.values()]
        return needed(self._optimizer, [value for value in held if isinstance(value, torch.Tensor)])

    def _slot(self, progress: int) -> _Slot:
        for slot in self._slots:
            if slot.info is not None and slot.info.progress == progress:
                return slot
        raise LookupError(f"there is no snapshot of progress {progress}")

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _weights(self) -> dict[str, tuple[Any, Any]]:
        """Return where each tensor lives, by name and once each; buffers may change identity, places do not."""
        found: dict[str, tuple[Any, Any]] = {}
        seen: set[int] = set()
        for name, box, key in (*module_places(self._modules), *group_places(self._optimizer)):
            if box[key] is None or id(box[key]) not in seen:
                seen.add(id(box[key]))
                found[name] = (box, key)
        return found

    def _states(self) -> dict[int, Table]:
        state = self._optimizer.state
        return {number: dict(state[held]) for number, held in enumerate(self._parameters()) if held in state}

    def _groups(self) -> dict[int, Table]:
        groups = self._optimizer.param_groups
        return {n: {key: group[key] for key in group if key != "params"} for n, group in enumerate(groups)}

    def _restore_extras(self, slot: _Slot) -> list[Exception]:
        failures = []
        for name, extra in self._extras.items():
            try:
                extra.load_state_dict(copy.deepcopy(slot.extras[name]))
            except Exception as error:  # somebody else's code: the weights and the optimizer must still fit together
                failures.append(error)
        return failures

    def _restore_optimizer(self, slot: _Slot) -> None:
        for number, parameter in enumerate(self._parameters()):
            if number in slot.state:
                put_table(self._optimizer.state[parameter], slot.state[number])
            else:
                self._optimizer.state.pop(parameter, None)
        for number, saved in slot.groups.items():
            for key, value in saved.items():
                put(self._optimizer.param_groups[number], key, value)

    def _clear_gradients(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        for module in self._modules.values():
            module.zero_grad(set_to_none=True)

    def _loaded(self, saved: Any) -> _Loaded:  # noqa: ANN401 - untrusted
        try:
            info = SnapshotInfo(int(saved["tick"]), int(saved["progress"]))
            weights, extras = dict(saved["weights"]), dict(saved["extras"])
            state, groups = _tables(saved["state"]), _tables(saved["groups"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StateError(f"expected a saved snapshot, found one that cannot be read: {error!r}") from error
        for name, (box, key) in self._weights().items():
            if shape(weights.get(name)) != shape(box[key]):
                raise StateError(f"the saved snapshot does not fit `{name}`: expected shape {shape(box[key])}")
        if set(extras) != set(self._extras):
            raise StateError(f"expected extras {sorted(self._extras)} in the saved snapshot, found {sorted(extras)}")
        return _Loaded(info, weights, state, groups, extras)


def _tables(saved: Mapping[int, Mapping[str, Any]]) -> dict[int, Table]:
    return {int(number): dict(table) for number, table in saved.items()}


def _place(where: str | os.PathLike[str]) -> Where:
    if where in ("device", "host"):
        return str(where)
    path = Path(where)
    if not path.is_dir() or not os.access(path, os.W_OK):
        raise AttachError(f"expected `snapshots` to be `device`, `host` or a directory to write to, found `{where}`")
    return path


def _stateful(extras: Mapping[str, object]) -> Iterator[tuple[str, Stateful]]:
    for name, extra in extras.items():
        if not isinstance(extra, Stateful):
            raise AttachError(
                f"expected `{name}` to have `state_dict` and `load_state_dict`, found {type(extra).__name__}"
            )
        yield name, extra


def _turn(slot: _Slot, progress: int) -> tuple[int, int]:
    if slot.info is None:
        return 1, 0
    return (0, 0) if slot.info.progress == progress else (2, slot.info.tick)


def _saved(slot: _Slot, info: SnapshotInfo) -> dict[str, object]:
    slot.shelf.settle()
    return {
        "tick": info.tick,
        "progress": info.progress,
        "weights": {name: fresh(value) for name, value in slot.weights.items()},
        "state": fresh_tables(slot.state),
        "groups": fresh_tables(slot.groups),
        "extras": copy.deepcopy(slot.extras),
    }
