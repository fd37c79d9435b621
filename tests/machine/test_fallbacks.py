"""What a rule declares in place of a refused action is done as the rule would have done it, in the same tick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attrs import evolve
from hypothesis import given, settings

from lbw_policy.limits import Grant, Outcome, Request
from lbw_policy.machine import Session, Turn
from lbw_policy.semantics import load
from lbw_policy.semantics.policy import Action, Policy, name_of
from lbw_policy.semantics.walk import actions_of, chain, first_actions
from tests.machine.test_bounds import Run, Tick, runs

HEAD = """
lbw 1
policy p { doc "x" }
signal a = observed.a
signal b = observed.b
signal norm = telemetry.grad_norm
"""
LIMITS = """
limits {
  scale_lr within [0.01, 1]
  skip at most 2 in a row, at most 3 per 100 steps
  clip at most 20 per 100 steps
  rollback at most 20 steps back, at most 2 per 100 steps
  freeze at most 50% of layers, for at most 3 steps
  checkpoint at most 2 per 100 steps
  reset_moments at most 2 per 100 steps
  intervene at most 60 per 100 steps
}
"""


ONE = "intervene at most 1 per 100 steps"


def session(rules: str, **limits: str) -> Session:
    """Return a session of a policy with these rules; a limit given by name replaces the usual one."""
    lines = [next((limits[n] for n in limits if line.strip().startswith(n)), line) for line in LIMITS.splitlines()]
    return Session(load(HEAD + rules + "\n".join(lines)))


def tick(run: Session, norm: float | None = None, **values: float) -> Turn:
    """Go one tick on; signals that are not given read 0."""
    run.begin({"a": 0.0, "b": 0.0, "norm": norm, **values})
    turn = run.decide({}, norm)
    run.finish(applied=turn.updates)
    return turn


def answers(turn: Turn) -> list[tuple[str, str, str, str]]:
    """Return every answer of a tick: the action, the outcome, its rule, and what was asked for instead."""
    return [(g.request.action, g.outcome.value, g.request.rule, g.fallback) for g in turn.grants]


# Laws


def _following(policy: Policy, action: str) -> Iterator[str]:
    """Yield what may stand in for an action: all that follows it in any chain."""
    for rule in (*policy.reflexes, *policy.levels):
        for first in first_actions(rule):
            names = [name_of(one) for one in chain(first)]
            for place, name in enumerate(names):
                if name == action:
                    yield from names[place + 1 :]


def _declared(run: Run, policy: Policy, action: str) -> bool:
    """Tell whether every rule that may ask for an action now declares a fallback; a level that was left does not."""
    now = run.machine.configuration
    giving_back = any(factor < 1 and not held for factor, held in zip(now.factors, now.holding, strict=True))
    if action == "scale_lr" and giving_back:
        return False
    return all(one.otherwise is not None for one in actions_of(policy) if name_of(one) == action)


@settings(max_examples=200, deadline=None)
@given(runs())
def test_a_refusal_with_a_declared_fallback_is_followed_by_its_answer_in_the_same_tick(
    case: tuple[Policy, list[Tick]],
) -> None:
    policy, ticks = case
    run = Run(policy)
    for moment in ticks:
        _, grants = run.tick(*moment)
        granted = {grant.request.action for grant in grants if grant.outcome is not Outcome.REFUSED}
        for grant in grants:
            names = grant.fallback.split(", ") if grant.fallback else []

            assert grant.outcome is Outcome.REFUSED or not names
            assert set(names) <= set(_following(policy, grant.request.action))
            if grant.outcome is Outcome.REFUSED and _declared(run, policy, grant.request.action):
                assert names
            answered = {one.request.action for one in grants}
            assert set(names) <= answered or not granted.isdisjoint({"halt", "rollback", "skip"})


@settings(max_examples=200, deadline=None)
@given(runs())
def test_an_action_is_answered_once_a_tick_and_a_tick_that_halts_grants_a_checkpoint_at_most(
    case: tuple[Policy, list[Tick]],
) -> None:
    policy, ticks = case
    run = Run(policy)
    for moment in ticks:
        _, grants = run.tick(*moment)
        granted = [grant.request.action for grant in grants if grant.outcome is not Outcome.REFUSED]

        assert len({grant.request.action for grant in grants}) == len(grants)
        assert "halt" not in granted or set(granted) <= {"halt", "checkpoint"}


def _without_fallbacks(policy: Policy) -> Policy:
    def bare(actions: tuple[Action, ...]) -> tuple[Action, ...]:
        return tuple(evolve(action, otherwise=None) for action in actions)

    return evolve(
        policy,
        reflexes=tuple(evolve(one, actions=bare(one.actions)) for one in policy.reflexes),
        levels=tuple(
            evolve(
                one,
                actions=bare(one.actions),
                periodic=tuple(evolve(each, action=bare((each.action,))[0]) for each in one.periodic),
            )
            for one in policy.levels
        ),
    )


@settings(max_examples=100, deadline=None)
@given(runs())
def test_fallbacks_change_nothing_until_something_is_refused(case: tuple[Policy, list[Tick]]) -> None:
    policy, ticks = case
    with_them, without = Run(policy), Run(_without_fallbacks(policy))
    for moment in ticks:
        decision, grants = with_them.tick(*moment)
        plain, expected = without.tick(*moment)

        assert repr(decision) == repr(plain)
        if any(grant.outcome is Outcome.REFUSED for grant in grants):
            return
        assert repr(grants) == repr(expected)


# A reflex


def test_the_fallback_of_a_reflex_is_for_the_update_in_which_the_action_is_refused() -> None:
    run = session("reflex r { when a > 0 do skip else scale_lr by 0.5 }")
    turns = [tick(run, a=1.0) for _ in range(3)] + [tick(run)]

    assert [answers(turn) for turn in turns[:2]] == [[("skip", "granted", "reflex r", "")]] * 2
    assert answers(turns[2]) == [
        ("skip", "refused", "reflex r", "scale_lr"),
        ("scale_lr", "granted", "reflex r", ""),
    ]
    assert turns[3].grants == ()


def test_a_chain_goes_on_until_something_is_granted() -> None:
    run = session("reflex r { when a > 0 do rollback at most 20 steps else clip to 1 else checkpoint else halt }")

    assert answers(tick(run, a=1.0)) == [  # no snapshot, and no norm to clip
        ("rollback", "refused", "reflex r", "clip"),
        ("clip", "refused", "reflex r", "checkpoint"),
        ("checkpoint", "granted", "reflex r", ""),
    ]
    tick(run, a=1.0)
    assert answers(tick(run, a=1.0))[2:] == [  # by now both checkpoints are spent
        ("checkpoint", "refused", "reflex r", "halt"),
        ("halt", "granted", "reflex r", ""),
    ]


def test_what_is_reduced_was_done_and_has_no_fallback() -> None:
    run = session("reflex r { when a > 0 do scale_lr by a else halt }", scale_lr="scale_lr within [0.5, 1]")

    assert answers(tick(run, a=0.1)) == [("scale_lr", "reduced", "reflex r", "")]


def test_without_a_fallback_a_refusal_says_so() -> None:
    run = session("reflex r { when a > 0 do rollback at most 20 steps }")

    assert answers(tick(run, a=1.0)) == [("rollback", "refused", "reflex r", "")]


# Several rules


def test_every_rules_fallback_counts_also_where_another_spoke_for_the_action() -> None:
    rules = """
    reflex one { when a > 0 do rollback at most 20 steps else scale_lr by 0.5 }
    reflex two { when a > 0 do rollback at most 10 steps else clip to 1 }
    reflex three { when a > 0 do rollback at most 9 steps }
    """
    run = session(rules)
    turn = tick(run, 4.0, a=1.0)

    assert answers(turn) == [
        ("rollback", "refused", "reflex one", "scale_lr, clip"),
        ("clip", "granted", "reflex two", ""),
        ("scale_lr", "granted", "reflex one", ""),
    ]


def test_the_more_careful_amount_counts_where_another_rule_asks_too() -> None:
    rules = """
    reflex one { when a > 0 do rollback at most 20 steps else clip to 1 else halt }
    reflex two { when a > 0 do clip to 2  do scale_lr by 0.5 }
    reflex three { when b > 0 do rollback at most 20 steps else scale_lr by 0.5 else halt }
    """
    run = session(rules)
    amounts = {g.request.action: g.amount for g in tick(run, 4.0, a=1.0, b=1.0).grants}

    assert amounts == {"rollback": None, "clip": 0.25, "scale_lr": 0.25}


def test_what_was_granted_already_is_not_asked_for_again() -> None:
    rules = """
    reflex one { when a > 0 do clip to 1 else checkpoint else halt }
    reflex two { when b > 0 do checkpoint }
    """
    turn = tick(session(rules), None, a=1.0, b=1.0)

    assert answers(turn) == [
        ("checkpoint", "granted", "reflex two", ""),
        ("clip", "refused", "reflex one", "checkpoint"),
    ]


def test_a_chain_passes_over_what_was_refused_already() -> None:
    rules = """
    reflex one { when a > 0 do rollback at most 20 steps }
    reflex two { when a > 0 do clip to 1 else rollback at most 20 steps else halt }
    """
    turn = tick(session(rules), None, a=1.0)

    assert answers(turn) == [
        ("rollback", "refused", "reflex one", ""),
        ("clip", "refused", "reflex two", "halt"),
        ("halt", "granted", "reflex two", ""),
    ]


def test_a_chain_that_ends_in_what_was_refused_already_says_so() -> None:
    rules = """
    reflex one { when a > 0 do rollback at most 20 steps }
    reflex two { when a > 0 do clip to 1 else rollback at most 20 steps }
    """
    turn = tick(session(rules), None, a=1.0)

    assert answers(turn)[1:] == [("clip", "refused", "reflex two", "rollback")]


def test_a_fallback_that_the_tick_leaves_nothing_to_do_for_is_not_answered() -> None:
    rules = """
    reflex one { when a > 0 do skip }
    reflex two { when a > 0 do freeze top 90% of layers by grad_norm else clip to 1 }
    """
    run = session(rules.replace("90%", "0%"))
    turn = tick(run, 4.0, a=1.0)

    assert answers(turn) == [("skip", "granted", "reflex one", ""), ("freeze", "refused", "reflex two", "clip")]


def test_a_halt_as_a_fallback_leaves_the_refusals_and_a_checkpoint_and_spent_budgets_stay_spent() -> None:
    rules = """
    reflex one { when a > 0 do checkpoint  do reset_moments  do clip to 1 else halt }
    """
    run = session(rules)
    tick(run, None, a=0.0)
    turn = tick(run, None, a=1.0)

    assert answers(turn) == [
        ("checkpoint", "granted", "reflex one", ""),
        ("clip", "refused", "reflex one", "halt"),
        ("halt", "granted", "reflex one", ""),
    ]
    assert run.limiter.state_dict()["budgets"]["reset_moments"] == [1]


# What cannot be done at the moment


def test_what_is_impossible_at_the_moment_has_its_fallback_too() -> None:
    run = session("reflex r { when a > 0 do freeze top 10% of layers by grad_norm else clip to 1 else halt }")
    run.begin({"a": 1.0, "b": 0.0, "norm": 2.0})

    def impossible(request: Request) -> str | None:
        return "cannot" if request.action in ("freeze", "clip") else None

    grants: tuple[Grant, ...] = run.decide({}, 2.0, impossible).grants

    assert [(g.request.action, g.reason, g.fallback) for g in grants] == [
        ("freeze", "cannot", "clip"),
        ("clip", "cannot", "halt"),
        ("halt", "", ""),
    ]


# A level

LEVEL = """
levels normal -> high
level high {
  enter when a > 0
  leave when a < 0
  %s
}
"""


def scales(turns: list[Turn]) -> list[float]:
    """Return the lr factor of each tick."""
    return [next((g.amount or 1.0 for g in turn.granted if g.request.action == "scale_lr"), 1.0) for turn in turns]


def test_a_level_holds_a_factor_it_falls_back_to_and_gives_it_back_as_its_own() -> None:
    run = session(LEVEL % "do rollback at most 20 steps else scale_lr by 0.5 restore over 2 steps")
    turns = [tick(run, a=a) for a in (1.0, 0.0, 0.0, -1.0, 0.0, 0.0)]

    assert answers(turns[0])[1] == ("scale_lr", "granted", "level high", "")
    assert scales(turns) == [0.5, 0.5, 0.5, 0.5, 0.75, 1.0]
    assert [grant.starts for turn in turns for grant in turn.granted] == [True, False, False, False, False]


def test_a_level_holds_also_what_ends_a_longer_chain() -> None:
    rules = LEVEL % "do rollback at most 20 steps else reset_moments else scale_lr by 0.5"
    limit = "reset_moments at most 1 per 100 steps"
    run = session(rules + "reflex r { when b > 0 do reset_moments }", reset_moments=limit)
    turns = [tick(run, b=1.0), tick(run, a=1.0), tick(run), tick(run)]

    assert answers(turns[1])[1:] == [
        ("reset_moments", "refused", "level high", "scale_lr"),
        ("scale_lr", "granted", "level high", ""),
    ]
    assert scales(turns) == [1.0, 0.5, 0.5, 0.5]


def test_an_own_factor_and_one_fallen_back_to_multiply_exactly_as_they_do_later() -> None:
    rules = LEVEL % "do scale_lr by 0.7  do rollback at most 20 steps else scale_lr by 0.3"
    run = session(rules + "reflex r { when b > 0 do scale_lr by 0.9 }")
    turns = [tick(run, a=1.0, b=1.0), *(tick(run) for _ in range(5))]

    assert scales(turns)[1:] == [0.7 * 0.3] * 5
    assert sum(grant.starts for turn in turns for grant in turn.granted) == 1


@pytest.mark.parametrize("action", ["clip to 2", "freeze top 10% of layers by grad_norm"])
def test_a_level_goes_on_with_what_it_falls_back_to(action: str) -> None:
    run = session(LEVEL % f"do rollback at most 20 steps else {action}")
    turns = [tick(run, 4.0, a=a) for a in (1.0, 0.0, 0.0, -1.0, 0.0)]
    name = action.split(maxsplit=1)[0]

    assert [[g.request.action for g in turn.granted] for turn in turns] == [[name], [name], [name], [], []]
    assert run.machine.configuration.started == (0, 0)


def test_a_level_entered_again_has_forgotten_what_it_fell_back_to() -> None:
    run = session(LEVEL % "do skip else clip to 2", skip="skip at most 1 in a row, at most 1 per 4 steps")
    turns = [tick(run, 4.0, a=a) for a in (1.0, -1.0, 1.0, 0.0, -1.0, 1.0, 0.0)]

    assert [[g.request.action for g in turn.granted] for turn in turns] == [
        ["skip"], [], ["clip"], ["clip"], [], ["skip"], []]  # fmt: skip


def test_a_level_entered_again_from_above_has_forgotten_it_too() -> None:
    rules = """
    levels normal -> high -> higher
    level high { enter when a > 0  leave when a < 0  do skip else clip to 2 }
    level higher { enter when b > 0  leave when b < 1  do checkpoint }
    """
    run = session(rules, skip="skip at most 1 in a row, at most 1 per 4 steps")
    run.limiter._budgets["skip"].spend(0)
    turns = [tick(run, 4.0, a=a, b=b) for a, b in ((1.0, 0.0), (0.0, 2.0), (0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (0, 0))]

    assert [[g.request.action for g in turn.granted] for turn in turns] == [
        ["clip"], ["checkpoint", "clip"], ["clip"], ["clip"], ["skip"], []]  # fmt: skip


def test_a_level_goes_on_with_its_own_and_with_what_it_falls_back_to() -> None:
    rule = "do clip to 2  do rollback at most 20 steps else freeze top 10% of layers by grad_norm"
    run = session(LEVEL % rule)
    turns = [tick(run, 4.0, a=a) for a in (1.0, 0.0, 0.0)]

    assert [[g.request.action for g in turn.granted] for turn in turns] == [["freeze", "clip"]] * 3


def test_what_a_level_repeats_falls_back_each_time() -> None:
    run = session(LEVEL % "each 2 steps do rollback at most 20 steps else scale_lr by 0.5")

    assert scales([tick(run, a=1.0), *(tick(run) for _ in range(5))]) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_in_place_of_what_is_held_a_fallback_is_for_the_updates_in_which_that_is_refused() -> None:
    run = session(LEVEL % "do freeze top 10% of layers by grad_norm else scale_lr by 0.5")
    turns = [tick(run, a=1.0), *(tick(run) for _ in range(9))]

    assert scales(turns) == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 0.5]  # three frozen, a pause of three


def test_a_held_fallback_that_is_refused_later_has_its_own_fallback_then() -> None:
    run = session(LEVEL % "do rollback at most 20 steps else freeze top 10% of layers by grad_norm else halt")
    turns = [tick(run, a=1.0), *(tick(run) for _ in range(3))]

    assert [[g.request.action for g in turn.granted] for turn in turns] == [["freeze"]] * 3 + [["halt"]]


def test_a_fallback_of_a_levels_factor_counts_only_once_the_level_has_asked_for_it() -> None:
    rules = LEVEL % "do scale_lr by 0.5  each 3 steps do scale_lr by 0.5 else halt"
    run = session(rules, intervene=ONE)
    run.limiter._budgets["intervene"].spend(0)
    turns = [tick(run, a=1.0), *(tick(run) for _ in range(3))]

    assert [[(g.request.action, g.outcome.value) for g in turn.grants] for turn in turns] == [
        *([[("scale_lr", "refused")]] * 3),
        [("scale_lr", "refused"), ("halt", "granted")],
    ]


def test_a_factor_that_a_level_gives_back_has_no_fallback_any_more() -> None:
    run = session(LEVEL % "do scale_lr by 0.5 restore over 3 steps else clip to 1", intervene=ONE)
    run.limiter._budgets["intervene"].spend(0)
    turns = [tick(run, 4.0, a=a) for a in (1.0, 0.0, -1.0, 0.0)]

    assert [answers(turn)[0] for turn in turns] == [
        *([("scale_lr", "refused", "level high", "clip")] * 2),
        *([("scale_lr", "refused", "level high", "")] * 2),
    ]


def test_a_resumed_level_holds_what_it_fell_back_to() -> None:
    rules = LEVEL % "do rollback at most 20 steps else clip to 2 else halt"
    first, second = session(rules), session(rules)
    tick(first, 4.0, a=1.0)
    second.load_state_dict(first.state_dict())

    assert answers(tick(second, 4.0)) == answers(tick(first, 4.0)) == [("clip", "granted", "level high", "")]
    assert answers(tick(second, None)) == answers(tick(first, None))
    assert answers(tick(second, None))[-1] == ("halt", "granted", "level high", "")


def test_a_fallback_of_factor_one_is_answered_too() -> None:
    run = session(LEVEL % "do rollback at most 20 steps else scale_lr by 1 else halt")

    assert answers(tick(run, a=1.0)) == [
        ("rollback", "refused", "level high", "scale_lr"),
        ("scale_lr", "granted", "level high", ""),
    ]
