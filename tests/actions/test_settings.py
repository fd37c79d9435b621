"""The actions inside loops as people write them: schedules, scalers, closures, compiled and tied models."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import lbw_policy as lbw
from tests.actions.matrix import Bare, Cell, Looked, Normed, policy
from tests.actions.optimizers import same, state, weights

Act = Callable[[lbw.Guard | None, int], None]
STEPS, AT = 9, 6
KEPT = (
    *("skip", "clip to 0.01", "clip layers to 0.01", "scale_lr by 0.3"),
    *("freeze top 50% of layers by grad_norm", "rollback at most 4 steps"),
)
ADAMW = Cell("Adam", "single", "float")
FUSED = Cell("Adam", "fused", "float")
FUSED_SGD = Cell("SGD, momentum", "fused", "float")


def attached(cell: Cell, action: str, **options: object) -> tuple[nn.Module, optim.Optimizer, lbw.Guard]:
    model, optimizer = cell.start()
    return model, optimizer, lbw.attach(optimizer, policy(action), model=model, **options)


def moved(model: nn.Module) -> dict[str, object]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def clean(guard: lbw.Guard) -> bool:
    """Tell whether exactly one action was asked for and granted, and nothing failed."""
    return [record.outcome for record in guard.interventions] == ["granted"]


MADE: dict[str, Callable[[optim.Optimizer], object]] = {
    "step": lambda o: schedulers.StepLR(o, 2, 0.5),
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, 20),
    "one cycle": lambda o: schedulers.OneCycleLR(o, 0.1, total_steps=20, cycle_momentum=False),
    "warm-up then decay": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o, total_iters=4), schedulers.ExponentialLR(o, 0.9)], [4]
    ),
    "lambda": lambda o: schedulers.LambdaLR(o, lambda step: 1 / (1 + step)),
}


@pytest.mark.parametrize("rate", ["float", "tensor"])
@pytest.mark.parametrize("action", KEPT)
@pytest.mark.parametrize("made", MADE)
def test_a_schedule_goes_its_way_whatever_was_done(made: str, action: str, rate: str) -> None:
    model, optimizer, guard = attached(Cell("Adam", "single", rate), action)
    _, twin = Cell("Adam", "single", rate).start()
    scheduler, other = MADE[made](optimizer), MADE[made](twin)
    for seed in range(STEPS):
        guard.observe(now=float(seed == AT))
        optimizer.zero_grad()
        model(seed).backward()
        optimizer.step()
        twin.step()
        scheduler.step()
        other.step()
        assert float(optimizer.param_groups[0]["lr"]) == float(twin.param_groups[0]["lr"])
    assert clean(guard)


@pytest.mark.parametrize("ready", [True, False], ids=["as torch does it", "unscaled by the loop"])
@pytest.mark.parametrize("cell", [ADAMW, FUSED], ids=str)
@pytest.mark.parametrize("action", KEPT)
def test_a_scaler_changes_nothing_of_what_an_action_does(action: str, cell: Cell, ready: bool) -> None:
    """The scale is a power of two, so a scaled run must be bit-identical to a plain one."""
    plain, plain_by, other = attached(cell, action)
    model, optimizer = cell.start()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    guard = lbw.attach(optimizer, policy(action), model=model, scaler=scaler)
    for seed in range(STEPS):
        guard.observe(now=float(seed == AT))
        other.observe(now=float(seed == AT))
        optimizer.zero_grad()
        plain_by.zero_grad()
        plain(seed).backward()
        plain_by.step()
        scaler.scale(model(seed)).backward()
        if not ready:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert clean(guard)
    assert guard.interventions[0].granted == other.interventions[0].granted
    for name, one in moved(model).items():
        torch.testing.assert_close(one, moved(plain)[name], rtol=1e-5, atol=1e-7)
    assert scaler.get_scale() == 1024.0


@pytest.mark.parametrize("cell", [ADAMW, FUSED, FUSED_SGD], ids=str)
def test_a_step_that_the_scaler_leaves_out_harms_nothing(cell: Cell) -> None:
    model, optimizer, guard = attached(cell, "scale_lr by 0.3")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for seed in range(4):
        guard.observe(now=1)
        optimizer.zero_grad()
        before = moved(model)
        scaler.scale(model(seed) * (math.inf if seed == 2 else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert same(moved(model), before) == (seed == 2)
        assert optimizer.param_groups[0]["lr"] == 0.02
    assert scaler.get_scale() == 512.0
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize(("action", "factor"), [("clip to 0.01", 0.2), ("clip layers to 0.01", None)])
def test_a_clip_comes_on_top_of_the_loops_own(action: str, factor: float | None) -> None:
    model, optimizer, guard = attached(ADAMW, action)
    guard.observe(now=1)
    model(0).backward()
    guard.clip_grad_norm_(0.05)
    before = {
        name: math.hypot(*(float(p.grad.norm()) for p in one.parameters())) for name, one in model.named_children()
    }
    optimizer.step()
    after = {
        name: math.hypot(*(float(p.grad.norm()) for p in one.parameters())) for name, one in model.named_children()
    }
    expected = factor or 0.01 / max(before.values())
    assert guard.interventions[0].granted == pytest.approx(expected, rel=1e-4)
    wanted = {name: norm * factor if factor else min(norm, 0.01) for name, norm in before.items()}
    assert after == pytest.approx(wanted, rel=1e-4)


def test_gradients_of_several_backward_passes_are_one_tick() -> None:
    model, optimizer, guard = attached(ADAMW, "clip to 0.01")
    for seed in range(8):
        guard.observe(now=1)
        model(seed).backward()
        if seed % 2:
            optimizer.step()
            lengths = [float(parameter.grad.norm()) for parameter in model.parameters()]
            assert math.hypot(*lengths) == pytest.approx(0.01, rel=1e-5)
            optimizer.zero_grad()
    assert guard.tick == 4


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("action", KEPT)
def test_a_closure_is_decided_on_once_and_held_to_it(action: str, times: int) -> None:
    class Again(optim.Adam):
        """Evaluates its closure several times within a step."""

        def step(self, closure: Callable[[], object]) -> object:
            for _ in range(times - 1):
                with torch.enable_grad():
                    closure()
            return super().step(closure)

    model, other = Normed(), Normed()
    optimizer, plain = Again(model.parameters(), lr=0.02), optim.Adam(other.parameters(), lr=0.02)
    guard, twin = (lbw.attach(one, policy(action), model=held) for one, held in ((optimizer, model), (plain, other)))
    for seed in range(STEPS):

        def closure(seed: int = seed) -> torch.Tensor:
            optimizer.zero_grad()
            loss = model(seed)
            loss.backward()
            return loss

        guard.observe(now=float(seed == AT))
        optimizer.step(closure)
        twin.observe(now=float(seed == AT))
        plain.zero_grad()
        other(seed).backward()
        plain.step()
    assert clean(guard)
    assert (guard.tick, guard.progress) == (twin.tick, twin.progress)
    if not (action.startswith("clip") and times > 1):  # of several evaluations only the first is clipped
        assert same(moved(model), moved(other))


@pytest.mark.parametrize("action", KEPT)
def test_a_compiled_model_is_acted_on_like_any(action: str) -> None:
    plain, plain_by, twin = attached(ADAMW, action)
    model, optimizer = ADAMW.start()
    compiled = torch.compile(model, backend="eager")
    guard = lbw.attach(optimizer, policy(action), model=compiled)
    batch = torch.randn(8, 6)
    for seed in range(STEPS):
        for one, by, held in ((guard, optimizer, compiled), (twin, plain_by, plain)):
            one.observe(now=float(seed == AT))
            by.zero_grad()
            inner = getattr(held, "_orig_mod", held)
            inner.last(torch.tanh(inner.first(batch))).pow(2).sum().backward()
            by.step()
    assert clean(guard)
    assert same(moved(model), moved(plain))


class Tied(nn.Module):
    """An output layer that shares the weights of the input layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = (nn.Linear(4, 4, bias=bias) for bias in (True, False, False))
        self.last.weight = self.first.weight

    def forward(self, seed: int) -> torch.Tensor:
        """Return the loss on a batch that depends on the seed only."""
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed))
        return (self.last(torch.tanh(self.middle(self.first(inputs)))) - inputs).pow(2).sum()


