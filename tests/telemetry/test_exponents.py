"""The histogram of exponents against plain computation."""

import json
import math
import statistics

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from runs import Net, backward, collector, only, tick
from torch import nn, optim

from lbw_policy.errors import StateError
from lbw_policy.telemetry import Collector, Layers, Plan

SOURCES = ("grad_underflow", "grad_overflow", "exponent_spread", "exponent_kurtosis", "exponent_shift")
LIMITS = {torch.float16: (-14, 15), torch.bfloat16: (-126, 127), torch.float32: (-126, 127)}


def exponent(value: float) -> int:
    """Return the power of two below a number; fp32 knows none under -127."""
    return max(math.frexp(value)[1] - 1, -127)


def truth(values: list[float], dtype: torch.dtype) -> dict[str, float | None]:
    """Return the readings of one gradient, computed by definition."""
    lowest, highest = LIMITS[dtype]
    small = sum(value == 0 or exponent(value) < lowest for value in values)
    finite = [exponent(value) for value in values if value and math.isfinite(value)]
    tall = sum(not math.isfinite(value) or (value != 0 and exponent(value) >= highest - 1) for value in values)
    spread = statistics.pstdev(finite) if finite else None
    fourth = statistics.fmean([(one - statistics.fmean(finite)) ** 4 for one in finite]) if finite else 0.0
    return {
        "grad_underflow": small / len(values),
        "grad_overflow": tall / len(values),
        "exponent_spread": spread,
        "exponent_kurtosis": fourth / spread**4 - 3 if spread else None,
    }


def close(found: dict[str, float | None], expected: dict[str, float | None]) -> bool:
    """Compare readings that may be absent."""
    return all(
        found[name] is None if value is None else found[name] == pytest.approx(value, rel=1e-6, abs=1e-9)
        for name, value in expected.items()
    )


@settings(deadline=None)
@given(
    dtype=st.sampled_from(list(LIMITS)),
    values=st.lists(st.floats(width=32) | st.sampled_from([0.0, 1e-40, 1e-7, 1.0, 6e4, 3e38, math.nan]), min_size=1),
)
def test_shares_and_moments_are_those_of_the_definition(dtype: torch.dtype, values: list[float]) -> None:
    gradient = torch.tensor(values).to(dtype)
    assert close(only([gradient], *SOURCES).values, truth(gradient.float().tolist(), dtype))


def test_half_precision_loses_below_its_own_smallest_normal_number() -> None:
    gradient = torch.tensor([2.0**-24, 2.0**-15, 2.0**-14, 1.0, 0.0, -(2.0**-20)])
    assert only([gradient.half()], "grad_underflow").values["grad_underflow"] == pytest.approx(4 / 6)
    assert only([gradient], "grad_underflow").values["grad_underflow"] == pytest.approx(1 / 6)


def test_of_mixed_types_the_narrowest_sets_the_limits() -> None:
    found = only([torch.ones(3).half(), torch.tensor([1e-6])], "grad_underflow").values
    assert found["grad_underflow"] == pytest.approx(1 / 4)


@settings(deadline=None)
@given(first=st.lists(st.integers(-40, 40), min_size=1, max_size=20), move=st.integers(-30, 30))
def test_a_gradient_that_is_scaled_by_a_power_of_two_has_moved_that_far(first: list[int], move: int) -> None:
    parameter = nn.Parameter(torch.ones(len(first)))
    optimizer = optim.SGD([parameter], lr=0.0)
    found = Collector(optimizer, Layers.of(optimizer), Plan(dict.fromkeys(SOURCES, 1)))
    parameter.grad = torch.tensor([2.0**power for power in first])
    before = found.read(0).values
    parameter.grad = parameter.grad * 2.0**move
    after = found.read(1).values
    assert before["exponent_shift"] is None
    assert after["exponent_shift"] == pytest.approx(abs(move))
    assert after["exponent_spread"] == pytest.approx(before["exponent_spread"], abs=1e-6)


