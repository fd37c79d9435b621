"""The largest attention logit against plain computation."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch.nn import functional

from lbw_policy.errors import AttachError
from lbw_policy.lab.gpt import Gpt, GptShape
from lbw_policy.telemetry import Collector, Layers, Plan, Readings, attention

SIGNAL = "attention_logit_max"


class Attends(nn.Module):
    """Attention of given queries and keys, called as the test says."""

    def __init__(self, call: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.call = call

    def forward(self, *tensors: Tensor) -> Tensor:
        """Return whatever the call returns."""
        return self.call(*(tensor * self.weight for tensor in tensors))


def collector(model: nn.Module, every: int = 1) -> Collector:
    """Return a collector of the largest logit."""
    optimizer = optim.SGD(model.parameters(), lr=0.0)
    return Collector(optimizer, Layers.of(optimizer, model), Plan({SIGNAL: every}))


def read(model: nn.Module, *tensors: Tensor) -> Readings:
    """Return the reading of one forward pass."""
    found = collector(model)
    model(*tensors)
    return found.read(0)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Return random numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sdpa(**options: object) -> Attends:
    """Return a model that calls the fused attention."""
    return Attends(lambda q, k: functional.scaled_dot_product_attention(q, k, k, **options))


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    causal=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_small_attention_is_read_exactly(sizes: tuple[int, int, int, int], causal: bool, seed: int) -> None:
    batch, heads, length, keys = sizes
    query, key = draw(batch, heads, length, 8, seed=seed), draw(batch, heads, keys, 8, seed=seed + 10)
    logits = query @ key.transpose(-1, -2) / math.sqrt(8)
    if causal:
        logits = logits.masked_fill(torch.ones(length, keys).triu(1).bool(), -math.inf)
    found = read(sdpa(is_causal=causal), query, key).values[SIGNAL]
    assert found == pytest.approx(float(logits.max()), rel=1e-5)


@pytest.mark.parametrize("mask", [torch.ones(6, 6).tril().bool(), torch.linspace(-9, 9, 36).reshape(6, 6)])
def test_masks_count(mask: Tensor) -> None:
    query, key = draw(2, 3, 6, 8), draw(2, 3, 6, 8, seed=1)
    added = torch.zeros(6, 6).masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else mask
    expected = float((query @ key.transpose(-1, -2) / math.sqrt(8) + added).max())
    assert read(sdpa(attn_mask=mask), query, key).values[SIGNAL] == pytest.approx(expected, rel=1e-5)


def test_a_scale_of_its_own_and_shared_keys_count() -> None:
    query, key = draw(2, 4, 6, 8), draw(2, 2, 6, 8, seed=1)
    expected = float((query @ key.repeat_interleave(2, 1).transpose(-1, -2) * 0.7).max())
    found = read(sdpa(scale=0.7, enable_gqa=True), query, key).values[SIGNAL]
    assert found == pytest.approx(expected, rel=1e-5)


def test_attention_written_out_is_read_at_its_softmax() -> None:
    query, key = draw(2, 3, 6, 8), draw(2, 3, 6, 8, seed=1)
    logits = query @ key.transpose(-1, -2)
    found = read(Attends(lambda q, k: (q @ k.transpose(-1, -2)).softmax(-1) @ k), query, key).values[SIGNAL]
    assert found == pytest.approx(float(logits.max()), rel=1e-6)


@pytest.mark.parametrize("weights", [True, False])
def test_torchs_own_module_is_read_either_way(weights: bool) -> None:
    model = nn.MultiheadAttention(16, 2, batch_first=True)
    inputs = draw(2, 5, 16)
    model_inputs = inputs @ model.in_proj_weight.detach().T
    query, key = (part.view(2, 5, 2, 8).transpose(1, 2) for part in model_inputs.split(16, -1)[:2])
    expected = float((query @ key.transpose(-1, -2) / math.sqrt(8)).max())
    found = collector(model)
    model(inputs, inputs, inputs, need_weights=weights)
    assert found.read(0).values[SIGNAL] == pytest.approx(expected, rel=1e-5)


def test_the_largest_of_all_layers_counts() -> None:
    model = Gpt(GptShape(width=16, layers=3, heads=2, context=8, vocabulary=11))
    with torch.no_grad():
        model.blocks[1].qkv.weight.mul_(30)
    kept: list[Tensor] = []
    model.blocks[1].qkv.register_forward_hook(lambda _module, _inputs, output: kept.append(output.detach()))
    found = read(model, torch.randint(11, (3, 8), generator=torch.Generator().manual_seed(0))).values[SIGNAL]
    query, key, _ = kept[0].view(3, 8, 3, 2, 8).permute(2, 0, 3, 1, 4)
    logits = (query @ key.transpose(-1, -2) / math.sqrt(8)).masked_fill(torch.ones(8, 8).triu(1).bool(), -math.inf)
    assert found == pytest.approx(float(logits.max()), rel=1e-5)


def test_of_a_large_attention_the_longest_queries_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "LOGIT_SAMPLE", 2 * 2 * 16 * 4)
    query, key = draw(2, 2, 16, 8), draw(2, 2, 16, 8, seed=1)
    query[1, 0, 5] *= 40
    expected = float((query @ key.transpose(-1, -2) / math.sqrt(8)).max())
    assert read(sdpa(), query, key).values[SIGNAL] == pytest.approx(expected, rel=1e-5)
    quiet = float((draw(2, 2, 16, 8) @ key.transpose(-1, -2) / math.sqrt(8)).max())
    assert 0 < read(sdpa(), draw(2, 2, 16, 8), key).values[SIGNAL] <= quiet * (1 + 1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_logits_are_not_hidden(bad: float) -> None:
    query, key = draw(1, 1, 4, 8).abs(), draw(1, 1, 4, 8, seed=1).abs()
    query[0, 0, 2, 3] = bad
    assert not math.isfinite(read(sdpa(), query, key).values[SIGNAL])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision_is_read(dtype: torch.dtype) -> None:
    query = torch.full((1, 1, 2, 4), 2.0, dtype=dtype)
    assert read(sdpa(), query, query).values[SIGNAL] == pytest.approx(8.0)


def test_watching_changes_no_bit_and_leaves_no_mode_behind() -> None:
    torch.manual_seed(0)
    model = Gpt(GptShape(width=16, layers=2, heads=2, context=8, vocabulary=11))
    twin, tokens = copy.deepcopy(model), torch.randint(11, (3, 8))
    collector(model)
    for each in (model, twin):
        each(tokens).sum().backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_a_forward_pass_that_fails_is_not_watched_for_ever() -> None:
    model = Attends(lambda _: 1 / 0)
    collector(model)
    with pytest.raises(ZeroDivisionError):
        model(torch.ones(1))
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_a_failing_measurement_spares_the_pass_and_becomes_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> Tensor:
        raise RuntimeError("no logits today")

    monkeypatch.setattr(attention, "_fused_logit", fail)
    model = sdpa()
    found = collector(model)
    assert model(draw(1, 1, 4, 8), draw(1, 1, 4, 8)).shape == (1, 1, 4, 8)
    readings = found.read(0)
    assert readings.values == {SIGNAL: None}
    (note,) = readings.notes
    assert "no logits today" in note
    assert "guard.observe(attention_logit_max=...)" in note
    model(draw(1, 1, 4, 8), draw(1, 1, 4, 8))
    assert found.read(1).notes == ()


def test_only_passes_before_due_ticks_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = []
    kept = attention._fused_logit
    monkeypatch.setattr(attention, "_fused_logit", lambda found: watched.append(1) or kept(found))
    model = sdpa()
    found = collector(model, every=3)
    seen = []
    for tick in range(7):
        model(draw(1, 1, 4, 8), draw(1, 1, 4, 8))
        seen.append(found.read(tick).values[SIGNAL] is not None)
    assert seen == [True, False, False, True, False, False, True]
    assert len(watched) == 3


def test_evaluation_passes_are_not_watched_and_the_last_training_pass_counts() -> None:
    model = sdpa()
    found = collector(model)
    small, tall = torch.ones(1, 1, 2, 4), torch.full((1, 1, 2, 4), 3.0)
    model(tall, tall)
    model(small, small)
    model.eval()
    model(tall, tall)
    assert found.read(0).values[SIGNAL] == pytest.approx(2.0)


def test_a_model_without_attention_is_told_of_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Softmax(dim=-1))
    found, notes = collector(model), []
    for tick in range(3):
        model(torch.ones(2, 3, 4))
        readings = found.read(tick)
        notes += readings.notes
        assert readings.values == {SIGNAL: None}
    assert len(notes) == 1
    assert "no attention was seen" in notes[0]


def test_a_compiled_model_stays_compiled_and_is_told_of() -> None:
    model, graphs = sdpa(), []
    found = collector(model)
    compiled = torch.compile(model, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    for tick in range(3):
        compiled(draw(1, 1, 4, 8), draw(1, 1, 4, 8))
        assert found.read(tick).values == {SIGNAL: None}
    assert len(graphs) == 1


def test_a_model_with_a_compiled_part_is_left_alone() -> None:
    model = nn.Sequential(Attends(lambda q: functional.scaled_dot_product_attention(q, q, q)))
    model[0].compile(backend="eager")
    found = collector(model)
    model(draw(1, 1, 4, 8))
    readings = found.read(0)
    assert readings.values == {SIGNAL: None}
    assert readings.notes


def test_what_the_loop_tells_counts() -> None:
    found = collector(nn.Linear(2, 2))
    found.observe({SIGNAL: 12.5})
    assert found.read(0).values == {SIGNAL: 12.5}


def test_detaching_removes_the_hooks() -> None:
    model = sdpa()
    collector(model).detach()
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_the_model_is_needed() -> None:
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))])
    with pytest.raises(AttachError, match="model"):
        Collector(optimizer, Layers.of(optimizer), Plan({SIGNAL: 1}))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_are_read(reentrant: bool) -> None:
    inner = sdpa(is_causal=True)
    query, key = draw(1, 1, 4, 8), draw(1, 1, 4, 8, seed=1)
    model = Attends(lambda q, k: torch.utils.checkpoint.checkpoint(inner, q, k, use_reentrant=reentrant))
    found = collector(model)
    model(query, key).sum().backward()
    assert found.read(0).values[SIGNAL] == read(inner, query, key).values[SIGNAL]
