"""What is proved of the limiter is true, needs its invariants, and is not proved of a limiter that is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attrs import evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lbw_policy
from lbw_policy.authority.allowance import Allowance
from lbw_policy.reading.guarantees import guarantees
from lbw_policy.resources import presets
from lbw_policy.semantics import policy as p
from lbw_policy.verify import floats, moving, progress
from lbw_policy.verify.limiting import promises, window
from lbw_policy.verify.progress import Means
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.refining import refines
from lbw_policy.verify.smtlib import unsatisfiable
from lbw_policy.verify.solver import SAT, UNSAT, Answer, check
from lbw_policy.verify.spending import most_in, never_more, over, spending
from lbw_policy.verify.systems import Induction, Obligation, System
from lbw_policy.verify.terms import BOOL, FLOAT, Term, most, substitute, term, variable, when
from lbw_policy.verify.walking import broken
from lbw_policy.verify.wording import worded
from tests.strategies import budgets
from tests.verify.limiter_runs import any_limits

SKIP = p.SkipLimit(8, p.Budget(40, 1_000))
ROLLBACK = p.RollbackLimit(50, p.Budget(3, 1_000), spacing=100)
FREEZE = p.FreezeLimit(0.25, 200)
LIMITS = p.Limits(
    scale_lr=p.ScaleLimit(0.1, 1.0),
    skip=SKIP,
    clip=p.Budget(100, 1_000),
    rollback=ROLLBACK,
    freeze=FREEZE,
    reset_moments=p.Budget(1, 500),
    checkpoint=p.Budget(3, 700),
    intervene=p.Budget(200, 1_000),
    custom=(p.CustomLimit("boost", -0.5, 0.25, p.Budget(2, 300)), p.CustomLimit("nudge", None, None, p.Budget(1, 9))),
)


def policy_of(limits: p.Limits, parent: p.Limits | None = None) -> p.Policy:
    return evolve(lbw_policy.load("monitor"), limits=limits, parent=parent)


def answers(*parts: Induction | Obligation) -> list[Answer]:
    found = [one for part in parts for one in (part.obligations() if isinstance(part, Induction) else (part,))]
    return [check(one.script) for one in found]


def proved(*parts: Induction | Obligation) -> bool:
    return all(answer.verdict == UNSAT for answer in answers(*parts))


def unproved(promise: Promise) -> list[str]:
    return [one.name for one in promise.everything() if check(one.script).verdict != UNSAT]


# What is proved


@pytest.mark.parametrize("preset", presets())
def test_every_promise_of_a_preset_s_limiter_is_proved_or_says_that_it_cannot_be(preset: str) -> None:
    found = promises(lbw_policy.load(preset))

    assert not [name for promise in found for name in unproved(promise)]
    assert {one.claim.about or one.claim.promise for one in found if not [*one.everything()]} == {
        "all else",
        "survives_resume",
    }


def test_there_is_a_claim_for_each_limit_and_its_number() -> None:
    bounds = {
        one.claim.about: one.claim.bound for one in promises(policy_of(LIMITS)) if one.claim.promise == "limits_hold"
    }

    assert bounds == {
        "skip": 40, "skip in a row": 8, "clip": 100, "clip never loosens": 1.0, "rollback": 3, "rollback distance": 50,
        "rollback spacing": 100, "reset_moments": 1, "checkpoint": 3, "intervene": 200, "freeze share": 0.25,
        "freeze duration": 200, "freeze pause": None, "scale_lr": 0.1, "boost": 2, "nudge": 1, "amount of boost": 0.25,
        "all else": None,
    }  # fmt: skip


@settings(max_examples=6, deadline=None)
@given(limits=any_limits())
def test_every_promise_is_proved_whatever_the_limits(limits: p.Limits) -> None:
    endless = Means(limits).longest_stall() is None
    for promise in promises(policy_of(limits)):
        if not (endless and promise.claim.promise == "skip_cannot_livelock"):
            assert not unproved(promise), promise.claim


@settings(max_examples=80, deadline=None)
@given(limits=any_limits())
@example(p.Limits(skip=p.SkipLimit(3, p.Budget(2, 15)), rollback=p.RollbackLimit(1, p.Budget(4, 5))))
def test_what_is_proved_of_progress_is_what_people_are_told(limits: p.Limits) -> None:
    means, told = Means(limits), guarantees(policy_of(limits))

    assert told.window == window(limits)
    assert max(0, means.gain(told.window)) == round(told.least_progress * told.window)
    stall = means.longest_stall()
    if stall is not None:
        assert stall == Allowance(limits, frozenset(p.ACTION_NAMES.values())).longest_pause()


def test_bounds_are_as_tight_as_they_can_be() -> None:
    """A smaller number is not proved: the solver finds values that break it."""
    means = Means(LIMITS)
    stall = means.longest_stall()
    assert stall is not None

    assert answers(progress.ends(means, stall))[0].verdict == SAT
    assert answers(progress.ends(means, stall + 1))[0].verdict == UNSAT
    for name, budget in (("skip", SKIP.budget), ("rollback", ROLLBACK.budget)):
        assert not proved(never_more(name, evolve(budget, window=budget.window + 1), spending(name, budget)))


@settings(max_examples=300, deadline=None)
@given(budget=budgets(), window=st.integers(1, 90))
def test_what_a_budget_allows_in_a_longer_window_is_its_greediest_run(budget: p.Budget, window: int) -> None:
    """Spending as early as can be, in whole windows, reaches `most_in`, and no run goes beyond."""
    events = [tick for tick in range(window) if tick % budget.window < budget.count]

    assert most_in(budget, window) == len(events)


@settings(max_examples=25, deadline=None)
@given(budget=budgets(), window=st.integers(1, 200))
def test_a_longer_window_is_proved_from_the_budget_s_own(budget: p.Budget, window: int) -> None:
    assert proved(*over("skip", budget, window))


# Every invariant is needed


def inductions() -> Iterator[Induction]:
    for promise in promises(policy_of(LIMITS)):
        yield from promise.inductions


def test_without_an_invariant_nothing_is_proved() -> None:
    """The start, the step or the conclusion fails, and the solver gives the values."""
    for induction in dict.fromkeys((one.system.name, one.invariants) for one in inductions()):
        one = next(each for each in inductions() if (each.system.name, each.invariants) == induction)
        for dropped in range(len(one.invariants)):
            fewer = evolve(one, invariants=(*one.invariants[:dropped], *one.invariants[dropped + 1 :]))
            failed = [answer for answer in answers(fewer) if answer.verdict == SAT]
            assert failed, (one.system.name, worded(one.invariants[dropped]))
            assert all(answer.values for answer in failed)


def test_no_proof_is_empty() -> None:
    """What is assumed can hold: else anything at all would follow from it."""
    for one in inductions():
        assumed = (*one.invariants, one.system.given, one.system.allowed)
        assert check(unsatisfiable(*assumed)).verdict == SAT, one.system.name


# Wrong limiters


def changed(system: System, **step: Term) -> System:
    return evolve(system, step={**system.step, **step})


def replaced(system: System, old: Term, new: Term) -> System:
    """Put another term in the place of one, wherever a step has it."""

    def walk(node: Term) -> Term:
        if node == old:
            return new
        return evolve(node, arguments=tuple(walk(one) for one in node.arguments))

    found = evolve(system, step={name: walk(after) for name, after in system.step.items()})
    assert found != system
    return found


def window_off_by_one() -> Induction:
    tick, oldest = (
        variable("tick"),
        when(variable("spent").same(variable("chosen")), variable("earlier"), variable("oldest")),
    )
    wrong = replaced(spending("skip", SKIP.budget), oldest <= tick - 1_000, oldest < tick - 998)
    return never_more("skip", SKIP.budget, wrong)


def count_off_by_one() -> Induction:
    spent = variable("spent")
    return never_more("skip", SKIP.budget, replaced(spending("skip", SKIP.budget), spent < 40, spent <= 40))


def row_off_by_one() -> Induction:
    row = variable("in_a_row")
    return moving.few_in_a_row(SKIP, replaced(moving.skipping(SKIP), row < 8, row <= 8))


def row_reset_by_a_refusal() -> Induction:
    row, asked = variable("in_a_row"), variable("asked", BOOL)
    system = moving.skipping(SKIP)
    return moving.few_in_a_row(SKIP, changed(system, in_a_row=when(asked, system.step["in_a_row"], row * 0)))


def high_water_ignored() -> Induction:
    system = moving.returning(ROLLBACK)
    step = {name: substitute(after, {"high_water": variable("progress")}) for name, after in system.step.items()}
    return moving.near_the_top(ROLLBACK, evolve(system, step=step))


def high_water_lowered() -> Induction:
    system = moving.returning(ROLLBACK)
    return moving.near_the_top(ROLLBACK, changed(system, high_water=system.step["progress"]))


def forward_in_history() -> Induction:
    target, progress = variable("target"), variable("progress")
    return moving.near_the_top(
        ROLLBACK, replaced(moving.returning(ROLLBACK), target <= progress, target <= progress + 9)
    )


def spacing_ignored() -> Induction:
    apart = progress.apart(ROLLBACK)
    return never_more("rollback spacing", apart, spending("rollback spacing", p.Budget(1, 1)))


def pause_forgotten() -> Induction:
    system = moving.freezing(FREEZE)
    return moving.rested_freezes(FREEZE, changed(system, rest_until=variable("rest_until")))


def pause_short_by_one() -> Induction:
    tick, long = variable("tick"), variable("frozen_for")
    return moving.rested_freezes(FREEZE, replaced(moving.freezing(FREEZE), tick + long, tick + (long - 1)))


def freeze_long_by_one() -> Induction:
    long = variable("frozen_for")
    return moving.brief_freezes(FREEZE, replaced(moving.freezing(FREEZE), long < 200, long <= 200))


def factor_kept_where_none_was_granted() -> Induction:
    system, scale = floats.scaling(0.1, 0.9), variable("scale", FLOAT)
    return floats.factor_in_range(0.1, 0.9, replaced(system, scale < 1.0, scale <= 1.0))


def quarantine_long_by_one() -> Induction:
    wrong = progress.quarantining(257)
    return progress.always_learns(256, wrong)


WRONG = (
    window_off_by_one, count_off_by_one, row_off_by_one, row_reset_by_a_refusal, high_water_ignored, high_water_lowered,
    forward_in_history, spacing_ignored, pause_forgotten, pause_short_by_one, freeze_long_by_one,
    factor_kept_where_none_was_granted, quarantine_long_by_one,
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_limiter_is_not_proved_and_the_solver_says_where(wrong: object) -> None:
    assert callable(wrong)
    failed = [answer for answer in answers(wrong()) if answer.verdict != UNSAT]

    assert failed
    assert all(answer.verdict == SAT and answer.values for answer in failed)


def clamps(value: Term) -> dict[str, Term]:
    """The usual ways to clamp, as CPython's `min` and `max` decide: the second argument only if it is less, or more."""

    def least(one: Term, other: Term) -> Term:
        return when(other < one, other, one)

    def greatest(one: Term, other: Term) -> Term:
        return when(other > one, other, one)

    low, high = term(0.1), term(1.0)
    return {
        "min(max(x, low), high)": least(greatest(value, low), high),
        "max(min(x, high), low)": greatest(least(value, high), low),
        "x if x < high else high, then low": most(when(value < high, value, high), low),
    }


