"""What is told beforehand is what the limiter then answers, whatever it has granted before."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.limits import Allowance, Limiter, Outcome, Request, Situation
from lbw_policy.semantics.policy import Budget, Limits, ScaleLimit, SkipLimit
from tests.strategies import limit_sets

ACTIONS = ("skip", "clip", "scale_lr")
wishes = st.lists(st.sampled_from(ACTIONS), unique=True)
NORM = Situation(grad_norm=4.0)


def asked(names: list[str], factor: float = 0.5) -> list[Request]:
    amounts = {"skip": None, "clip": 1.0, "scale_lr": factor}
    return [Request(name, "r", amounts[name]) for name in names]


@settings(deadline=None)
@given(
    limits=limit_sets(),
    past=st.lists(st.tuples(wishes, st.booleans()), max_size=30),
    wish=wishes,
    factor=st.floats(0.0, 1.0) | st.just(math.nan),
)
def test_the_limiter_answers_as_its_allowance_says(
    limits: Limits, past: list[tuple[list[str], bool]], wish: list[str], factor: float
) -> None:
    limiter = Limiter(limits)
    for tick, (names, applied) in enumerate(past):
        grants = limiter.rule(tick, asked(names), NORM)
        skipped = any(grant.request.action == "skip" and grant.outcome is Outcome.GRANTED for grant in grants)
        limiter.stepped(applied and not skipped)
    before = repr(limiter.state_dict())
    allowed = Allowance.of(limiter, len(past))
    assert repr(limiter.state_dict()) == before
    grants = limiter.rule(len(past), asked(wish, factor), NORM)
    found = {grant.request.action: grant for grant in grants if grant.outcome is not Outcome.REFUSED}
    skips = "skip" in wish and allowed.skip
    clips = "clip" in wish and allowed.clip and not skips
    assert ("skip" in found, "clip" in found) == (skips, clips)
    if "scale_lr" in found:
        assert allowed.low is not None
        assert allowed.low <= (found["scale_lr"].amount or 0.0) <= max(allowed.high or 0.0, allowed.held)
        lowered = (found["scale_lr"].amount or 0.0) < allowed.held
        assert not lowered or allowed.lowerings is None or allowed.lowerings > skips + clips


def test_a_budget_that_is_spent_allows_nothing() -> None:
    limits = Limits(
        skip=SkipLimit(2, Budget(3, 100)), scale_lr=ScaleLimit(0.2, 0.9), intervene=Budget(3, 100), clip=Budget(9, 100)
    )
    limiter, found = Limiter(limits), []
    for tick in range(4):
        found.append(Allowance.of(limiter, tick))
        limiter.rule(tick, asked(["skip"]), NORM)
        limiter.stepped(applied=False)
    assert [one.skip for one in found] == [True, True, False, False]
    assert [one.lowerings for one in found] == [3, 2, 1, 1]
    assert (found[0].low, found[0].high, found[0].held, found[0].clip) == (0.2, 0.9, 1.0, True)


def test_without_a_limit_nothing_is_allowed() -> None:
    allowed = Allowance.of(Limiter(Limits()), 0)
    assert (allowed.skip, allowed.clip, allowed.low, allowed.high, allowed.lowerings) == (
        False,
        False,
        None,
        None,
        None,
    )
    assert Limiter(Limits()).left(0, "skip") is None
