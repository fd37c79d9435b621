"""Where snapshots lie, what they take, and what happens where it is not there."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn, optim

import lbw_policy as lbw
from lbw_policy.actions import Generators, Snapshots, room
from lbw_policy.actions.shelves import Shelf
from tests.actions.matrix import Cell, Normed, cells, policy, step
from tests.actions.optimizers import same, started, state, train, weights

CELLS = [cell for cell in cells() if cell.kind != "LBFGS" and cell.rate == "float"]
MIXED = [torch.ones(3), torch.tensor(2.5), torch.ones(2, 2, dtype=torch.bfloat16), torch.tensor([True, False, True]),
         torch.empty(0), torch.ones(4, 6).t(), torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
         torch.ones(2, dtype=torch.complex64), torch.arange(5)]  # fmt: skip


def room_of(snapshots: Snapshots) -> int:
    """Return the bytes that the shelves hold in fact."""
    blocks = [block for slot in snapshots._slots for held in slot.shelf._blocks.values() for block in held]
    return sum(block.room.numel() for block in blocks)


@pytest.fixture(params=["device", "host", "directory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "directory" else request.param


def test_every_place_keeps_the_bits_of_every_type_and_shares_nothing(where: str, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path if where == str(tmp_path) else where)
    before = [tensor.clone() for tensor in MIXED]
    kept = [shelf.keep(tensor) for tensor in MIXED]
    pointers = [one.copy.data_ptr() for one in kept if one.copy.numel()]
    assert same(dict(enumerate(one.copy for one in kept)), dict(enumerate(before)))
    assert len(set(pointers)) == len(pointers)
    assert not set(pointers) & {tensor.data_ptr() for tensor in MIXED}


@pytest.mark.parametrize("name", ["adamw fused", "sgd nesterov", "nadam", "adafactor"])
def test_a_rollback_is_exact_from_every_place(name: str, where: str) -> None:
    model, optimizer = started(name)
    snapshots, before, state_before = Snapshots(optimizer, model, where=where), weights(model), state(optimizer)
    snapshots.reserve()
    for number in (1, 2, 3, 4):  # each slot is written twice
        snapshots.capture(number, number)
    train(model, optimizer, range(5))
    optimizer.state.clear()
    snapshots.restore(3)
    assert same(weights(model), before)
    assert same(state(optimizer), state_before)


def test_saved_snapshots_of_every_place_go_on_in_another(where: str) -> None:
    model, optimizer = started("adam")
    snapshots, before = Snapshots(optimizer, model, where=where), weights(model)
    snapshots.capture(3, 3)
    saved = snapshots.state_dict()
    train(model, optimizer, range(3))
    other = Snapshots(optimizer, model)
    other.load_state_dict(saved)
    other.restore(3)
    assert same(weights(model), before)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_what_is_reserved_before_the_first_step_is_enough_for_good(cell: Cell) -> None:
    model, optimizer = cell.start()
    snapshots = Snapshots(optimizer, model)
    snapshots.reserve()
    reserved = room_of(snapshots)
    assert reserved == snapshots.bytes
    for seed in range(3):
        step(model, optimizer, seed)
        snapshots.capture(seed, seed)
    assert room_of(snapshots) == reserved


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.Adafactor, optim.RMSprop, optim.Adadelta])
def test_what_is_reckoned_is_close_to_what_is_there(kind: type[optim.Optimizer]) -> None:
    model = nn.Linear(300, 400)
    optimizer = kind(model.parameters())
    reckoned = Snapshots(optimizer, model).bytes
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    assert Snapshots(optimizer, model).bytes <= reckoned
    assert (
        reckoned <= 2.01 * Snapshots(optimizer, model).bytes
    )  # RMSprop is in between: two at most for what is not listed


def test_memory_grows_where_it_was_reckoned_too_small() -> None:
    class Hoarder(optim.SGD):
        def step(self, closure: object = None) -> object:
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["history"] = torch.zeros(50, *parameter.shape)
            return super().step(closure)

    model = Normed()
    optimizer = Hoarder(model.parameters(), lr=0.1)
    snapshots = Snapshots(optimizer, model)
    snapshots.reserve()
    step(model, optimizer, 0)
    for number in (0, 1):
        snapshots.capture(number, number)
    grown, held = room_of(snapshots), state(optimizer)
    for number in (2, 3):
        snapshots.capture(number, number)
    step(model, optimizer, 1)
    snapshots.restore(3)
    assert room_of(snapshots) == grown
    assert same(state(optimizer), held)


def test_files_leave_no_name_behind_and_no_memory_after_detach(tmp_path: Path) -> None:
    model, optimizer = started("adam")
    guard = lbw.attach(optimizer, policy("rollback at most 4 steps"), model=model, snapshots=tmp_path)
    held = guard._parts.effects.snapshots
    for seed in range(4):
        guard.observe(now=0)
        train(model, optimizer, [seed])
    assert held.slots
    assert room_of(held) > 0
    assert not list(tmp_path.iterdir())
    guard.detach()
    assert room_of(held) == 0
    assert held.slots == ()


@pytest.mark.parametrize("wrong", ["hots", "/nowhere/at/all", __file__])
def test_a_place_that_is_none_is_refused(wrong: str) -> None:
    model, optimizer = started("adam", 0)
    with pytest.raises(lbw.AttachError, match="`device`, `host` or a directory to write to, found"):
        lbw.attach(optimizer, policy("rollback at most 4 steps"), model=model, snapshots=wrong)


@pytest.mark.parametrize("mode", ["act", "shadow"])
def test_more_than_is_free_is_refused_when_it_would_be_taken(
    mode: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(room, "available", lambda place: asked.append(place) or 999)
    model, optimizer = started("adam", 0)
    if mode == "shadow":
        lbw.attach(optimizer, policy("rollback at most 4 steps"), model=model, mode=mode, snapshots=where)
        return
    with pytest.raises(lbw.AttachError, match=r"snapshots for `rollback` need [\d.]+ kB on .*, and 999 bytes are free"):
        lbw.attach(optimizer, policy("rollback at most 4 steps"), model=model, mode=mode, snapshots=where)
    assert asked == [Path(where) if where.startswith("/") else torch.device("cpu")]
    monkeypatch.undo()
    lbw.attach(optimizer, policy("rollback at most 4 steps"), model=model)  # nothing was left on the optimizer


def test_room_that_cannot_be_told_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_lines", lambda _: [])
    assert room.available(torch.device("cpu")) is None
    assert room.available(torch.device("meta")) is None
    model, optimizer = started("adam", 0)
    Snapshots(optimizer, model).reserve()


def test_the_limit_of_a_container_counts_where_it_is_lower(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 250\n")
    assert room._free_in_container(str(tmp_path)) == 550
    (tmp_path / "memory.max").write_text("max\n")
    assert room._free_in_container(str(tmp_path)) is None


def test_what_snapshots_take_is_said_at_attach_and_in_the_summary(caplog: pytest.LogCaptureFixture) -> None:
    model, optimizer = started("adam", 0)
    with caplog.at_level("INFO", logger="lbw_policy"):
        guard = lbw.attach(optimizer, policy("rollback at most 4 steps"), model=model)
    assert "snapshots for rollback take" in caplog.text
    assert guard.summary().snapshots.endswith(" kB on cpu")
    assert "snapshots: " in str(guard.summary())
    guard.detach()
    assert lbw.attach(optimizer, policy("skip"), model=model).summary().snapshots == ""


def test_a_snapshot_that_cannot_be_taken_is_recorded_and_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = started("adam", 0)
    guard = lbw.attach(optimizer, policy("rollback at most 4 steps"), model=model)
    held, before = guard._parts.effects.snapshots, weights(model)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(held, "capture", full)
    for seed in range(4):
        guard.observe(now=0)
        train(model, optimizer, [seed])
    monkeypatch.undo()
    guard.observe(now=1)
    train(model, optimizer, [5])
    reasons = [(record.action, record.outcome) for record in guard.interventions]
    assert reasons == [("failure", "failed")] * 4 + [("rollback", "refused")]
    assert guard.progress == 5
    assert not same(before, weights(model))


def test_an_extra_that_fails_leaves_weights_and_optimizer_that_fit_together() -> None:
    class Moody:
        def state_dict(self) -> dict[str, object]:
            return {}

        def load_state_dict(self, state_dict: object) -> None:
            raise RuntimeError("not today")

    model, optimizer = started("adam")
    snapshots, before, state_before = Snapshots(optimizer, model, {"moody": Moody()}), weights(model), state(optimizer)
    snapshots.capture(3, 3)
    train(model, optimizer, range(3))
    with pytest.raises(RuntimeError, match="not today"):
        snapshots.restore(3)
    assert same(weights(model), before)
    assert same(state(optimizer), state_before)


@pytest.mark.parametrize("rng", [True, False])
def test_generators_are_rolled_back_only_where_asked(rng: bool) -> None:
    model, optimizer = started("adam", 0)
    guard = lbw.attach(optimizer, policy("rollback at most 4 steps"), model=model, rng=rng)
    draws: dict[int, object] = {}
    for seed in range(8):
        guard.observe(now=float(seed == 6))
        train(model, optimizer, [seed])
        random.shuffle([1, 2])
        draws[seed] = (random.getstate(), np.random.rand(), float(torch.rand(())))
    (record,) = guard.interventions
    assert (draws[6] == draws[int(record.granted) - 1]) == rng


def test_the_state_of_generators_is_plain() -> None:
    found = Generators().state_dict()
    assert isinstance(found["torch"], torch.Tensor)
    assert isinstance(found["python"], list)
    assert {type(key) for key in found["numpy"][1]} == {int}
