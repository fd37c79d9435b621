"""What is not due is not computed, and nothing but the one transfer reads from the device."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import Mixed, tokens
from torch import nn, optim
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lbw_policy.semantics.signals import SIGNALS, Need
from lbw_policy.telemetry import Collector, Layers, Plan
from lbw_policy.telemetry.readings import Packet

TOLD = ("loss",)
DOUBLE = ("gradient_curvature", "hessian_trace")
MEASURED = [name for name in SIGNALS if name not in (*TOLD, *DOUBLE)]
SYNCING = ("_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero", "_assert_async")


class Counting(TorchDispatchMode):
    """Counts every operation by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401 - torch's own
        """Count and run."""
        self.counts[func._schema.name.removeprefix("aten::")] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count operations."""
    mode = Counting()
    with mode:
        yield mode.counts


def collector(model: nn.Module, optimizer: optim.Optimizer, *names: str, every: int = 1) -> Collector:
    """Return a collector of the given signals."""
    return Collector(optimizer, Layers.of(optimizer, model), Plan(dict.fromkeys(names, every)))


def step(model: nn.Module, optimizer: optim.Optimizer, found: Collector, number: int) -> None:
    """Train one step, all of it told to the collector."""
    optimizer.zero_grad()
    scores = model(tokens(number))
    loss = nn.functional.cross_entropy(scores.flatten(0, 1), tokens(number).flatten())
    found.curvature(loss)
    loss.backward()


def test_every_signal_has_a_reading_on_a_model_that_has_everything() -> None:
    model = Mixed()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    found = collector(model, optimizer, *SIGNALS)
    absent: Counter[str] = Counter()
    for number in range(8):
        found.observe({"loss": 1.0})
        with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
            step(model, optimizer, found, number)
        absent.update(name for name, value in found.read(number).values.items() if value is None)
        optimizer.step()
    assert {name for name, count in absent.items() if count > 2} <= {"overshoot"}
    assert absent["overshoot"] < 8


def test_a_tick_of_all_signals_reads_from_the_device_in_one_place_only() -> None:
    model = Mixed()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    found = collector(model, optimizer, *MEASURED)
    transfers, kept = [], torch.Tensor.tolist
    for number in range(4):
        step(model, optimizer, found, number)
        with counted() as counts, pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", lambda self: transfers.append(1) or kept(self))
            found.read(number)
        assert not [name for name in counts if name in SYNCING]
        optimizer.step()
    assert len(transfers) == 4


def test_no_value_of_a_tensor_decides_what_a_tick_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake tensor has no numbers: whatever asks for one raises."""

    def unpack(self: Packet) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for name, tensor in (part for parts in self._parts.values() for part in parts):
            found.setdefault(name, []).extend([1.0] * tensor.numel())
        return found

    def pointer(self: torch.Tensor) -> int:
        return id(self)

    monkeypatch.setattr(Packet, "unpack", unpack)
    monkeypatch.setattr(torch.Tensor, "data_ptr", pointer)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = Mixed()
        optimizer = optim.AdamW(model.parameters(), lr=1e-3, foreach=True)
        found = collector(model, optimizer, *MEASURED)
        for number in range(3):
            step(model, optimizer, found, number)
            values = found.read(number).values
            optimizer.step()
        with pytest.raises(DataDependentOutputException):
            model(tokens(0)).sum().item()
    assert {name for name, value in values.items() if value is None} <= {"overshoot"}


@pytest.mark.parametrize("name", MEASURED)
def test_a_signal_costs_nothing_in_ticks_that_need_it_not(name: str) -> None:
    model = Mixed()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    plain = Mixed()
    with counted() as unwatched:
        plain(tokens(0))
    found = collector(model, optimizer, name, every=4)
    work = []
    for number in range(7):
        optimizer.zero_grad()
        with counted() as forward:
            scores = model(tokens(number))
        nn.functional.cross_entropy(scores.flatten(0, 1), tokens(number).flatten()).backward()
        with counted() as reading:
            found.read(number)
        work.append((sum(forward.values()) > sum(unwatched.values()), sum(reading.values()) > 0))
        optimizer.step()
    hooked = SIGNALS[name].need is Need.MODEL
    assert not any(any(work[number]) for number in (1, 2, 5, 6))
    assert work[4] == (hooked, name not in ("lr", "step_time"))


def test_readings_of_different_signals_share_their_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Mixed()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    names = [name for name in MEASURED if SIGNALS[name].need is Need.OPTIMIZER]
    found = collector(model, optimizer, *names)
    step(model, optimizer, found, 0)
    found.read(0)
    optimizer.step()
    step(model, optimizer, found, 1)
    with counted() as counts:
        found.read(1)
    assert counts["_foreach_norm"] == 2  # gradients and weights
    assert counts["_foreach_copy_"] == 4  # gradients, weights, momentum, second moments


def test_what_nothing_asks_for_is_not_even_made() -> None:
    model = Mixed()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    found = collector(model, optimizer, "lr", "grad_norm")
    sources = found._sources
    assert (sources.sampler, sources.motion, sources.exponents, sources.hessian) == (None,) * 4
    assert (sources.activations, sources.attention, sources.routers) == (None,) * 3
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_memory_stands_still() -> None:
    model = Mixed()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    found = collector(model, optimizer, *(name for name in MEASURED if SIGNALS[name].need is Need.OPTIMIZER))
    step(model, optimizer, found, 0)
    sizes = []
    for number in range(60):
        found.read(number)
        buffers = found._sources.sampler._buffers
        sizes.append(sum(len(pair) for pair in buffers.values()))
    assert len(set(sizes[5:])) == 1


STEADY = [name for name in MEASURED if name not in ("exponent_shift", "step_time")]


@settings(deadline=None, max_examples=12)
@given(every=st.fixed_dictionaries({name: st.integers(1, 4) for name in STEADY}))
def test_how_often_others_are_read_changes_no_reading(every: dict[str, int]) -> None:
    model = Mixed()
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    layers = Layers.of(optimizer, model)
    always, sometimes = (Collector(optimizer, layers, Plan(plan)) for plan in (dict.fromkeys(STEADY, 1), every))
    for number in range(9):
        step(model, optimizer, always, number)
        expected, found = always.read(number).values, sometimes.read(number).values
        for name in STEADY:
            if number % every[name] or expected[name] is None:
                assert found[name] is None
            else:
                assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-7)
        optimizer.step()
