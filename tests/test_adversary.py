"""Whoever tells the guard its readings, or teaches its risk model, gains no more than is promised."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import pytest
import torch
from adversaries import Flooder, Lie, Phase, Toll, lies, play
from creeping import RATES, RULES, creep, watching
from lying import LIARS, lie
from sabotage import nan_for_ever, train
from torch import nn

import lbw_policy as lbw
from lbw_policy.authority import card
from lbw_policy.errors import StateError
from lbw_policy.machine import Session
from lbw_policy.resources import presets
from lbw_policy.risk.logistic import RADIUS
from lbw_policy.semantics import Policy

WINDOW, WARM, TICKS = 200, 150, 400
TRUTH = Lie("the truth", {})
SMALL = """lbw 1
policy small { }
signal loss = telemetry.loss
signal grad = telemetry.grad_norm
reflex spike { when grad > 5 do skip }
levels normal -> slow -> back
level slow { enter when loss > 5  leave when loss < 4.5 for 3 steps  stay at most 50 steps  do scale_lr by 0.5 }
level back { enter when loss > 50 for 2 steps  leave when loss < 4.5 for 3 steps  stay at most 20 steps
  do rollback at most 20 steps }
limits { scale_lr within [0.2, 1]  skip at most 3 in a row, at most 6 per 200 steps
  rollback at most 20 steps back, at most 2 per 200 steps  intervene at most 60 per 200 steps }
"""


def bounds(policy: Policy, window: int) -> Mapping[str, float]:
    """Return the numbers of the authority card by name; infinite where there is no bound."""
    lines = {line.what: line.value for line in card(policy, window=window).lines}
    return {
        what: math.inf if found is None else float(found)
        for what, found in lines.items()
        if not isinstance(found, tuple)
    }


def keeps(toll: Toll, policy: Policy, window: int) -> None:
    """Assert that a run lost no more than the card says."""
    most = bounds(policy, window)
    assert toll.lost(window) <= most["steps lost in all"]
    assert toll.most(toll.skips, window) <= most["updates skipped"]
    assert toll.most(toll.rollbacks, window) <= most["rollbacks"]
    assert toll.most(toll.begun, window) <= most["interventions in all"]
    assert toll.longest_pause <= most["longest pause"]
    assert min((factor for factor in toll.factors if factor), default=1.0) >= most["lowest lr factor"]
    kept = most["lowest lr factor"] * (1 - min(1.0, most["steps lost in all"] / window))
    assert toll.slowest(window) >= kept - 1e-12


# Floods


@pytest.mark.parametrize("name", presets())
def test_no_flood_takes_more_than_the_card_of_a_preset_says(name: str) -> None:
    """Everything broken for ever, each rule made to act for ever, and rollbacks as late as can be."""
    policy = lbw.load(name)
    known = lies(policy)
    breaks = next(one for one in known if one.name == "NaN in all")
    rules = [one for one in known[1:] if not one.name.startswith("NaN in")]
    wait, back = Phase(TRUTH, 50, "healthy"), Phase(breaks, 12, "rollback")
    late = [(wait, Phase(stir, 100, "late"), back) for stir in rules[-2:]]
    for attack in (*((Phase(one, TICKS),) for one in (breaks, *rules)), *late):
        keeps(play(policy, attack, TICKS, WARM), policy, WINDOW)


def test_a_search_comes_near_to_what_a_policy_can_lose_and_not_beyond() -> None:
    policy = lbw.load(SMALL)
    toll = Flooder(policy, tries=10, ticks=400, warm=60, window=200).worst().toll
    keeps(toll, policy, 200)
    assert toll.lost(200) >= 0.8 * bounds(policy, 200)["steps lost in all"]


def test_an_lr_factor_can_be_held_at_the_floor_for_ever_and_no_lower() -> None:
    """A held factor is bounded by its range, not by a budget: what a policy can lose by it is in its floor."""
    policy = lbw.load(
        "lbw 1 policy held { } signal lr = telemetry.lr"
        " limits { scale_lr within [0.2, 1]  intervene at most 5 per 100 steps }"
        " reflex glitch { when lr > 3 * max(lr, 100 steps) do scale_lr by max(lr, 100 steps) / lr }"
    )
    toll = play(policy, (Phase(Lie("NaN", {"lr": math.nan}), 1_000),), 500, warm=100)
    assert set(toll.factors[100:]) == {0.2}
    assert toll.most(toll.begun) == 1


# Exhaustion, then a strike


def strike(fallback: str) -> Toll:
    """Return a run whose skips are spent on harmless spikes, one in five, before its loss is broken."""
    policy = lbw.load(SMALL.replace("do skip", f"do skip {fallback}"))
    spike, broken = Lie("spike", {"grad": 9.0}), Lie("broken", {"grad": math.nan})
    spend = tuple(part for _ in range(6) for part in (Phase(spike, 1), Phase(TRUTH, 4)))
    return play(policy, (*spend, Phase(broken, 20), Phase(TRUTH, 400)), 400, warm=60)


def test_a_budget_that_was_spent_is_not_there_for_the_strike_and_comes_back() -> None:
    toll = strike("")
    assert sum(toll.skips[:90]) == 6
    assert not any(toll.skips[90:110])
    policy = lbw.load(SMALL)
    again = play(policy, (Phase(Lie("spike", {"grad": 9.0}), 1), Phase(TRUTH, 4)), 500, warm=60)
    assert sum(again.skips) > 6


def test_a_fallback_of_halt_closes_the_gap_that_a_spent_budget_leaves() -> None:
    assert strike("else halt").halted
    assert not strike("else scale_lr by 0.2").halted


def test_sabotaged_data_break_a_run_whose_budget_is_spent_unless_it_may_halt() -> None:
    """A real training under NaN batches for ever: once the budget is spent the weights are lost, or the run halts."""
    found = []
    for fallback in ("", "else halt"):
        policy = lbw.load(
            "lbw 1 policy p { } signal grad = telemetry.grad_norm"
            " limits { skip at most 5 in a row, at most 5 per 100 steps }"
            f" reflex broken {{ when not finite(grad) do skip {fallback} }}"
        )
        run, used, _ = train("gpt", nan_for_ever(start=5), policy, 20)
        assert used.count(0.0) == 5
        found.append((run.halted, math.isfinite(run.held_out())))
    assert found == [(None, False), (10, True)]


# Creeps


@pytest.mark.parametrize("rate", RATES)
def test_a_creep_is_seen_against_the_best_of_a_long_window_and_a_slow_one_not_against_a_short_one(rate: float) -> None:
    seen = {name: creep(watching(rule), ["loss"], rate) for name, rule in RULES.items()}
    long = seen["30 % over the best of 1_000"]
    assert long is not None
    assert long.factor < 1.35 * rate**3
    if rate <= 1.005:
        assert seen["z-score over 32 steps"] is None
        assert seen["30 % over the median of 32"] is None


@pytest.mark.parametrize("name", presets())
def test_every_preset_sees_a_loss_that_creeps_by_five_percent_a_step(name: str) -> None:
    policy = lbw.load(name)
    seen = creep(policy, [one.name for one in policy.signals if one.key == "loss"], 1.05)
    assert seen is not None
    assert seen.factor < 2


# Lies to the risk model


@pytest.mark.parametrize("liar", LIARS)
def test_whoever_lies_to_a_risk_moves_it_no_further_than_its_bound(liar: str) -> None:
    told = lie(LIARS[liar], ticks=1_200)
    assert told.alarms <= told.bound
    assert told.moved <= RADIUS * 1.001
    if liar == "nobody lies":
        assert told.trusted == 1.0
    if liar in ("cries wolf every 60 ticks", "looks like trouble, always"):
        assert told.trusted < 0.9
        assert told.reason


# Saved states from elsewhere

STRANGE = (None, "x", -1, 10**18, 10**400, math.nan, math.inf, 1e308, -0.5, 3, True, [], [9, 1], {"a": 1}, b"x")


def places(state: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each part of a saved state; of a list that of the first part only."""
    inner = state.items() if isinstance(state, dict) else list(enumerate(state))[:1] if isinstance(state, list) else ()
    for key, part in inner:
        yield (*path, key)
        yield from places(part, (*path, key))


