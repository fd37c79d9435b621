"""The authority card: no run does more than it says, and some do exactly as much."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.authority import Card, card
from lbw_policy.authority.allowance import Allowance, most
from lbw_policy.limits import Limiter, Outcome, Request, Situation
from lbw_policy.machine import Session
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Constant
from tests.authority.controlled import Run, calm, controlled, hostile_run, longest, only
from tests.strategies import limit_sets

INTERVENTIONS = ("skip", "clip", "scale_lr", "rollback", "freeze", "reset_moments", "boost", "nudge", "unlimited")


def values(found: Card) -> dict[str, float]:
    """Return the bounds by name; what is not bounded is infinite."""
    return {line.what: float("inf") if line.value is None else line.value for line in found.lines}  # type: ignore[misc] # of the lines compared here


# No run does more


@settings(max_examples=150, deadline=None)
@given(controlled(), st.integers(0, 2**32), st.integers(1, 40))
def test_no_run_goes_beyond_the_card(policy: p.Policy, seed: int, window: int) -> None:
    run, most = hostile_run(policy, seed, 120), values(card(policy, window=window))
    skips, done = run.begun("skip"), [{one.request.action for one in grants} for grants in run.grants]
    frozen = [one.amount or 0.0 for grants in run.grants for one in grants if one.request.action == "freeze"]
    assert min(run.scales) >= most["lowest lr factor"]
    assert longest([count > 0 for count in skips]) <= most["skipped in a row"]
    assert run.most(skips, window) <= most["updates skipped"]
    assert run.most(run.begun("rollback"), window) <= most["rollbacks"]
    assert max(run.behind) <= most["farthest rollback"]
    assert run.lost(window) <= most["steps lost in all"]
    assert window - run.lost(window) >= window * most["progress kept"] - 1e-9 or not most["progress kept"]
    assert longest([not actions.isdisjoint({"skip", "rollback"}) for actions in done]) <= most["longest pause"]
    assert max(frozen, default=0.0) <= most["layers frozen"]
    assert longest(["freeze" in actions for actions in done]) <= most["frozen for"]
    for action, what in (("clip", "clips"), ("reset_moments", "moments reset"), ("checkpoint", "checkpoints")):
        assert run.most(run.begun(action), window) <= most[what]
    for limit in policy.limits.custom:
        assert run.most(run.begun(limit.name), window) <= most[f"plugin `{limit.name}`"]
    assert run.most(run.begun(*INTERVENTIONS), window) <= most["interventions in all"]


@settings(max_examples=150, deadline=None)
@given(controlled(), st.integers(0, 2**32), st.integers(1, 90))
def test_no_run_moves_through_the_levels_otherwise_than_the_card_says(policy: p.Policy, seed: int, ticks: int) -> None:
    run, most = hostile_run(policy, seed, ticks), values(card(policy))
    for level in range(1, len(policy.levels)):
        assert longest([one == level for one in run.levels]) <= most["in one level"]
    assert longest([one > 0 for one in run.levels]) <= most["away from `normal`"]
    assert all(gap >= most["same level again"] for gap in run.gaps())
    back, whole = most["back to `normal`"], most["lr whole again"]
    if back < 500 and not run.halted:
        calm(policy, run, int(back))
        assert run.levels[-1] == 0
        calm(policy, run, max(1, int(whole - back)))
        assert run.scales[-1] == 1.0


@settings(max_examples=60, deadline=None)
@given(controlled(), st.integers(0, 2**32))
def test_what_the_card_says_is_never_done_is_never_done(policy: p.Policy, seed: int) -> None:
    never = {
        "skips an update": "skip",
        "clips gradients": "clip",
        "rolls back": "rollback",
        "lowers the lr": "scale_lr",
    }
    never |= {"freezes layers": "freeze", "resets moments": "reset_moments"}
    (line,) = (line for line in card(policy).lines if line.what == "never")
    run = hostile_run(policy, seed, 80)
    assert isinstance(line.value, tuple)
    for verb in set(line.value) - {"stops the run"}:
        assert not any(run.begun(never[verb])), verb


# Some do as much


@pytest.mark.parametrize(("count", "window"), [(40, 1_000), (7, 333), (20, 300), (30, 5_000), (3, 7), (2, 999)])
def test_a_flood_of_skips_spends_exactly_what_the_card_says(count: int, window: int) -> None:
    policy = only(p.Limits(skip=p.SkipLimit(9, p.Budget(count, window))), p.Skip())
    run = Run(Session(policy))
    for _ in range(1_000):
        run.tick({"on": 1.0}, 1.0)
    most, skips = values(card(policy)), run.begun("skip")
    row = longest([skipped > 0 for skipped in skips])
    assert (sum(skips), row, row) == (most["updates skipped"], most["skipped in a row"], most["longest pause"])


@pytest.mark.parametrize(("distance", "count", "window"), [(50, 3, 1_000), (20, 2, 100), (7, 4, 50)])
def test_rollbacks_at_the_worst_moments_lose_exactly_what_the_card_says(distance: int, count: int, window: int) -> None:
    """Each rollback goes all the way back, just when the run has caught up with its furthest point."""
    limits = p.Limits(rollback=p.RollbackLimit(distance, p.Budget(count, window)))
    limiter, progress, least = Limiter(limits), [], distance
    for tick in range(distance + window):
        at_the_top = limiter.progress == limiter.high_water >= distance and len(progress) >= least
        asked = [Request("rollback", "r", 1e9)] if at_the_top else []
        done = limiter.rule(tick, asked, Situation((max(0, limiter.progress - distance),)))
        limiter.stepped(applied=not any(grant.outcome is not Outcome.REFUSED for grant in done))
        progress.append(limiter.progress)
    lost = window - (progress[-1] - progress[distance - 1])
    policy = only(limits, p.Rollback(distance))
    assert lost == values(card(policy, window=window))["steps lost in all"]


def test_one_step_can_begin_as_many_interventions_as_the_card_says() -> None:
    limits = p.Limits(
        *(p.ScaleLimit(0.1, 1.0), p.SkipLimit(4, p.Budget(4, 100)), None, None, p.FreezeLimit(0.5, 10)),
        reset_moments=p.Budget(3, 100),
    )
    half = Constant(0.5)
    policy = only(limits, p.Skip(), p.ScaleLr(half), p.Freeze(0.3, "grad_norm"), p.ResetMoments())
    run = Run(Session(policy))
    run.tick({"on": 1.0}, 1.0)
    assert sum(run.begun(*INTERVENTIONS)) == values(card(policy, window=1))["interventions in all"] == 4


@settings(max_examples=200, deadline=None)
@given(limit_sets(), st.sampled_from((0, 1, 2, 5)))
def test_the_longest_pause_is_the_first_that_no_budget_can_fill(limits: p.Limits, spacing: int) -> None:
    """Counted up step by step: a stretch of one step more than the pause has a step left for an update."""
    if limits.rollback:
        limits = evolve(limits, rollback=evolve(limits.rollback, spacing=spacing))
    allowed = Allowance.of(only(limits, p.Skip(), p.Rollback(3)))
    row, found = limits.skip.in_a_row if limits.skip else 0, allowed.longest_pause()

    def filled(stretch: int) -> int:
        return min(row + allowed.rollbacks(stretch), most(limits.intervene, stretch))

    first = next((stretch for stretch in range(1, 300 if found is None else found + 2) if filled(stretch) < stretch), 0)
    if limits.skip and limits.skip.budget.count < row:
        assert found is not None or not first  # the budget of skips ends the row before, so no more than this is known
    else:
        assert first == (0 if found is None else found + 1)


@pytest.mark.parametrize("row", [1, 100])
def test_the_largest_budgets_there_are_cost_no_time(row: int) -> None:
    budget = p.Budget(99_999, 100_000)
    limits = p.Limits(skip=p.SkipLimit(row, budget), rollback=p.RollbackLimit(10_000, budget))
    assert Allowance.of(only(limits, p.Skip(), p.Rollback(3))).longest_pause() == row * 100_000 + 99_999
