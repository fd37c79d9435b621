"""How far each promise is said to be known: proved, tested, failed with a run, or unknown; never proved by default."""

from __future__ import annotations

import subprocess
import sys

import pytest
from attrs import evolve

import lbw_policy
from lbw_policy.claims import Claim, Result, Status
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.trial import Trial
from lbw_policy.verify import proving, solver
from lbw_policy.verify.limiting import promises
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.proving import Judge, prove
from lbw_policy.verify.systems import Induction, Obligation, System
from lbw_policy.verify.terms import BOOL, Term, term, variable, when

TRIAL = Trial("it fails", p.Place("p.lbw", 1), (), ())
COUNT, GO = variable("count"), variable("go", BOOL)
CLOCK = System("clock", {"count": term(0)}, {"count": when(GO, COUNT + 1, 0)})
CLAIM = Claim("made_up", "", "the clock never shows more than it can")


@pytest.fixture(scope="module")
def policy() -> p.Policy:
    return lbw_policy.load("monitor")


@pytest.fixture
def judge(policy: p.Policy, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """A judge whom no run helps."""
    monkeypatch.setattr(proving.counterexamples, "refute", lambda *_: None)
    return Judge(policy, (), solves=True)


def promise(goal: Term, *invariants: Term) -> Promise:
    return Promise(CLAIM, (Induction(CLOCK, goal, invariants),))


def test_what_follows_by_induction_is_proved(judge: Judge) -> None:
    result = judge.decide(promise(COUNT >= 0, COUNT >= 0))

    assert (result.status, result.how, result.invariants) == (Status.PROVED, "by induction", ("count >= 0",))


@pytest.mark.parametrize("goal", [COUNT <= 5, COUNT >= 0])
def test_what_the_solver_can_break_is_unknown_unless_a_run_shows_it(judge: Judge, goal: Term) -> None:
    """The second goal is true, but nothing says why: a step that breaks it need not be one that any run takes."""
    result = judge.decide(promise(goal))

    assert result.status is Status.UNKNOWN
    assert "clock: goal" in result.how


def test_what_a_run_shows_has_failed(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving.counterexamples, "refute", lambda *_: TRIAL)
    result = judge.decide(promise(COUNT <= 5))

    assert (result.status, result.witness) == (Status.FAILED, TRIAL)


def test_a_promise_with_nothing_to_prove_is_never_proved(judge: Judge) -> None:
    assert judge.decide(Promise(CLAIM)).status is Status.UNKNOWN


def test_what_the_solver_gives_up_is_unknown(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "check", lambda *_: solver.Answer(solver.UNKNOWN, why="the solver gave up"))
    result = judge.decide(promise(COUNT >= 0, COUNT >= 0))

    assert result.status is Status.UNKNOWN
    assert "gave up" in result.how


def test_out_of_time_is_unknown(judge: Judge) -> None:
    judge.seconds = 0.0

    assert judge.decide(promise(COUNT >= 0, COUNT >= 0)).status is Status.UNKNOWN


def test_a_script_that_the_solver_cannot_read_is_unknown() -> None:
    answer = solver.check("(assert (nonsense))")

    assert answer.verdict == solver.UNKNOWN
    assert answer.why


def test_the_solver_gives_up_after_so_much_work_and_says_so() -> None:
    x, y, z = (variable(one) for one in "xyz")
    hard = Obligation(
        "sum of two cubes", (x * x * x + y * y * y - z * z * z <= 0, z * z * z <= x * x * x + y * y * y, x > 1, y > 1)
    )
    answer = solver.check(hard.script, 0.05)

    assert answer.verdict == solver.UNKNOWN
    assert "gave up" in answer.why


def test_a_hostile_run_outweighs_any_proof(policy: p.Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is proved of the model and seen to be false of the code is false."""
    monkeypatch.setattr(proving.counterexamples, "refute", lambda *_: None)
    found = lbw_policy.load("conservative")
    row = next(one for one in promises(found) if one.claim.about == "skip in a row")
    wrong = evolve(row, claim=evolve(row.claim, bound=1))
    judge = Judge(found, proving.runs(found, floods=2, streams=0), solves=True)

    assert judge.decide(row).status is Status.PROVED
    assert judge.decide(wrong).status is Status.FAILED
    assert "skips in a row at tick" in judge.decide(wrong).how


def test_a_preset_is_proved_or_says_what_is_only_tested() -> None:
    results = prove(lbw_policy.load("conservative"))

    assert {one.status for one in results} == {Status.PROVED, Status.TESTED}
    tested = {one.claim.about or one.claim.promise for one in results if one.status is Status.TESTED}
    assert tested == {"all else", "survives_resume"}
    shown = [one for one in results if one.claim.promise == "everything_can_fire"]
    assert all(one.witness for one in shown)
    assert {"reflex spike fires", "level recover is entered", "alert broken speaks"} <= {
        one.claim.about for one in shown
    }


def test_the_same_policy_gives_the_same_results(policy: p.Policy) -> None:
    one, other = (tuple(evolve(each, seconds=0.0) for each in prove(policy)) for _ in range(2))

    assert one == other


def test_without_a_solver_nothing_is_said_to_be_proved_but_what_a_run_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "available", lambda: False)
    results = prove(lbw_policy.load("transformer_pretraining"))
    promised = [one for one in results if one.claim.promise != "everything_can_fire"]

    assert {one.status for one in promised} == {Status.TESTED}
    assert all("found no violation" in one.how for one in promised)


def test_a_solver_that_is_asked_for_must_be_there(policy: p.Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "available", lambda: False)

    with pytest.raises(ModuleNotFoundError, match="z3 is not installed"):
        prove(policy, solver=True)


def test_z3_is_not_loaded_until_something_is_to_be_solved() -> None:
    script = "import sys, lbw_policy.verify.proving, lbw_policy.verify.certificate; print('z3' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False"


def test_a_result_is_plain_data() -> None:
    result = Result(Claim("limits_hold", "skip", "few", 3, "per 10 steps"), Status.PROVED, "by induction", 0.12345)

    assert result.as_dict() == {
        "promise": "limits_hold", "about": "skip", "sentence": "few", "bound": 3, "unit": "per 10 steps",
        "status": "proved", "how": "by induction", "seconds": 0.1235,
    }  # fmt: skip