def changed(state: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    copied = copy.deepcopy(state)
    inner: Any = copied
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copied


def test_a_state_that_someone_changed_is_refused_or_goes_on_within_the_limits() -> None:
    """Each part of a session's state, replaced by each strange value: `StateError`, or a run like any other."""
    policy = lbw.load(SMALL)
    session = Session(policy)
    for tick in range(60):
        step(session, {"loss": 9.0 if tick > 50 else 4.0, "grad": 9.0 if tick == 40 else 1.0})
    state, taken = session.state_dict(), 0
    for path, value in itertools.product(places(state), STRANGE):
        resumed = Session(policy)
        try:
            resumed.load_state_dict(changed(state, path, value))
        except StateError:
            continue
        taken += 1
        skips = [step(resumed, {"loss": 99.0, "grad": math.nan}) for _ in range(12)]
        assert sum(skips) <= 6
        assert 0.2 <= resumed.limiter.scale <= 1.0
    assert taken > 20


def step(session: Session, values: dict[str, float | None]) -> bool:
    """Take a session through one tick; return whether it skipped."""
    session.begin(values)
    turn = session.decide({}, 1.0)
    session.finish(applied=turn.updates)
    return any(grant.request.action == "skip" for grant in turn.granted)


# What the loop tells

ODD: Mapping[str, object] = {
    "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "denormal": 5e-324, "huge": 1.8e308, "negative": -1e300,
    "a whole number too large for a float": 10**400, "a fraction": Fraction(1, 3), "true": True,
    "a half tensor that overflows": torch.tensor(7e4).half(), "a whole tensor": torch.tensor(2**62),
    "a tensor of NaN": torch.tensor(math.nan),
}  # fmt: skip
WRONG: Mapping[str, object] = {
    "text": "1.0", "nothing": None, "a list": [1.0], "a complex number": 1j, "a complex tensor": torch.tensor(1j),
    "two numbers": torch.zeros(2), "no number": torch.zeros(0), "bytes": b"1", "an object": object(),
}  # fmt: skip


def guarded() -> tuple[nn.Module, torch.optim.Optimizer, lbw.Guard]:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return model, optimizer, lbw.attach(optimizer, SMALL, model=model)


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
def test_any_number_may_be_told_as_a_loss_and_the_run_goes_on_within_its_limits(value: object) -> None:
    model, optimizer, guard = guarded()
    for _ in range(12):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().mean().backward()
        guard.observe(loss=value)
        optimizer.step()
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())
    assert not [one for one in guard.interventions if one.action == "failure"]
    assert guard.progress >= 12 - bounds(guard.policy, 12)["steps lost in all"]


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_what_is_no_number_is_refused_at_once_and_leaves_nothing_behind(value: object) -> None:
    _, _, guard = guarded()
    before = repr(guard.state_dict())
    with pytest.raises(TypeError, match="loss"):
        guard.observe(loss=value)
    assert repr(guard.state_dict()) == before