@pytest.mark.parametrize("action", KEPT)
def test_tied_weights_are_one_weight(action: str) -> None:
    model = Tied()
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    guard = lbw.attach(optimizer, policy(action), model=model)
    for seed in range(STEPS):
        guard.observe(now=float(seed == AT))
        optimizer.zero_grad()
        model(seed).backward()
        before, length = moved(model), math.hypot(*(float(p.grad.norm()) for p in model.parameters()))
        optimizer.step()
        if seed == AT and action == "clip to 0.01":
            assert guard.interventions[0].granted == pytest.approx(0.01 / length, rel=1e-5)
        if seed == AT and action == "clip layers to 0.01":
            for layer in model.children():
                assert math.hypot(*(float(p.grad.norm()) for p in layer.parameters())) <= 0.01 * (1 + 1e-5)
        if seed == AT and action.startswith("freeze"):
            assert guard.interventions[0].layers == ("middle",)
            assert not torch.equal(model.first.weight, before["first.weight"])
    assert clean(guard)
    assert model.last.weight is model.first.weight


@pytest.mark.parametrize("kind", ["sgd", "adagrad", "mixed"])
@pytest.mark.parametrize("action", KEPT)
def test_sparse_gradients_are_gradients(action: str, kind: str) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sparse, self.dense = Looked(), Bare()

        def forward(self, seed: int) -> torch.Tensor:
            return self.sparse(seed) + self.dense(seed)

    torch.manual_seed(0)
    model = Mixed() if kind == "mixed" else Looked()
    make = optim.Adagrad if kind == "adagrad" else optim.SGD
    optimizer = make(model.parameters(), lr=0.02)
    guard = lbw.attach(optimizer, policy(action), model=model)
    for seed in range(STEPS):
        guard.observe(now=float(seed == AT))
        optimizer.zero_grad()
        model(seed).backward()
        optimizer.step()
        if seed == AT and action == "clip to 0.01":
            lengths = [
                float(p.grad.coalesce().values().norm() if p.grad.is_sparse else p.grad.norm())
                for p in model.parameters()
            ]
            assert math.hypot(*lengths) == pytest.approx(0.01, rel=1e-5)
    assert clean(guard)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize("cell", [ADAMW, FUSED], ids=str)
