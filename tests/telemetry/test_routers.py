"""Routers of a mixture of experts against plain counting."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, optim

from lbw_policy.errors import AttachError
from lbw_policy.telemetry import Collector, Layers, Plan
from lbw_policy.telemetry.routers import routers_of

SOURCES = ("router_load", "router_entropy", "router_dead")


class Router(nn.Module):
    """A router that scores as the test says."""

    def __init__(self, experts: int, output: object = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(experts, 2))
        self.output = output

    def forward(self) -> object:
        """Return the given scores."""
        return self.output


class Mixture(nn.Module):
    """A block with a router, sending each token to some experts."""

    def __init__(self, router: nn.Module, top_k: int = 1, name: str = "gate") -> None:
        super().__init__()
        self.top_k = top_k
        self.add_module(name, router)
        self.gate_proj = nn.Linear(2, 4)

    def forward(self) -> object:
        """Route."""
        return next(self.children())()


def collector(model: nn.Module, *sources: str, every: int = 1, groups: object = None) -> Collector:
    """Return a collector of routers."""
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    plan = Plan(dict.fromkeys(sources or SOURCES, every), groups=groups or {})
    return Collector(optimizer, Layers.of(optimizer, model), plan)


def truth(scores: list[list[float]], top_k: int) -> dict[str, float]:
    """Return the three readings, token by token."""
    experts, counts, entropies = len(scores[0]), Counter[int](), []
    for row in scores:
        counts.update(sorted(range(experts), key=lambda expert: -row[expert])[:top_k])
        weights = [math.exp(score - max(row)) for score in row]
        shares = [weight / sum(weights) for weight in weights]
        entropies.append(-sum(share * math.log(share) for share in shares if share))
    return {
        "router_load": max(counts.values()) * experts / counts.total(),
        "router_entropy": sum(entropies) / len(entropies) / math.log(experts),
        "router_dead": sum(not counts[expert] for expert in range(experts)),
    }


def scores(experts: int) -> st.SearchStrategy[list[list[float]]]:
    """Draw the scores of some tokens, no two of a token alike."""
    row = st.lists(st.integers(-17, -1), min_size=experts, max_size=experts, unique=True)
    return st.lists(row.map(lambda r: [float(x) for x in r]), min_size=1, max_size=20)


@settings(deadline=None)
@given(data=st.data(), experts=st.integers(2, 8))
def test_every_token_is_counted_where_it_is_sent(data: st.DataObject, experts: int) -> None:
    top_k, drawn = data.draw(st.integers(1, experts)), data.draw(scores(experts))
    model = Mixture(Router(experts, torch.tensor(drawn)), top_k)
    found = collector(model)
    model()
    assert found.read(0).values == pytest.approx(truth(drawn, top_k), rel=1e-4, abs=1e-6)


def test_all_passes_of_a_step_add_up() -> None:
    passes = [[[1.0, 0.0, -1.0]], [[0.0, 2.0, 1.0], [3.0, 1.0, 2.0]]]
    router = Router(3)
    model = Mixture(router)
    found = collector(model)
    for part in passes:
        router.output = torch.tensor([part])
        model()
    assert found.read(0).values == pytest.approx(truth([row for part in passes for row in part], 1), rel=1e-5)
    model()
    assert found.read(1).values == pytest.approx(truth(passes[1], 1), rel=1e-5)


def test_a_balanced_router_and_a_collapsed_one() -> None:
    even, lost = Router(4, torch.eye(4) * 1e-4), Router(4, torch.tensor([[9.0, 0, 0, 0]] * 8))
    model = nn.ModuleDict({"first": Mixture(even), "second": Mixture(lost)})
    groups = {"first": frozenset({"first.gate"}), "second": frozenset({"second.gate"})}
    keys = [f"{source} of {group}" for source in SOURCES for group in groups]
    found = collector(model, *SOURCES, *keys, groups=groups)
    for block in model.values():
        block()
    values = found.read(0).values
    assert values["router_load of first"] == pytest.approx(1.0)
    assert values["router_load of second"] == values["router_load"] == pytest.approx(4.0)
    assert values["router_entropy of first"] == pytest.approx(1.0, abs=1e-6)
    assert values["router_entropy"] == values["router_entropy of second"] < 0.01
    assert (values["router_dead of first"], values["router_dead of second"], values["router_dead"]) == (0, 3, 3)


def test_probabilities_and_logits_of_the_same_routing_agree() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])
    readings = []
    for output in (logits, logits.softmax(-1)):
        model = Mixture(Router(3, output))
        found = collector(model)
        model()
        readings.append(found.read(0).values)
    assert readings[0] == pytest.approx(readings[1], rel=1e-5)


@pytest.mark.parametrize(
    "wrap", [lambda t: (t, None), lambda t: (torch.ones(2, 1), t), lambda t: {"logits": t}, lambda t: [t.int(), t]]
)
def test_scores_are_found_among_other_outputs(wrap: object) -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])
    model = Mixture(Router(3, wrap(logits)))
    found = collector(model)
    model()
    assert found.read(0).values == pytest.approx(truth(logits.tolist(), 1), rel=1e-5)


@pytest.mark.parametrize("output", [None, torch.ones(3, 2), (torch.ones(3, 1),), "text", torch.ones(0, 3)])
def test_a_router_that_gives_no_score_an_expert_is_told_of_once(output: object) -> None:
    model = Mixture(Router(3, output))
    found, notes = collector(model), []
    for tick in range(3):
        model()
        readings = found.read(tick)
        notes += readings.notes
        assert readings.values == dict.fromkeys(SOURCES)
    assert len(notes) == 1
    assert "`gate`" in notes[0]


def test_a_nan_score_is_not_hidden() -> None:
    model = Mixture(Router(2, torch.tensor([[math.nan, 1.0], [0.0, 1.0]])))
    found = collector(model)
    model()
    assert math.isnan(found.read(0).values["router_entropy"])


def test_a_failing_count_spares_the_pass_and_becomes_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Tensor:
        raise RuntimeError("no counting today")

    monkeypatch.setattr("lbw_policy.telemetry.routers._routed", fail)
    model = Mixture(Router(2, torch.ones(3, 2)))
    found = collector(model)
    model()
    (note,) = found.read(0).notes
    assert "no counting today" in note


def test_only_due_ticks_count_and_only_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Mixture(Router(2, torch.tensor([[0.0, 1.0]])))
    found = collector(model, every=2)
    seen = []
    for tick in range(5):
        model.train(tick != 4)
        model()
        seen.append(found.read(tick).values["router_dead"])
    assert seen == [1, None, 1, None, None]


@pytest.mark.parametrize("name", ["router", "gate", "gating"])
def test_routers_are_found_by_name_and_know_how_many_experts_they_choose(name: str) -> None:
    model = nn.ModuleList([Mixture(nn.Linear(2, 5, bias=False), top_k=2, name=name)])
    (found,) = routers_of(model).items()
    assert found[0] == f"0.{name}"
    assert (found[1].experts, found[1].choices) == (5, 2)


def test_the_projection_of_a_gated_block_is_no_router() -> None:
    assert set(routers_of(Mixture(nn.Linear(2, 5)))) == {"gate"}


def test_a_router_with_a_layer_inside_counts_once() -> None:
    router = nn.Sequential()
    router.add_module("gate", nn.Linear(2, 6))
    assert set(routers_of(Mixture(router, name="router"))) == {"router"}


def test_a_model_without_routers_is_refused() -> None:
    with pytest.raises(AttachError, match="`router_load` needs a router: no module of the model is called `router`"):
        collector(nn.Linear(2, 2), "router_load")


def test_detaching_removes_the_hooks() -> None:
    model = Mixture(Router(2, torch.ones(3, 2)))
    collector(model).detach()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_compiled_router_is_counted_in_one_graph() -> None:
    model, graphs = nn.Sequential(), []
    model.add_module("gate", nn.Linear(2, 3))
    found = collector(model)
    compiled = torch.compile(model, backend=lambda graph, _: graphs.append(graph) or graph.forward, fullgraph=True)
    for tick in range(3):
        inputs = torch.randn(5, 2, generator=torch.Generator().manual_seed(tick))
        drawn = compiled(inputs)
        assert found.read(tick).values == pytest.approx(truth(drawn.tolist(), 1), rel=1e-5)
    assert len(graphs) == 1
