"""Counterexamples: every broken promise is shown by a short test that fails in the real session, and no kept one is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve

from lbw_policy.claims import Claim
from lbw_policy.limits import Limiter, limiter
from lbw_policy.limits.budget import SlidingBudget
from lbw_policy.machine.ladder import Configuration, Ladder
from lbw_policy.semantics import load
from lbw_policy.semantics.trial import Trial
from lbw_policy.trials import run_trial, trace_of
from lbw_policy.witness.counterexamples import Effort, Search, block, refute
from lbw_policy.witness.readouts import ends_calm, is_torn
from tests.witness.broken_policies import BROKEN, Broken

ROUGH = """lbw 1
policy rough { }
signal loss = telemetry.loss
signal grad = telemetry.grad_norm
signal lr   = telemetry.lr
reflex spike  { when grad > 3      do skip }
reflex glitch { when lr > 4 * median(lr, 16 steps)  do scale_lr by median(lr, 16 steps) / lr }
levels normal -> caution -> recover
level caution { enter when loss > 6  leave when loss < 5 for 2 steps  stay at most 9 steps  cooldown 20 steps  do skip }
level recover { enter when loss > 9  leave when loss < 5 for 2 steps  stay at most 9 steps
                do rollback at most 20 steps  each 2 steps do rollback at most 20 steps }