@pytest.mark.parametrize("form", list(clamps(variable("x", FLOAT)))[:2])
def test_a_clamp_that_lets_nan_through_is_not_proved(form: str) -> None:
    leaking = clamps(variable("amount", FLOAT))[form]
    answer = check(unsatisfiable(~floats.held(leaking, 0.1, 1.0)))

    assert answer.verdict == SAT
    assert answer.values == {"amount": "NaN"}
    assert proved(floats.stays_within("x", 0.1, 1.0))


def test_a_clip_without_its_clamp_could_make_gradients_larger() -> None:
    norm, to, quotient = (variable(one, FLOAT) for one in ("norm", "to", "quotient"))
    free = when(norm <= to, 1.0, quotient)

    assert check(unsatisfiable(~floats.held(free, 0.0, 1.0))).verdict == SAT
    assert proved(floats.clip_shrinks())


# Without a solver


@pytest.mark.parametrize("wrong", [row_off_by_one, row_reset_by_a_refusal, high_water_ignored, pause_forgotten])
def test_random_walks_find_the_plainest_mistakes(wrong: object) -> None:
    assert callable(wrong)
    promise = promises(policy_of(LIMITS))[0]

    assert broken(evolve(promise, inductions=(wrong(),)), walks=40, steps=60)
    assert not broken(promise)


