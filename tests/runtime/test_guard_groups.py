"""Signals that a policy takes over one group of layers, in guarded runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn, optim

import lbw_policy as lbw
from lbw_policy.errors import AttachError
from lbw_policy.runtime.cadence import cadence
from lbw_policy.trials import run_trial

HEAD = """lbw 1
policy p { }
layers experts = "experts.*"
layers head    = "head"
"""
SKIPS = "limits { skip at most 100 in a row, at most 1_000 per 1_000 steps  intervene at most 1_000 per 1_000 steps }\n"
WATCHES = f"""{HEAD}
signal whole  = telemetry.grad_norm
signal hot    = telemetry.grad_norm of experts
signal slow   = telemetry.grad_norm of experts {{ every 3 steps }}
signal moved  = telemetry.update_norm of head {{ every 2 steps }}
signal vary   = telemetry.activation_variance of experts
reflex always {{ when whole > 0 and hot > 0 and slow > 0 and (moved > 0 or moved <= 0 or vary > 0)  do skip }}
{SKIPS}"""


class Experts(nn.Module):
    """A router, three experts and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.router = nn.Linear(6, 3, bias=False)
        self.experts = nn.ModuleList(nn.Linear(6, 8) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return three numbers for each row."""
        weights = self.router(batch).softmax(-1)
        return self.head(sum(weights[:, n, None] * expert(batch) for n, expert in enumerate(self.experts)))


def experts(make: type[optim.Optimizer] = optim.AdamW) -> tuple[Experts, optim.Optimizer]:
    """Return a model and its optimizer."""
    model = Experts()
    return model, make(model.parameters(), lr=0.01)


def backward(model: nn.Module, optimizer: optim.Optimizer, step: int) -> None:
    """Fill the gradients of one step."""
    inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
    optimizer.zero_grad()
    nn.functional.mse_loss(model(inputs), inputs[:, :3] * 2).backward()


def norm(tensors: list[torch.Tensor]) -> float:
    """Return the L2 norm of everything, in double precision."""
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def test_a_run_reads_of_a_group_what_is_computed_from_its_layers() -> None:
    """Norm, update and outputs of a group equal a computation of its own; a slow reading stands in between."""
    model, optimizer = experts()
    outputs: dict[int, float] = {}
    for number, expert in enumerate(model.experts):
        expert.register_forward_hook(
            lambda _, __, output, number=number: outputs.update({number: float(output.detach().var(correction=0))})
        )
    guard = lbw.attach(optimizer, lbw.load(WATCHES), model=model, mode="shadow")
    expected, moved, slow = [], 0.0, 0.0
    for step in range(8):
        backward(model, optimizer, step)
        hot = norm([p.grad for p in model.experts.parameters()])
        slow = hot if step % 3 == 0 else slow
        expected.append([norm([p.grad for p in model.parameters()]), hot, slow, moved, max(outputs.values())])
        before = [p.detach().clone() for p in model.head.parameters()]
        optimizer.step()
        if step % 2:  # read in the even tick that follows
            moved = norm([p - b for p, b in zip(model.head.parameters(), before, strict=True)])
    read = [record for record in guard.interventions if record.action == "skip"]
    assert [record.tick for record in read] == list(range(8))
    assert read[0].values["moved"] is None
    names = ("whole", "hot", "slow", "moved", "vary")
    for record, numbers in zip(read[2:], expected[2:], strict=True):
        assert [record.values[name] for name in names] == pytest.approx(numbers, rel=1e-5)


def test_a_reflex_on_a_group_fires_for_that_group_only() -> None:
    text = f"{HEAD}signal hot = telemetry.nonfinite_grads of experts\nreflex r {{ when hot > 0 do skip }}\n{SKIPS}"
    model, optimizer = experts(optim.SGD)
    guard = lbw.attach(optimizer, lbw.load(text), model=model)
    for step, broken in enumerate((model.head, model.experts[1], model.router)):
        backward(model, optimizer, step)
        kept = [p.detach().clone() for p in model.parameters()]
        broken.weight.grad[0, 0] = math.nan
        optimizer.step()
        for parameter, value in zip(model.parameters(), kept, strict=True):
            parameter.data.copy_(value)  # what the unguarded NaN did
    assert [record.tick for record in guard.interventions] == [1]


def test_two_signals_over_one_group_are_measured_once_as_often_as_both_need() -> None:
    text = f"""{HEAD}
signal a = telemetry.grad_norm of experts {{ every 6 steps }}
signal b = telemetry.grad_norm of experts {{ every 4 steps }}
signal c = telemetry.grad_norm of head {{ every 10 steps }}
alert x info when a > 1 and b > 1 and c > 1 "x"
"""
    assert cadence(lbw.load(text)) == {"loss": 1, "grad_norm of experts": 2, "grad_norm of head": 10}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("signal s = telemetry.router_load of experts", r"router_load of experts`, which needs a router: .*`router`"),
        ("signal s = telemetry.moment_rms of head", "`telemetry.moment_rms of head`, which needs "),
        ('layers none = "head" except "*ea*"\nsignal s = telemetry.grad_norm of none', "`none`: .* leaves no layer"),
        ('layers lost = "*.mlp.*"\nsignal s = telemetry.grad_norm of lost', "`lost`: `.*` matches no layer"),
    ],
)
def test_a_group_that_has_not_what_its_source_needs_is_refused(declared: str, message: str) -> None:
    model, optimizer = experts(optim.SGD)
    policy = lbw.load(f'{HEAD}{declared}\nalert a info when s > 1 "a"\n')
    with pytest.raises(AttachError, match=message):
        lbw.attach(optimizer, policy, model=model)


def test_without_the_model_a_group_is_refused_with_the_way_to_give_it_names() -> None:
    _, optimizer = experts()
    policy = lbw.load(f'{HEAD}signal s = telemetry.grad_norm of experts\nalert a info when s > 1 "a"\n')
    with pytest.raises(AttachError, match=r"layers are `group0.0`.*with `model=`"):
        lbw.attach(optimizer, policy)


def test_outputs_of_a_group_need_a_module_among_its_layers() -> None:
    """Parameters that no module of the model holds are layers without outputs."""
    model = Experts()
    optimizer = optim.SGD([*model.parameters(), nn.Parameter(torch.ones(2))], lr=0.1)
    text = 'lbw 1\npolicy p { }\nlayers extra = "group0.*"\nsignal s = telemetry.activation_max of extra\n'
    with pytest.raises(AttachError, match="needs a module"):
        lbw.attach(optimizer, lbw.load(text + 'alert a info when s > 1 "a"\n'), model=model)


def test_a_router_of_a_group_is_read_apart_from_the_others() -> None:
    text = 'layers routing = "router"\nsignal dead = telemetry.router_dead of routing\n'
    policy = lbw.load(f"{HEAD}{text}reflex r {{ when dead >= 0 do skip }}\n{SKIPS}")
    model, optimizer = experts()
    with torch.no_grad():
        model.router.weight.zero_()
        model.router.weight[0, 0] = 1.0
    guard = lbw.attach(optimizer, policy, model=model, mode="shadow")
    for step in range(2):
        backward(model, optimizer, step)
        scores = model.router(torch.randn(16, 6, generator=torch.Generator().manual_seed(step)))
        optimizer.zero_grad()
        backward(model, optimizer, step)
        optimizer.step()
        used = len(set(scores.topk(1).indices.flatten().tolist()))
        assert guard.interventions[-1].values["dead"] == 3 - used


def test_a_test_gives_a_group_s_signal_by_its_name() -> None:
    text = f"""{HEAD}
signal hot = telemetry.grad_norm of experts
reflex r {{ when hot > 5 do skip }}
test "only the spike is skipped" {{ given hot = 1 x 5, 9, 1 x 5  expect skip 1 times }}
{SKIPS}"""
    policy = lbw.load(text)
    assert run_trial(policy, policy.tests[0]).passed


def test_a_child_may_draw_the_group_anew(tmp_path: Path) -> None:
    """Imported and inherited signals are taken over the group as the policy that runs declares it."""
    (tmp_path / "shared.lbw").write_text('lbw 1\nlayers part = "head"\nsignal hot = telemetry.grad_norm of part\n')
    base = f'lbw 1\npolicy base {{ }}\nimport "shared.lbw"\nreflex r {{ when hot > 5 do skip }}\n{SKIPS}'
    (tmp_path / "base.lbw").write_text(base)
    child = 'lbw 1\npolicy child { extends "base.lbw" }\nlayers part = "experts.*"\n'
    (tmp_path / "child.lbw").write_text(child)
    policy = lbw.load(tmp_path / "child.lbw")
    assert [signal.key for signal in policy.signals] == ["grad_norm of part"]
    assert [group.globs for group in policy.layers] == [("experts.*",)]
