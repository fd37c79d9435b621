"""Explanations: complete, true of the limits, and safe to print."""

from __future__ import annotations

import json

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.authority.allowance import most
from lbw_policy.limits import Limiter, Outcome, Request, Situation
from lbw_policy.reading import explain
from lbw_policy.reading.guarantees import guarantees
from lbw_policy.reading.printing import to_data, to_markdown, to_text
from lbw_policy.semantics import Policy, load
from lbw_policy.semantics.policy import Budget, Limits, RollbackLimit, SkipLimit
from lbw_policy.semantics.spelling import amount
from tests.strategies import budgets, limit_sets, unchecked_policies
from tests.texts import policies

HEAD = "lbw 1\npolicy p { }\nsignal loss = telemetry.loss\n"


def said(policy: Policy) -> str:
    return "\n".join(sentence for section in explain(policy).sections for sentence in section.sentences)


@settings(max_examples=60, deadline=None)
@given(unchecked_policies())
def test_every_level_and_every_limit_is_told_of_any_policy(policy: Policy) -> None:
    text = said(policy)
    assert all(f"`{level.name}`" in text for level in policy.levels)
    limits = policy.limits
    if limits.scale_lr:
        assert f"multiplied by {amount(limits.scale_lr.low)} at least" in text
    for budget in (limits.skip and limits.skip.budget, limits.clip, limits.intervene):
        if budget:
            assert f"in any {budget.window} step" in text
    if limits.rollback:
        assert f"at most {limits.rollback.distance} step" in text
    if limits.freeze:
        assert f"for at most {limits.freeze.duration} step" in text
    for show in (to_text, to_markdown):
        assert all(line.isprintable() for line in show(explain(policy)).split("\n"))


@settings(max_examples=60, deadline=None)
@given(policies())
def test_everything_declared_is_named(policy: Policy) -> None:
    text = said(policy)
    for group in (policy.signals, policy.params, policy.risks, policy.reflexes, policy.levels, policy.alerts):
        assert all(f"`{one.name}`" in text for one in group)
    assert "This explanation leaves out" not in text
    assert json.loads(json.dumps(to_data(explain(policy))))["bounds"] == guarantees(policy).as_dict()


def test_that_a_level_settles_is_told_with_what_follows() -> None:
    level = "levels n -> slow\nlevel slow { enter when loss > 3  leave when loss < 2  settles after 60 steps }"
    told = "After 60 steps at `slow`, that is taken for a new normal: its steps count as calm"
    assert told in said(load(HEAD + level))
    assert told not in said(load(HEAD + level.replace("settles after 60 steps", "")))


def test_conditions_are_sentences_and_negation_goes_to_what_it_is_about() -> None:
    rule = "reflex r { when not (loss > 3 and finite(loss)) and loss / prev(loss) >= 2 do skip }"
    limit = "limits { skip at most 2 in a row, at most 4 per 100 steps }"
    assert (
        "when (`loss` is at most 3 or `loss` is not a finite number) and `loss` divided by `loss` 1 step ago"
        " is at least 2, it leaves this update out."
    ) in said(load(f"{HEAD}{rule}{limit}"))


def test_what_is_done_instead_is_told_with_how_long_it_lasts() -> None:
    text = said(
        load(
            HEAD
            + """
    reflex broken { when not finite(loss) do skip else scale_lr by 0.5 else halt }
    levels calm -> high
    level high {
      enter when loss > 9
      stay at most 9 steps
      do rollback at most 20 steps else scale_lr by 0.5 else clip to 3 else halt
      do freeze top 10% of layers by grad_norm else clip to 2
    }
    limits {
      skip at most 2 in a row, at most 4 per 100 steps
      scale_lr within [0.1, 1]
      rollback at most 20 steps back, at most 3 per 100 steps, at least 9 steps apart
      freeze at most 25% of layers, for at most 9 steps
      intervene at most 20 per 100 steps
    }"""
        )
    )
    update, level = "for this update only", "as long as the level lasts"
    assert f"Where `skip` is refused, it multiplies the learning rate by 0.5, {update}." in text
    assert "Where `scale_lr` is refused too, it stops the run." in text
    assert f"Where `rollback` is refused, it multiplies the learning rate by 0.5, {level}." in text
    for norm in (2, 3):
        assert f"scales the gradients down to a norm of at most {norm}, {update}." in text
    assert "and happens at most 3 times in any 100 steps, two of them 9 steps apart at least." in text
    assert "What these limits refuse is recorded" in text


