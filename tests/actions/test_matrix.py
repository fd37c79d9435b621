"""Each action under each optimizer, through a guard: it does exactly what it says, or `attach` refuses it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn, optim

import lbw_policy as lbw
from lbw_policy.runtime import Guard
from tests.actions.matrix import ACTIONS, Cell, cells, policy, refusal, step, table
from tests.actions.optimizers import same, state, weights

PAGE = Path(__file__).parents[2] / "docs" / "actions.md"
CALM = 6
CELLS = {str(cell): cell for cell in cells()}
Run = tuple[nn.Module, optim.Optimizer]
working = pytest.mark.parametrize("cell", [cell for cell in CELLS.values() if cell.kind != "LBFGS"], ids=str)


def begun(cell: Cell) -> Run:
    """Return an unguarded run after its calm steps."""
    model, optimizer = cell.start()
    for seed in range(CALM):
        step(model, optimizer, seed)
    return model, optimizer


def guarded(cell: Cell, action: str, seed: int = 99, checkpoint: object = lambda: None) -> tuple[Run, Guard]:
    """Return a guarded run whose last step, after the calm ones, asked for an action."""
    model, optimizer = cell.start()
    guard = lbw.attach(optimizer, policy(action), model=model, checkpoint=checkpoint)
    rates = [group["lr"] for group in optimizer.param_groups]
    values = [float(rate) for rate in rates]
    for calm in range(CALM):
        guard.observe(now=0)
        step(model, optimizer, calm)
    guard.observe(now=1)
    step(model, optimizer, seed)
    assert not [record for record in guard.interventions if record.action in ("failure", "alert")]
    assert all(group["lr"] is rate for group, rate in zip(optimizer.param_groups, rates, strict=True))
    assert [float(rate) for rate in rates] == values
    return (model, optimizer), guard


def moved(model: nn.Module) -> dict[str, object]:
    """Return copies of the parameters: a forward pass moves buffers, a step does not."""
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def outcome(guard: Guard) -> str:
    """Return the outcome of the one action that was asked for."""
    (record,) = guard.interventions
    return record.outcome


def unlike(one: dict[str, object], other: dict[str, object]) -> set[str]:
    """Return the names whose values differ."""
    return {name for name in one if not same({"": one[name]}, {"": other[name]})}


@working
def test_a_skip_moves_neither_weights_nor_state(cell: Cell) -> None:
    before, optimizer = begun(cell)
    (after, moved_by), guard = guarded(cell, "skip")
    assert outcome(guard) == "granted"
    assert same(moved(after), moved(before))
    assert same(state(moved_by), state(optimizer))


@working
def test_a_clip_is_the_step_with_shorter_gradients(cell: Cell) -> None:
    model, optimizer = begun(cell)
    (after, moved_by), guard = guarded(cell, "clip to 0.01")
    factor = guard.interventions[0].granted
    optimizer.zero_grad()
    model(99).backward()
    for parameter in model.parameters():
        parameter.grad *= factor
    lengths = [float(torch.linalg.vector_norm(parameter.grad.to_dense())) for parameter in model.parameters()]
    assert math.hypot(*lengths) == pytest.approx(0.01, rel=1e-5)
    optimizer.step()
    assert same(moved(after), moved(model))
    assert same(state(moved_by), state(optimizer))


@working
def test_a_clip_of_layers_is_the_step_with_the_longer_layers_shortened(cell: Cell) -> None:
    model, optimizer = begun(cell)
    (after, moved_by), guard = guarded(cell, "clip layers to 0.01")
    optimizer.zero_grad()
    model(99).backward()
    largest = 0.0
    for layer in model.children():
        gradients = [parameter.grad for parameter in layer.parameters()]
        length = math.hypot(*(float(torch.linalg.vector_norm(g.to_dense())) for g in gradients))
        largest = max(largest, length)
        for gradient in gradients:
            gradient.mul_(min(1.0, 0.01 / length))
    optimizer.step()
    assert guard.interventions[0].granted == pytest.approx(0.01 / largest, rel=1e-5)
    for name, one in moved(after).items():
        torch.testing.assert_close(one, moved(model)[name], rtol=1e-4, atol=1e-6)
    assert state(moved_by).keys() == state(optimizer).keys()


@working
def test_a_scaled_update_goes_the_same_way_and_leaves_the_state_of_the_whole_one(cell: Cell) -> None:
    if refusal(cell, "scale_lr by 0.3"):
        return
    model, optimizer = begun(cell)
    before = moved(model)
    step(model, optimizer, 99)
    (after, moved_by), _ = guarded(cell, "scale_lr by 0.3")
    assert same(state(moved_by), state(optimizer))
    for name, full in moved(model).items():
        start, scaled = before[name].double(), after.get_parameter(name).detach().double()
        bound = 2 * torch.finfo(torch.float32).eps * max(float(full.abs().max()), float(start.abs().max()))
        assert float((scaled - start - 0.3 * (full.double() - start)).abs().max()) <= bound
    assert unlike(moved(model), before)


@working
def test_a_rollback_is_exact_and_the_run_takes_the_same_path_again(cell: Cell) -> None:
    (model, optimizer), guard = guarded(cell, "rollback at most 4 steps")
    (record,) = guard.interventions
    assert (record.action, record.outcome) == ("rollback", "granted")
    other, twin = cell.start()
    for seed in range(int(record.granted)):
        step(other, twin, seed)
    assert same(weights(model), weights(other))
    assert same(state(optimizer), state(twin))
    guard.detach()
    assert [step(model, optimizer, seed) for seed in (50, 51)] == [step(other, twin, seed) for seed in (50, 51)]
    assert same(weights(model), weights(other))


@working
def test_a_freeze_holds_its_layers_with_their_state_and_the_rest_steps_as_ever(cell: Cell) -> None:
    model, optimizer = begun(cell)
    before, state_before = moved(model), state(optimizer)
    step(model, optimizer, 99)
    (after, moved_by), guard = guarded(cell, "freeze top 50% of layers by grad_norm")
    (frozen,) = guard.interventions[0].layers
    held = {name for name in before if name.startswith(frozen + ".")}
    numbers = {f"{n}." for n, name in enumerate(before) if name in held}
    assert same(moved(after), {name: (before if name in held else moved(model))[name] for name in before})
    expected = {
        key: (state_before if key[: key.index(".") + 1] in numbers else state(optimizer))[key]
        for key in state(moved_by)
    }
    assert same(state(moved_by), expected)
    guard.observe(now=0)
    step(after, moved_by, 100)  # let go again
    assert not [record for record in guard.interventions if record.action == "failure"]


@working
def test_forgotten_moments_make_the_step_a_first_one(cell: Cell) -> None:
    model, _ = begun(cell)
    (after, _), _ = guarded(cell, "reset_moments")
    fresh, optimizer = cell.start()
    fresh.load_state_dict(model.state_dict())
    if cell.way == "fused" and cell.kind.startswith("SGD, "):  # starts with momentum 0 there, see `reset_moments`
        for parameter in fresh.parameters():
            optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    step(fresh, optimizer, 99)
    assert same(moved(after), moved(fresh))


@pytest.mark.parametrize("cell", CELLS.values(), ids=str)
def test_a_checkpoint_is_called_once_before_an_update_that_is_as_ever(cell: Cell) -> None:
    model, optimizer = begun(cell)
    before, seen = moved(model), []
    step(model, optimizer, 99)
    (after, moved_by), _ = guarded(cell, "checkpoint", checkpoint=lambda: seen.append(None))
    assert seen == [None]
    assert same(moved(after), moved(model))
    assert same(state(moved_by), state(optimizer))
    assert unlike(moved(after), before)


@pytest.mark.parametrize("cell", CELLS.values(), ids=str)
def test_a_halt_changes_nothing(cell: Cell) -> None:
    before, optimizer = begun(cell)
    model, halted = cell.start()
    guard = lbw.attach(halted, policy("halt"), model=model)
    for seed in range(CALM):
        guard.observe(now=0)
        step(model, halted, seed)
    guard.observe(now=1)
    with pytest.raises(lbw.Halted):
        step(model, halted, 99)
    assert same(moved(model), moved(before))
    assert same(state(halted), state(optimizer)) or cell.kind == "LBFGS"  # which counts evaluations as it begins


@pytest.mark.parametrize("action", ACTIONS)
def test_lbfgs_is_refused_by_name_for_all_that_touches_the_step(action: str) -> None:
    reason = refusal(CELLS["LBFGS/single/float"], action)
    assert ("LBFGS" in reason) == (action not in ("halt", "checkpoint"))


def test_only_three_optimizers_are_refused_anything() -> None:
    refused = {(cell.kind, action.split()[0]) for cell in CELLS.values() for action in ACTIONS if refusal(cell, action)}
    assert {pair for pair in refused if pair[0] != "LBFGS"} == {("ASGD", "scale_lr"), ("Rprop", "scale_lr")}


def test_torch_offers_the_ways_that_are_tested() -> None:
    """So that no cell goes missing unseen."""
    assert len(CELLS) >= 50
    assert {cell.kind for cell in CELLS.values() if cell.way == "fused"} >= {"Adagrad", "Adam", "AdamW", "SGD"}


def test_the_page_shows_the_matrix(rewrite_cases: bool) -> None:
    text = PAGE.read_text(encoding="utf-8")
    start, end = "<!-- matrix -->\n", "<!-- end of matrix -->"
    head, _, rest = text.partition(start)
    printed, _, tail = rest.partition(end)
    if rewrite_cases:
        PAGE.write_text(head + start + table() + end + tail, encoding="utf-8")
        printed = table()
    assert printed == table()