def test_random_values_find_a_clamp_that_leaks() -> None:
    promise = promises(policy_of(LIMITS))[0]
    leaking = clamps(variable("amount", FLOAT))["min(max(x, low), high)"]

    assert broken(evolve(promise, obligations=(Obligation("clamp", (~floats.held(leaking, 0.1, 1.0),)),)))


# Parents


def tightened(limits: p.Limits) -> p.Limits:
    """Halve every number."""
    return evolve(
        limits,
        scale_lr=p.ScaleLimit(0.5, 0.9),
        skip=p.SkipLimit(4, p.Budget(10, 500)),
        rollback=p.RollbackLimit(25, p.Budget(1, 400), spacing=200),
        freeze=p.FreezeLimit(0.1, 100),
        custom=(p.CustomLimit("boost", 0.0, 0.125, p.Budget(1, 300)),),
    )


def test_a_tightened_child_refines_its_parent() -> None:
    assert proved(*refines(tightened(LIMITS), LIMITS))
    assert proved(*refines(LIMITS, LIMITS))
    assert proved(*refines(p.Limits(clip=p.Budget(9, 100), intervene=p.Budget(1, 1_000)), LIMITS))


LOOSER = {
    "lower factor": evolve(LIMITS, scale_lr=p.ScaleLimit(0.05, 1.0)),
    "higher factor": evolve(LIMITS, scale_lr=p.ScaleLimit(0.1, 1.0000000000000002)),
    "longer row": evolve(LIMITS, skip=p.SkipLimit(9, SKIP.budget)),
    "more skips": evolve(LIMITS, skip=p.SkipLimit(8, p.Budget(41, 1_000))),
    "skips in a shorter window": evolve(LIMITS, skip=p.SkipLimit(8, p.Budget(40, 999))),
    "more clips": evolve(LIMITS, clip=None),
    "farther back": evolve(LIMITS, rollback=evolve(ROLLBACK, distance=51)),
    "closer rollbacks": evolve(LIMITS, rollback=evolve(ROLLBACK, spacing=99)),
    "no spacing": evolve(LIMITS, rollback=evolve(ROLLBACK, spacing=0)),
    "more layers": evolve(LIMITS, freeze=p.FreezeLimit(0.26, 200)),
    "longer freezes": evolve(LIMITS, freeze=p.FreezeLimit(0.25, 201)),
    "no total": evolve(LIMITS, intervene=None),
    "another action": evolve(LIMITS, custom=(*LIMITS.custom, p.CustomLimit("jolt", None, None, p.Budget(1, 1_000)))),
    "greater amounts": evolve(LIMITS, custom=(p.CustomLimit("boost", -0.5, 0.26, p.Budget(2, 300)),)),
    "amounts at will": evolve(LIMITS, custom=(p.CustomLimit("boost", None, None, p.Budget(2, 300)),)),
}


@pytest.mark.parametrize("looser", LOOSER)
def test_a_looser_child_does_not_refine_its_parent(looser: str) -> None:
    found = next(one for one in promises(policy_of(LOOSER[looser], LIMITS)) if one.claim.promise == "refines_parent")

    assert any(check(one.script).verdict == SAT for one in reversed([*found.everything()]))


def test_the_limits_of_the_parent_come_with_a_policy_that_extends_it() -> None:
    text = 'lbw 1\npolicy child { doc "tighter" extends conservative }\nlimits { clip at most 9 per 1_000 steps }\n'
    parent, child = lbw_policy.load("conservative"), lbw_policy.load(text)

    assert (parent.parent, child.parent) == (None, parent.limits)
    assert not unproved(next(one for one in promises(child) if one.claim.promise == "refines_parent"))


def test_limits_that_allow_a_rollback_at_every_step_have_no_proof_of_an_end() -> None:
    endless = p.Limits(rollback=p.RollbackLimit(10, p.Budget(5, 5)))
    found = next(one for one in promises(policy_of(endless)) if one.claim.promise == "skip_cannot_livelock")

    assert unproved(found)
