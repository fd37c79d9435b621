"""Which conditions of a policy exclude each other, never hold, or hold on readings that are all unknown."""

from __future__ import annotations

import pytest

import lbw_policy
from lbw_policy.resources import presets
from lbw_policy.semantics.policy import Policy
from lbw_policy.verify import conflicts, unknowns
from lbw_policy.verify.solver import UNSAT, check
from lbw_policy.verify.systems import Obligation

pytest.importorskip("z3")

TEXT = """lbw 1
policy p {{ }}
signal loss    = telemetry.loss
signal grad    = telemetry.grad_norm
signal weights = telemetry.nonfinite_params
signal mine    = observed.mine
risk divergence {{
  horizon 10 steps  features standard  alarm at most 0.3 false per 1_000 steps  trust after 200 steps  fallback 0%
}}
levels normal -> careful
level careful {{ enter when {enter}  leave when {leave}  {rest}  do skip }}
limits {{ skip at most 4 in a row, at most 20 per 1_000 steps  intervene at most 20 per 1_000 steps }}
"""


def policy_of(enter: str = "loss > 9", leave: str = "loss < 3", rest: str = "stay at most 9 steps") -> Policy:
    return lbw_policy.load(TEXT.format(enter=enter, leave=leave, rest=rest))


def excluded(*obligations: Obligation) -> bool:
    return all(check(one.script).verdict == UNSAT for one in obligations)


@pytest.mark.parametrize(
    ("enter", "leave"),
    [
        ("loss > 4", "loss < 3"),
        ("mine > 4", "not (mine >= 4)"),
        ("divergence > 30%", "divergence < 5%"),
        ("divergence.alarm", "not divergence.alarm"),
        ("not finite(loss) or zscore(loss, 64 steps) > 4", "zscore(loss, 64 steps) < 2"),
        ("zscore(loss, 64 steps) > 1", "loss < median(loss, 64 steps)"),
        ("loss > max(loss, 64 steps)", "loss < median(loss, 64 steps)"),
        ("grad > 2 * median(grad, 64 steps)", "grad < 1.5 * median(grad, 64 steps)"),
        ("grad / median(grad, 64 steps) > 4", "grad < 2 * median(grad, 64 steps)"),
        ("mine + 1 > 4", "mine < 2"),
        ("2 * mine > 8", "mine < 4"),
        ("-mine > 3", "mine > -2"),
        ("abs(mine) > 4", "mine > 0 and mine < 2"),
        ("mine - grad > 0", "mine < grad"),
        ("mine * mine > 3", "mine * mine < 2"),
        ("weights > 0", "weights < 1"),
    ],
)
def test_conditions_that_exclude_each_other_are_proved_to(enter: str, leave: str) -> None:
    (promise,) = conflicts.promises(policy_of(enter, leave))

    assert excluded(*promise.obligations)


@pytest.mark.parametrize(
    ("enter", "leave"),
    [
        ("loss > 3", "loss < 4"),
        ("loss > 3", "loss <= 4 and grad < 2"),
        ("loss > 2 * median(loss, 64 steps)", "loss < 1.5 * median(loss, 64 steps)"),  # a loss may be negative
        ("grad / median(grad, 64 steps) > 4", "grad < 1"),  # 0 / 0 is unknown
        ("weights > 0", "zscore(loss, 64 steps) < 3"),
        ("weights > 0 or loss / median(loss, 64 steps) > 3", "weights <= 0 and zscore(loss, 64 steps) < 3"),
        ("abs(mine) > 4", "mine < 2"),
        ("mine > 0.3", "mine < 0.1 + 0.2"),  # 0.30000000000000004
        ("grad > 4", "ewma(grad, 20 steps) < 2"),
        ("divergence > 30%", "not divergence.alarm"),
    ],
)
def test_conditions_that_may_hold_together_are_not_proved_to_exclude_each_other(enter: str, leave: str) -> None:
    (promise,) = conflicts.promises(policy_of(enter, leave))

    assert not excluded(*promise.obligations)


@pytest.mark.parametrize(
    "leave",
    [
        "loss < 3",
        "not (loss >= 3)",
        "zscore(loss, 64 steps) < 2 and divergence < 5%",
        "finite(loss) and median(loss, 64 steps) < 3",
        "ewma(loss, 20 steps) < 3",
        "prev(loss, 3 steps) < 3",
        "mine / grad < 2",
        "mine < 1 or loss < 3",
    ],
)
def test_a_leave_that_needs_a_reading_is_blind_without(leave: str) -> None:
    policy = policy_of(leave=leave)

    assert excluded(unknowns.blind(policy, policy.levels[1]))


@pytest.mark.parametrize(
    "leave",
    [
        "not finite(loss)",
        "median(loss, 64 steps) < 3",
        "1 / grad < 2",  # 1 / inf is 0
        "divergence < 5%",
        "loss < 3 or not divergence.alarm",
    ],
)
def test_a_leave_that_holds_while_all_is_unknown_is_found(leave: str) -> None:
    policy = policy_of(leave=leave)

    assert not excluded(unknowns.blind(policy, policy.levels[1]))


def test_what_can_never_be_is_found() -> None:
    assert conflicts.never(policy_of("not finite(median(loss, 64 steps))")) == ["level careful is entered"]
    assert conflicts.never(policy_of("min(loss, 64 steps) > max(loss, 64 steps)")) == ["level careful is entered"]
    assert conflicts.never(policy_of(leave="finite(loss) and not finite(loss)")) == []  # `stay` ends it
    assert conflicts.never(policy_of(leave="finite(loss) and not finite(loss)", rest="")) == ["level careful is left"]


def test_a_condition_that_only_nan_meets_can_be_met() -> None:
    assert conflicts.never(policy_of("grad < 0")) == []


@pytest.mark.parametrize("preset", presets())
def test_the_presets_have_no_conflict_and_no_dead_rule(preset: str) -> None:
    policy = lbw_policy.load(preset)
    found = [*conflicts.promises(policy), *unknowns.promises(policy)]

    assert len(found) == 2 * sum(level.leave is not None for level in policy.levels)
    assert excluded(*(one for promise in found for one in promise.everything()))
    assert conflicts.never(policy) == []
