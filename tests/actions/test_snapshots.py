"""Rolling back."""

import copy
import io
from collections.abc import Mapping

import pytest
import torch
from optimizers import OPTIMIZERS, STUBBORN, Small, backward, batch_of, same, started, state, train, weights
from torch import nn, optim
from torch.optim.lr_scheduler import LinearLR, StepLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lbw_policy.actions import SnapshotInfo, Snapshots
from lbw_policy.actions.shelves import Stored
from lbw_policy.errors import AttachError, StateError


def groups(optimizer: optim.Optimizer) -> list[dict[str, object]]:
    """Return copies of the parameter groups without the parameters."""
    return [
        copy.deepcopy({key: value for key, value in group.items() if key != "params"})
        for group in optimizer.param_groups
    ]


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", OPTIMIZERS | STUBBORN)
def test_restoring_is_bit_exact_and_a_replay_takes_the_same_path(name: str, steps: int) -> None:
    model, optimizer = started(name, steps)
    snapshots = Snapshots(optimizer, model)
    before, state_before, groups_before = weights(model), state(optimizer), groups(optimizer)
    places = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    snapshots.capture(tick=steps, progress=steps)
    first = train(model, optimizer, range(20, 24))
    reached = weights(model)
    optimizer.param_groups[0]["lr"] *= 30
    train(model, optimizer, range(30, 32))
    assert not same(weights(model), before)
    snapshots.restore(progress=steps)
    assert same(weights(model), before)
    assert same(state(optimizer), state_before)
    assert groups(optimizer) == groups_before
    assert [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())] == places
    assert all(parameter.grad is None for parameter in model.parameters())
    assert train(model, optimizer, range(20, 24)) == first
    assert same(weights(model), reached)


def test_weights_full_of_nan_come_back() -> None:
    model, optimizer = started("adamw foreach")
    snapshots, before = Snapshots(optimizer, model), weights(model)
    snapshots.capture(3, 3)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor.fill_(-1)
    snapshots.restore(3)
    assert same(weights(model), before)


def test_scheduler_scaler_and_ema_come_back_and_replay_alike() -> None:
    model, optimizer = started("adamw fused", 0)
    scheduler, scaler = StepLR(optimizer, 2, 0.5), torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    snapshots = Snapshots(optimizer, model, {"scheduler": scheduler, "scaler": scaler, "ema": ema})

    def run(seeds: range) -> dict[str, object]:
        for seed in seeds:
            inputs, targets = batch_of(seed)
            optimizer.zero_grad()
            scaler.scale(nn.functional.mse_loss(model(inputs), targets)).backward()
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()
            ema.update_parameters(model)
        return {
            **weights(model),
            **{f"ema {k}": v for k, v in weights(ema).items()},
            "lr": scheduler.get_last_lr(),
            "epoch": scheduler.last_epoch,
            "scaler": scaler.state_dict(),
            **state(optimizer),
        }

    before = run(range(3))
    snapshots.capture(3, 3)
    after = run(range(3, 8))
    assert after["lr"] != before["lr"]
    assert after["scaler"] != before["scaler"]
    snapshots.restore(3)
    assert same(run(range(0)), before)
    assert same(run(range(3, 8)), after)


def test_a_disabled_scaler_and_a_scheduler_made_after_the_snapshot_do_no_harm() -> None:
    model, optimizer = started("sgd momentum")
    snapshots = Snapshots(optimizer, model, {"scaler": torch.amp.GradScaler("cpu", enabled=False)})
    snapshots.capture(3, 3)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=50)
    train(model, optimizer, [7])
    snapshots.restore(3)
    train(model, optimizer, [8])
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] > 0


def test_a_tensor_learning_rate_comes_back_in_its_own_storage() -> None:
    model = Small()
    rate = torch.tensor(0.01)
    optimizer = optim.Adam(model.parameters(), lr=rate, foreach=False)
    snapshots = Snapshots(optimizer, model)
    snapshots.capture(0, 0)
    held = optimizer.param_groups[0]["lr"]
    held.mul_(30)
    snapshots.restore(0)
    assert optimizer.param_groups[0]["lr"] is held
    assert float(held) == float(torch.tensor(0.01))


def test_without_a_model_the_optimizers_weights_come_back() -> None:
    model, optimizer = started("adam")
    snapshots, before = Snapshots(optimizer), {k: v.detach().clone() for k, v in model.named_parameters()}
    snapshots.capture(3, 3)
    train(model, optimizer, [5])
    snapshots.restore(3)
    assert same({k: v.detach() for k, v in model.named_parameters()}, before)


def test_a_buffer_that_was_replaced_or_appeared_since_comes_back() -> None:
    model, optimizer = started("sgd")
    model.register_buffer("late", None)
    snapshots = Snapshots(optimizer, model)
    snapshots.capture(3, 3)
    hidden = model.hidden.clone()
    model.hidden = torch.full((2,), -5.0)
    model.late = torch.ones(1)
    snapshots.restore(3)
    assert torch.equal(model.hidden, hidden)
    assert model.late is None


def test_two_slots_rotate_reuse_their_memory_and_never_alias_the_run() -> None:
    model, optimizer = started("adamw foreach")
    snapshots = Snapshots(optimizer, model)
    for tick in (0, 25, 50):
        snapshots.capture(tick, tick)
        train(model, optimizer, [tick])
    assert snapshots.slots == (SnapshotInfo(25, 25), SnapshotInfo(50, 50))
    live = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    live |= {t.data_ptr() for entries in optimizer.state.values() for t in entries.values()}
    kept = [_pointers(slot.weights) | _pointers(slot.state) for slot in snapshots._slots]
    assert not kept[0] & kept[1]
    assert not (kept[0] | kept[1]) & live
    snapshots.capture(75, 75)
    assert [_pointers(slot.weights) | _pointers(slot.state) for slot in snapshots._slots] == kept