@settings(deadline=None)
@given(
    left=st.lists(st.integers(-20, 20), min_size=1, max_size=12),
    right=st.lists(st.integers(-20, 20), min_size=1, max_size=12),
)
def test_the_shift_is_the_earth_movers_distance(left: list[int], right: list[int]) -> None:
    count = math.lcm(len(left), len(right))
    assume(count <= 200)
    pairs = zip(sorted(left * (count // len(left))), sorted(right * (count // len(right))), strict=True)
    parameter = nn.Parameter(torch.ones(1))
    optimizer = optim.SGD([parameter], lr=0.0)
    ours = []
    for powers in (left, right):
        parameter = nn.Parameter(torch.ones(len(powers)))
        optimizer = optim.SGD([parameter], lr=0.0)
        parameter.grad = torch.tensor([2.0**power for power in powers])
        found = Collector(optimizer, Layers.of(optimizer), Plan({"exponent_shift": 1}))
        if ours:
            found.load_state_dict(ours[0].state_dict())
        ours.append(found)
        values = found.read(len(ours)).values
    assert values["exponent_shift"] == pytest.approx(statistics.fmean(abs(one - other) for one, other in pairs))


def test_a_change_of_the_loss_scale_is_no_shift() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = optim.SGD([parameter], lr=0.0)
    found = Collector(optimizer, Layers.of(optimizer), Plan({"exponent_shift": 1}))
    for number, scale in enumerate((2.0**16, 2.0**15, 2.0**17)):
        parameter.grad = torch.tensor([1.0, 2.0, 4.0]) * scale
        optimizer.grad_scale = torch.tensor(scale)
        readings = found.read(number)
    assert readings.values["exponent_shift"] == 0


def test_broken_and_missing_gradients_leave_no_trace_in_the_moments() -> None:
    clean = only([torch.tensor([1.0, 2.0, 8.0])], *SOURCES).values
    dirty = only([torch.tensor([1.0, 2.0, 8.0, math.nan, -math.inf]), None], *SOURCES).values
    assert dirty["exponent_spread"] == clean["exponent_spread"]
    assert dirty["grad_overflow"] == pytest.approx(2 / 5)
    assert only([None], *SOURCES).values == dict.fromkeys(SOURCES)


def test_gradients_that_are_all_zero_have_no_exponents() -> None:
    found = only([torch.zeros(4)], *SOURCES).values
    assert found == {"grad_underflow": 1.0, "grad_overflow": 0.0} | dict.fromkeys(SOURCES[2:])


def test_large_tensors_count_by_what_their_sample_stands_for() -> None:
    tall, small = torch.full((50_000,), 4.0), torch.ones(50)
    found = only([tall, small], "exponent_spread").values["exponent_spread"]
    share = 50 / 50_050
    assert found == pytest.approx(2 * math.sqrt(share * (1 - share)), rel=0.1)


def test_the_last_histogram_survives_a_text_file() -> None:
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    found, resumed = collector(model, optimizer, *SOURCES), collector(model, optimizer, *SOURCES)
    backward(model, optimizer, 0)
    tick(found, optimizer, 0)
    resumed.load_state_dict(json.loads(json.dumps(found.state_dict())))
    backward(model, optimizer, 1)
    assert resumed.read(1).values == found.read(1).values


@pytest.mark.parametrize(
    "state", [{"counts": [1.0]}, {"counts": [1.0] * 257}, {"counts": [-1.0] * 257, "scale": 1.0}, {"scale": 1.0}]
)
def test_a_damaged_histogram_is_refused(state: dict[str, object]) -> None:
    model = Net()
    found = collector(model, optim.SGD(model.parameters()), *SOURCES)
    with pytest.raises(StateError, match="saved telemetry"):
        found.load_state_dict({"tick": 1, "layers": {}, "motion": {}, "exponents": state})