limits {
  scale_lr  within [0.1, 1]
  skip      at most 4 in a row, at most 20 per 200 steps
  rollback  at most 20 steps back, at most 3 per 200 steps
  intervene at most 40 per 200 steps
}
"""
KEPT = (
    Claim("limits_hold", "skip", "", 20, "per 200 steps"),
    Claim("limits_hold", "skip in a row", "", 4, "updates"),
    Claim("limits_hold", "rollback", "", 3, "per 200 steps"),
    Claim("limits_hold", "rollback distance", "", 20, "steps"),
    Claim("limits_hold", "intervene", "", 40, "per 200 steps"),
    Claim("limits_hold", "scale_lr", "", 0.1, "at least"),
    Claim("cooldown_respected", "level caution", "", 20, "steps"),
    Claim("dwell_bounded", "level recover", "", 9, "steps"),
    Claim("unknown_never_relaxes", "level caution", ""),
    Claim("no_conflict", "level recover", ""),
    Claim("calm_returns", "", "", 20, "steps"),
    Claim("progress_guaranteed", "", "", 40, "updates in any 200 steps"),
)


def shown(broken: Broken) -> tuple[Trial, str]:
    """Return the counterexample and its text, after a look that the text fails too."""
    trial = refute(load(broken.text), broken.claim)
    assert trial is not None
    policy = load(f"{broken.text}\n{block(trial)}")
    assert not run_trial(policy, policy.tests[-1]).passed
    return trial, block(trial)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_policy_is_shown_by_a_test_that_fails(name: str) -> None:
    trial, text = shown(BROKEN[name])
    assert len(trial.given) <= 3
    assert sum(len(series.stretches) for series in trial.given) <= 7
    assert len(text.splitlines()) <= 7


def test_a_counterexample_is_short_and_plain() -> None:
    assert (
        shown(BROKEN["comes back sooner than promised"])[1]
        == """test "level caution is not entered again so soon" {
  given loss = 6 x 2, 4 x 2, 6 x 2
  expect scale_lr at most 1 time
}
"""
    )
    assert (
        shown(BROKEN["stays longer than promised"])[1]
        == """test "level caution is left in the end" {
  given grad = 6, 1 x 50
  expect level normal within 50 steps after step 0
}
"""
    )


def test_the_same_seed_finds_the_same_counterexample() -> None:
    for name in ("enters on one signal and leaves on another", "asks for NaN to leave", "cannot be left"):
        policy = load(BROKEN[name].text)
        one, other = Search(policy, seed=3), Search(policy, seed=3)
        assert refute(policy, BROKEN[name].claim, one) == refute(policy, BROKEN[name].claim, other)
        assert (one.tries, one.ticks) == (other.tries, other.ticks)


def test_finite_readings_are_preferred_to_nan() -> None:
    for name in ("skips all it wants", "enters on one signal and leaves on another", "rolls back on every step"):
        assert "nan" not in shown(BROKEN[name])[1]


def test_what_lets_an_unknown_level_go_is_unknown_when_it_does() -> None:
    for name in ("asks for NaN to leave", "leaves on what was", "divides by infinity"):
        trial, text = shown(BROKEN[name])
        trace = trace_of(load(BROKEN[name].text), trial)
        assert trace.moments[-1].decision.previous == "caution"
        assert trace.moments[-1].level == "normal"
        assert "nan" in text or "inf" in text


def test_a_conflict_is_on_one_reading_and_calm_is_calm() -> None:
    torn = BROKEN["enters and leaves on the same reading"]
    assert is_torn(load(torn.text), shown(torn)[0], "caution")
    late = BROKEN["takes longer than promised to come back"]
    assert ends_calm(load(late.text), shown(late)[0], 9)


@pytest.mark.parametrize("claim", KEPT, ids=lambda claim: f"{claim.promise} {claim.about}")
def test_a_promise_that_is_kept_is_not_refuted(claim: Claim) -> None:
    assert refute(load(ROUGH), claim) is None


@pytest.mark.parametrize(("promise", "about"), [("survives_resume", ""), ("refines_parent", ""), ("no_such", "x"),
                                                ("limits_hold", "all else"), ("everything_can_fire", "reflex x fires"),
                                                ("skip_cannot_livelock", "baselines")])  # fmt: skip
def test_what_no_run_can_show_is_not_refuted(promise: str, about: str) -> None:
    assert refute(load(ROUGH), Claim(promise, about, "")) is None


TOO_MUCH = (
    Claim("limits_hold", "skip", "", 19, "per 200 steps"),
    Claim("limits_hold", "skip in a row", "", 3, "updates"),
    Claim("limits_hold", "rollback", "", 2, "per 200 steps"),
    Claim("limits_hold", "rollback distance", "", 4, "steps"),
    Claim("limits_hold", "rollback spacing", "", 150, "steps"),
    Claim("limits_hold", "scale_lr", "", 0.2, "at least"),
    Claim("cooldown_respected", "level caution", "", 40, "steps"),
    Claim("dwell_bounded", "level recover", "", 8, "steps"),
    Claim("oscillation_bounded", "level recover", "", 12, "steps"),
    Claim("calm_returns", "", "", 2, "steps"),
    Claim("progress_guaranteed", "", "", 195, "updates in any 200 steps"),
    Claim("skip_cannot_livelock", "", "", 3, "steps in a row"),
)
"""More than the rough policy keeps."""


@pytest.mark.parametrize("claim", TOO_MUCH, ids=lambda claim: f"{claim.promise} {claim.about}")
def test_a_promise_of_a_little_more_than_is_kept_is_refuted(claim: Claim) -> None:
    assert shown(Broken(ROUGH, claim))


# A limiter and a ladder that do not keep their word


def anything(*_: object) -> bool:
    return True


def unheld(value: float, _low: float, _high: float) -> float:
    return value


def always_open(move: Callable[..., Configuration]) -> Callable[..., Configuration]:
    def moved(ladder: Ladder, now: Configuration, target: int, *, armed: bool) -> Configuration:
        found = move(ladder, now, target, armed=armed)
        return evolve(found, cooling=(0,) * len(found.cooling))

    return moved


def refuted(about: str, promise: str = "limits_hold") -> Trial | None:
    return refute(load(ROUGH), next(one for one in KEPT if (one.promise, one.about) == (promise, about)))


@pytest.mark.parametrize("about", ["skip", "rollback", "intervene"])
def test_a_budget_that_always_allows_is_found_out(monkeypatch: pytest.MonkeyPatch, about: str) -> None:
    monkeypatch.setattr(SlidingBudget, "allows", anything)
    trial = refuted(about)
    assert trial is not None
    assert trial.ticks <= 200


def test_a_row_that_never_ends_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limiter, "_skip", lambda self, tick, request, limit: limiter.Grant(request, _granted))
    assert refuted("skip in a row") is not None


def test_a_clamp_that_does_not_hold_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "clamp", unheld)
    assert refuted("scale_lr") is not None


def test_a_cooldown_that_is_forgotten_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ladder, "_move", always_open(Ladder._move))
    assert refuted("level caution", "cooldown_respected") is not None


_granted = limiter.Outcome.GRANTED


def test_a_search_stops_when_its_effort_is_spent() -> None:
    policy = load(BROKEN["cannot be left"].text)
    search = Search(policy, Effort(tries=5, ticks=10_000))
    assert refute(policy, BROKEN["cannot be left"].claim, search) is not None
    assert search.tries <= 2 * (5 + 5)