def _pointers(table: Mapping[object, object]) -> set[int]:
    found = {value.copy.data_ptr() for value in table.values() if isinstance(value, Stored)}
    return found.union(*(_pointers(value) for value in table.values() if isinstance(value, dict)))


def test_a_restored_snapshot_can_be_restored_again() -> None:
    model, optimizer = started("nadam")
    snapshots, before, state_before = Snapshots(optimizer, model), weights(model), state(optimizer)
    snapshots.capture(3, 3)
    for _ in range(2):
        train(model, optimizer, range(4))
        snapshots.restore(3)
    assert same(weights(model), before)
    assert same(state(optimizer), state_before)


def test_a_dropped_snapshot_is_gone_and_one_of_the_same_progress_is_replaced() -> None:
    model, optimizer = started("sgd")
    snapshots = Snapshots(optimizer, model)
    snapshots.capture(1, 1)
    snapshots.capture(2, 2)
    snapshots.drop(2)
    snapshots.drop(17)
    assert snapshots.slots == (SnapshotInfo(1, 1),)
    with pytest.raises(LookupError, match="no snapshot of progress 2"):
        snapshots.restore(2)
    snapshots.capture(9, 1)
    assert snapshots.slots == (SnapshotInfo(9, 1),)


def test_saved_snapshots_survive_a_file_and_restore_in_a_new_process_object() -> None:
    model, optimizer = started("adamw fused")
    scheduler = LinearLR(optimizer)
    snapshots, before, state_before = (
        Snapshots(optimizer, model, {"scheduler": scheduler}),
        weights(model),
        state(optimizer),
    )
    snapshots.capture(3, 3)
    file = io.BytesIO()
    torch.save(snapshots.state_dict(), file)
    train(model, optimizer, range(5))
    file.seek(0)
    other = Snapshots(optimizer, model, {"scheduler": scheduler})
    other.load_state_dict(torch.load(file, weights_only=True))
    other.restore(3)
    assert same(weights(model), before)
    assert same(state(optimizer), state_before)


def test_a_saved_snapshot_does_not_change_with_the_slot() -> None:
    model, optimizer = started("adam")
    snapshots = Snapshots(optimizer, model)
    snapshots.capture(3, 3)
    saved = snapshots.state_dict()
    kept = saved["slots"][0]["weights"]["/first/weight"]
    before = kept.clone()
    train(model, optimizer, range(3))
    snapshots.drop(3)
    snapshots.capture(6, 6)
    snapshots.capture(7, 7)
    assert torch.equal(kept, before)


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s.pop("slots"),
        lambda s: s["slots"].extend(s["slots"] * 3),
        lambda s: s["slots"][0].pop("tick"),
        lambda s: s["slots"][0].update(tick="soon"),
        lambda s: s["slots"][0]["weights"].pop("/first/weight"),
        lambda s: s["slots"][0]["weights"].update({"/first/weight": torch.ones(1)}),
        lambda s: s["slots"][0].update(state=7),
        lambda s: s["slots"][0].update(extras={"scheduler": {}}),
        lambda s: s["slots"].__setitem__(0, None),
    ],
)
def test_a_damaged_state_is_refused_with_a_reason_and_changes_nothing(damage: object) -> None:
    model, optimizer = started("adam")
    snapshots = Snapshots(optimizer, model)
    snapshots.capture(3, 3)
    saved = snapshots.state_dict()
    damage(saved)
    with pytest.raises(StateError, match="saved snapshot"):
        snapshots.load_state_dict(saved)
    assert snapshots.slots == (SnapshotInfo(3, 3),)


def test_an_extra_without_state_is_refused_by_name() -> None:
    _, optimizer = started("sgd", 0)
    with pytest.raises(AttachError, match="`ema`"):
        Snapshots(optimizer, extras={"ema": object()})


def test_a_slot_whose_capture_failed_half_way_is_never_offered() -> None:
    class Moody:
        broken = False

        def state_dict(self) -> dict[str, object]:
            if self.broken:
                raise RuntimeError("no state today")
            return {}

        def load_state_dict(self, state_dict: object) -> None:
            assert state_dict == {}

    model, optimizer = started("sgd")
    extra = Moody()
    snapshots = Snapshots(optimizer, model, {"moody": extra})
    snapshots.capture(1, 1)
    snapshots.capture(2, 2)
    extra.broken = True
    with pytest.raises(RuntimeError, match="no state today"):
        snapshots.capture(3, 3)
    assert snapshots.slots == (SnapshotInfo(2, 2),)


def test_tied_weights_stay_tied_and_come_back() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    snapshots, before = Snapshots(optimizer, model), model[0].weight.detach().clone()
    snapshots.capture(0, 0)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    snapshots.restore(0)
    assert model[1].weight is model[0].weight
    assert torch.equal(model[0].weight, before)


def test_gradients_are_cleared_by_a_rollback_so_the_coming_step_moves_nothing() -> None:
    model, optimizer = started("adamw foreach")
    snapshots = Snapshots(optimizer, model)
    snapshots.capture(3, 3)
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    backward(model, optimizer, 50)
    snapshots.restore(3)
    optimizer.step()
    assert same({k: v.detach() for k, v in model.named_parameters()}, before)