@pytest.mark.parametrize("action", KEPT)
def test_groups_and_parameters_without_gradient_keep_what_is_theirs(action: str, cell: Cell) -> None:
    model = Normed()
    model.spare, model.held = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3), requires_grad=False)
    groups = [
        {"params": [*model.first.parameters(), model.spare], "lr": 0.01},
        {"params": [*model.norm.parameters(), model.held], "lr": torch.tensor(0.5), "weight_decay": 0.3},
        {"params": model.last.parameters()},
    ]
    optimizer = optim.Adam(groups, lr=0.02, **({"fused": True} if cell is FUSED else {"foreach": False}))
    guard = lbw.attach(optimizer, policy(action), model=model)
    for seed in range(STEPS):
        guard.observe(now=float(seed == AT))
        optimizer.zero_grad()
        model(seed).backward()
        optimizer.step()
        assert [float(group["lr"]) for group in optimizer.param_groups] == [0.01, 0.5, 0.02]
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0.3, 0]
    assert clean(guard)
    assert torch.equal(model.spare, torch.ones(3))
    assert torch.equal(model.held, torch.ones(3))


def test_fused_momentum_survives_a_reset_while_layers_are_frozen() -> None:
    """Mixed missing and present momentum is what fused SGD fails on."""
    text = """lbw 1
policy both { doc "a reset while layers are frozen" }
signal now = observed.now
reflex held { when now > 0 do freeze top 50% of layers by grad_norm }
reflex anew { when now > 1 do reset_moments }
limits { freeze at most 50% of layers, for at most 9 steps  reset_moments at most 9 per 100 steps }
"""
    model, optimizer = FUSED_SGD.start()
    guard = lbw.attach(optimizer, lbw.load(text), model=model)
    for seed, now in enumerate([0, 0, 1, 2, 1, 0, 0, 2, 0, 0]):
        guard.observe(now=now)
        optimizer.zero_grad()
        model(seed).backward()
        optimizer.step()
    assert {record.action for record in guard.interventions if record.outcome == "granted"} == {
        "freeze",
        "reset_moments",
    }
    assert not [record for record in guard.interventions if record.action == "failure"]