def test_what_the_guard_may_cost_is_told_and_what_it_does_beyond() -> None:
    text = said(load('lbw 1\npolicy p { }\nsignal loss = telemetry.loss\n'
                     'alert a info when loss > 1 "a"\nlimits { overhead at most 2% }'))  # fmt: skip
    assert "It measures its own time, and keeps it within 2% of that of a step" in text
    assert "It changes nothing in the run." in text


def test_a_policy_that_only_watches_says_so() -> None:
    text = said(load("monitor"))
    assert "It changes nothing in the run." in text
    never = "It never leaves out an update, clips gradients, changes the learning rate, rolls back, freezes layers or"
    assert never in text


def test_a_user_s_own_words_cannot_become_markup_or_move_the_cursor() -> None:
    policy = evolve(load("monitor"), doc="<b>x</b> `code` *bold* \x1b[31m\n# title")
    page = to_markdown(explain(policy))
    assert r"\<b\>x\</b\> 'code' \*bold\*" in page
    assert "\x1b" not in page
    assert "\n# title" not in page
    assert "\x1b" not in to_text(explain(policy))


# What the limits guarantee

moves = st.lists(st.sampled_from(("skip", "rollback", "none")) | st.just("skip") | st.just("rollback"), max_size=120)


@settings(max_examples=80, deadline=None)
@given(limit_sets(), moves, st.lists(st.integers(0, 1000), min_size=1, max_size=5), st.integers(0, 40))
def test_no_run_loses_more_than_the_explanation_says(
    limits: Limits, asked: list[str], depths: list[int], head_start: int
) -> None:
    """Whatever is asked for, and whichever snapshots there are, the stated bounds hold in every window."""
    policy = evolve(load("monitor"), limits=limits)
    bounds, limiter = guarantees(policy), Limiter(limits)
    progress, skips, rollbacks = [0], [0], [0]
    for tick, action in enumerate(["none"] * head_start + asked):
        shots = tuple(sorted({max(0, limiter.progress - depth) for depth in depths}))
        request = [] if action == "none" else [Request(action, "r", 1e9 if action == "rollback" else None)]
        grants = limiter.rule(tick, request, Situation(shots))
        done = [grant.request.action for grant in grants if grant.outcome is not Outcome.REFUSED]
        limiter.stepped(applied=not done)
        progress.append(limiter.progress)
        skips.append(skips[-1] + ("skip" in done))
        rollbacks.append(rollbacks[-1] + ("rollback" in done))
    for start in range(len(progress) - bounds.window):
        end = start + bounds.window
        assert skips[end] - skips[start] <= bounds.most_skipped
        assert rollbacks[end] - rollbacks[start] <= bounds.most_rollbacks
        if bounds.least_progress > 0:
            assert progress[end] - progress[start] >= bounds.least_progress * bounds.window - 1e-9


@given(budgets(), st.integers(1, 60), st.lists(st.booleans(), max_size=80))
def test_a_budget_allows_no_more_in_any_window_than_is_said(budget: Budget, window: int, wish: list[bool]) -> None:
    spent: list[int] = []
    for tick, wanted in enumerate(wish):
        if wanted and sum(tick - budget.window < event for event in spent) < budget.count:
            spent.append(tick)
    for start in range(len(wish)):
        assert sum(start <= event < start + window for event in spent) <= most(budget, window)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (Limits(), 1.0),
        (Limits(skip=SkipLimit(4, Budget(20, 1_000))), 0.98),
        (Limits(rollback=RollbackLimit(50, Budget(3, 1_000))), 0.847),
        (Limits(skip=SkipLimit(16, Budget(64, 1_000)), rollback=RollbackLimit(50, Budget(4, 1_000))), 0.732),
        (Limits(rollback=RollbackLimit(50, Budget(3, 1_000), spacing=500)), 0.898),
        (Limits(rollback=RollbackLimit(500, Budget(3, 1_000))), 0.0),
        (Limits(skip=SkipLimit(1, Budget(1_000, 1_000))), 0.5),
    ],
)
def test_the_least_progress_is_as_computed_by_hand(limits: Limits, kept: float) -> None:
    assert guarantees(evolve(load("monitor"), limits=limits)).least_progress == pytest.approx(kept)
