"""Forward hooks against plain computation."""

import copy
import math

import pytest
import torch
from runs import ACTIVATION_SOURCES, Net, collector, tokens
from torch import nn, optim

from lbw_policy.telemetry import Collector, Layers, Plan, Stopwatch


class Emits(nn.Module):
    """A layer whose output is whatever the test says."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.output = output

    def forward(self) -> object:
        """Return the given output."""
        return self.output


def read(*outputs: object) -> dict[str, float | None]:
    """Return the activation readings of one pass through layers with the given outputs."""
    model = nn.ModuleList(Emits(output) for output in outputs)
    found = collector(model, optim.SGD(model.parameters()), *ACTIVATION_SOURCES)
    for layer in model:
        assert layer() is layer.output
    return dict(found.read(1).values)


def test_small_outputs_are_measured_exactly() -> None:
    quiet, loud = torch.linspace(-1, 1, 99), torch.linspace(-1, 1, 400)
    loud[7] = 50.0
    rms = loud.square().mean().sqrt()
    assert read(quiet, loud) == pytest.approx(
        {
            "activation_variance": float(loud.var(correction=0)),
            "activation_outliers": 1 / 400,
            "activation_max": float(50 / rms),
        },
        rel=1e-5,
    )


def test_large_outputs_are_estimated_from_a_sample_that_sees_every_channel() -> None:
    output = torch.randn(64, 128, 256, generator=torch.Generator().manual_seed(0))
    output[..., 3] = 40.0
    found = read(output)
    assert found["activation_variance"] == pytest.approx(float(output.var()), rel=0.1)
    rms = output.square().mean().sqrt()
    assert found["activation_outliers"] == pytest.approx(float((output.abs() > 6 * rms).float().mean()), rel=0.1)


@pytest.mark.parametrize(
    "permuted", [torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1), torch.ones(3, 1).expand(3, 4)]
)
def test_outputs_in_any_layout_are_measured(permuted: torch.Tensor) -> None:
    assert read(permuted)["activation_variance"] == pytest.approx(float(permuted.var(correction=0)), rel=1e-5)


@pytest.mark.parametrize("wrap", [lambda t: (t, None), lambda t: [t], lambda t: {"last": t}, lambda t: (None, t)])
def test_the_first_tensor_of_a_collection_counts(wrap: object) -> None:
    assert read(wrap(torch.tensor([1.0, 3.0])))["activation_variance"] == 1.0


@pytest.mark.parametrize(
    "output", [None, "text", (), torch.ones(3, dtype=torch.int64), torch.ones(0), torch.ones(2).to_sparse(), 5]
)
def test_outputs_without_real_numbers_are_ignored(output: object) -> None:
    assert read(output) == dict.fromkeys(ACTIVATION_SOURCES)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_outputs_are_never_hidden_by_a_healthy_layer(bad: float) -> None:
    found = read(torch.ones(5), torch.tensor([1.0, bad]), torch.ones(5))
    assert not math.isfinite(found["activation_variance"])
    assert not math.isfinite(found["activation_max"])


def test_a_layer_that_gives_only_zeros_is_quiet_and_not_unknown() -> None:
    assert read(torch.zeros(9)) == dict.fromkeys(ACTIVATION_SOURCES, 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_measured(dtype: torch.dtype) -> None:
    assert read(torch.tensor([200.0, -200.0], dtype=dtype))["activation_variance"] == pytest.approx(4e4)


def test_evaluation_passes_are_ignored_and_the_last_training_pass_counts() -> None:
    layer = Emits(torch.tensor([1.0, 3.0]))
    found = collector(layer, optim.SGD(layer.parameters()), "activation_variance")
    layer()
    layer.output = torch.tensor([1.0, 5.0, 3.0, 3.0])
    layer()
    layer.eval()
    layer.output = torch.tensor([1.0, 100.0])
    layer()
    assert found.read(1).values["activation_variance"] == 2.0
    assert found.read(2).values["activation_variance"] is None


def test_nothing_is_sampled_in_ticks_that_do_not_report() -> None:
    layer = Emits(torch.ones(3))
    optimizer = optim.SGD(layer.parameters())
    found = Collector(
        optimizer, Layers.of(optimizer, layer), Plan({"activation_variance": 3}, frozenset({"activation_variance"}))
    )
    seen = []
    for number in range(1, 8):
        layer.output = torch.tensor([0.0, 2.0 * number])
        layer()
        readings = found.read(number)
        seen.append((readings.values["activation_variance"], readings.layers["activation_variance"].get("root")))
    assert seen == [(None, None), (None, None), (9.0, 9.0), (None, 9.0), (None, 9.0), (36.0, 36.0), (None, 36.0)]


def test_without_need_there_is_no_hook_and_after_detach_none_is_left() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters())
    collector(model, optimizer, "grad_norm")
    assert not any(module._forward_hooks for module in model.modules())
    found = collector(model, optimizer, "activation_max")
    assert all(module._forward_hooks for module in Layers.of(optimizer, model).modules.values())
    found.detach()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_watched_model_computes_the_same_and_can_be_copied() -> None:
    model, plain = Net(), Net()
    optimizer = optim.SGD(model.parameters())
    found = collector(model, optimizer, *ACTIVATION_SOURCES)
    assert torch.equal(model(tokens(0)), plain(tokens(0)))
    twin = copy.deepcopy(model)
    found.read(1)
    assert torch.equal(twin(tokens(1)), plain(tokens(1)))
    assert found.read(2).values["activation_variance"] is None


def test_a_failing_hook_spares_the_forward_pass_and_shows_in_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    found = collector(model, optim.SGD(model.parameters()), "activation_max")

    def fail(*_: object) -> None:
        raise RuntimeError("no sample today")

    monkeypatch.setattr("lbw_policy.telemetry.activations._sample_into", fail)
    model(tokens(0))
    with pytest.raises(RuntimeError, match="no sample today"):
        found.read(1)


@pytest.mark.parametrize("watch", [None, Stopwatch()])
def test_a_compiled_model_is_sampled_in_one_graph_for_changing_shapes(watch: Stopwatch | None) -> None:
    """Nor does a guard that measures its own time break the graph: what runs inside it is not measured."""
    model, graphs = Net(), []

    def count(module: torch.fx.GraphModule, _: object) -> object:
        graphs.append(module)
        return module.forward

    optimizer, plan = optim.SGD(model.parameters()), Plan(dict.fromkeys(ACTIVATION_SOURCES, 2))
    found = Collector(optimizer, Layers.of(optimizer, model), plan, watch)
    compiled = torch.compile(model, backend=count, fullgraph=True)
    for number in range(8):
        compiled(torch.randint(11, (4, 5 + number)))
        readings = found.read(number).values
        assert (readings["activation_variance"] is not None) == (number % 2 == 0)
    assert len(graphs) <= 2