def test_fused_momentum_refuses_a_freeze_that_would_break_it_and_goes_on() -> None:
    model, optimizer, guard = attached(FUSED_SGD, "freeze top 50% of layers by grad_norm")
    for seed in range(4):
        guard.observe(now=float(seed == 0))
        optimizer.zero_grad()
        model(seed).backward()
        optimizer.step()
    (record,) = guard.interventions
    assert record.outcome == "refused"
    assert "fused SGD" in record.reason


@pytest.mark.parametrize("how", ["no gradients", "a skip"])
def test_fused_momentum_survives_a_first_step_without_gradients(how: str) -> None:
    model, optimizer, guard = attached(FUSED_SGD, "skip")
    twin_model, twin = FUSED_SGD.start()
    for seed in range(4):
        guard.observe(now=float(seed == 0))
        optimizer.zero_grad()
        if seed or how == "a skip":
            model(seed).backward()
        optimizer.step()
        if seed:
            twin.zero_grad()
            twin_model(seed).backward()
            twin.step()
    assert same(moved(model), moved(twin_model))
    assert same(state(optimizer), state(twin))


def test_a_rollback_brings_back_all_that_was_given() -> None:
    """Batch norm, EMA, scaler and schedule: each as a twin that never went the wrong way has it."""

    def made() -> tuple[nn.Module, optim.Optimizer, object, torch.amp.GradScaler, nn.Module]:
        model, optimizer = FUSED.start()
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        return model, optimizer, schedulers.StepLR(optimizer, 2, 0.5), scaler, ema

    def run(parts: tuple[object, ...], seed: int, guard: lbw.Guard | None = None) -> None:
        model, optimizer, scheduler, scaler, ema = parts
        optimizer.zero_grad()
        scaler.scale(model(seed)).backward()
        if guard:
            guard.observe(now=float(seed == AT))
        scaler.step(optimizer)
        if guard is None or seed != AT:  # what the loop does after the step belongs to the next state
            scaler.update()
            scheduler.step()
            ema.update_parameters(model)

    ours, twin = made(), made()
    model, optimizer, scheduler, scaler, ema = ours
    options = {"scheduler": scheduler, "scaler": scaler, "ema": ema}
    guard = lbw.attach(optimizer, policy("rollback at most 4 steps"), model=model, **options)
    for seed in range(AT + 1):
        run(ours, seed, guard)
    (record,) = guard.interventions
    back = int(record.granted)
    for seed in range(back - 1):
        run(twin, seed)
    twin[1].zero_grad()
    twin[3].scale(twin[0](back - 1)).backward()
    twin[3].step(twin[1])  # a snapshot is taken inside the step, before the loop goes on
    assert same(weights(model), weights(twin[0]))
    assert same(weights(ema), weights(twin[4]))
    assert same(state(optimizer), state(twin[1]))
    assert scheduler.state_dict()["last_epoch"] == twin[2].state_dict()["last_epoch"]
    assert scaler.state_dict() == twin[3].state_dict()
