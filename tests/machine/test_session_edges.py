"""One tick of a run: what follows from an answer for the update, the snapshots, the counts and the saved state."""

from __future__ import annotations

import json

import pytest

from lbw_policy.errors import StateError
from lbw_policy.limits import Outcome
from lbw_policy.machine import Session, by_signal
from lbw_policy.machine.session import Upkeep
from tests.machine.sessions import decide, granted, refused, requests, session, tick, turns

SKIP = "reflex bad { when loss > 5 do skip }\n"
BACK = "reflex worse { when loss > 50 do rollback at most 20 steps }\n"
HALT = "reflex end { when loss > 500 do halt }\n"
SAVE = "reflex save { when loss > 5 do checkpoint }\n"
CLIP = "reflex tall { when loss > 5 do clip to 0.5 }\n"
LEVEL = """
levels normal -> caution
level caution { enter when tone > 5  leave when tone < 2 for 2 steps
  do freeze top 10% of layers by grad_norm  do scale_lr by 0.5 restore over 4 steps }
"""
EVERY_FOURTH = "snapshot every 4 steps"
"""With a limit of 20 steps back, a snapshot is proved after 4 calm ticks."""


def healthy(run: Session) -> tuple[int, ...]:
    assert run.schedule is not None
    return run.schedule.healthy()


def calm(run: Session, ticks: int) -> list[int]:
    """Run calm ticks; returns those after which a snapshot is to be taken."""
    return [run.tick - 1 for _ in range(ticks) if tick(run)[1].take]


# Updates


@pytest.mark.parametrize(
    ("rules", "loss", "updates"),
    [(SKIP, 9.0, False), (HALT, 999.0, False), (CLIP, 9.0, True), (SAVE, 9.0, True), (BACK, 99.0, True)],
)
def test_an_update_follows_unless_it_is_skipped_halted_or_rolled_back(rules: str, loss: float, updates: bool) -> None:
    """The rollback here is refused: there is no snapshot."""
    assert decide(session(rules), loss).updates == updates


def test_a_rollback_leaves_no_update_and_sets_progress_back() -> None:
    run = session(BACK, settings=EVERY_FOURTH)
    calm(run, 8)
    turn, _ = tick(run, 99.0)

    assert not turn.updates
    assert run.progress == 1


def test_what_is_granted_in_part_is_granted() -> None:
    turn = decide(session("reflex slow { when loss > 5 do scale_lr by tone }\n"), 9.0, 0.001)

    assert [grant.outcome for grant in turn.grants] == [Outcome.REDUCED]
    assert turn.granted == turn.grants


def test_a_refused_skip_lets_the_update_through_and_the_next_is_granted() -> None:
    found = turns(session(SKIP), [9.0] * 8)

    assert granted(found, "skip") == [0, 1, 2, 4, 5, 6]
    assert [turn.updates for turn in found] == [False, False, False, True] * 2
    assert refused(found[3]) == {"skip": "3 updates in a row were skipped"}


def test_an_update_that_was_not_applied_is_no_progress() -> None:
    run = session(SKIP)
    for applied in (True, False, True):
        decide(run)
        run.finish(applied=applied)

    assert (run.tick, run.progress) == (3, 2)


def test_what_cannot_be_carried_out_is_refused_with_the_reason_and_costs_nothing() -> None:
    run = session(SKIP + CLIP)
    run.begin({"loss": 9.0})
    turn = run.decide({}, 1.0, lambda request: "not today" if request.action == "skip" else None)

    assert refused(turn) == {"skip": "not today"}
    assert granted([turn], "clip") == [0]
    assert (run.limiter.in_a_row, run.limiter.state_dict()["budgets"]["skip"]) == (0, [])


def test_a_tick_that_never_decided_ends_as_any_other() -> None:
    """Where telemetry or the machine failed."""
    run = seeing(SKIP, "interventions")
    tick(run, 9.0)
    run.begin({"loss": 9.0})

    assert run.finish(applied=True) == Upkeep((), take=False)
    assert (run.tick, run.progress) == (2, 1)
    assert counted(run, [(1.0, 0.0)]) == [0]


def test_every_request_is_answered() -> None:
    run = session(SKIP + BACK + SAVE + "reflex slow { when loss > 5 do scale_lr by 0.5 }\n")
    turn = decide(run, 99.0)

    assert {grant.request.action for grant in turn.grants} == set(requests(turn))


# Snapshots


def test_a_snapshot_is_taken_at_the_first_update_and_then_at_its_distance_once_proved() -> None:
    assert calm(session(BACK, settings=EVERY_FOURTH), 13) == [0, 4, 8, 12]


def test_a_rollback_needs_a_snapshot_that_has_proved_healthy() -> None:
    early, late = (session(BACK, settings=EVERY_FOURTH) for _ in range(2))
    calm(early, 4)
    calm(late, 5)

    assert "no healthy snapshot" in refused(decide(early, 99.0))["rollback"]
    assert decide(late, 99.0).granted[0].amount == 1


def test_a_policy_without_rollback_takes_no_snapshots() -> None:
    run = session(SKIP)

    assert run.schedule is None
    assert calm(run, 20) == []


def test_a_level_above_normal_is_no_calm() -> None:
    run = session(BACK + LEVEL, settings=EVERY_FOURTH)
    calm(run, 3)
    _, upkeep = tick(run, tone=9.0)

    assert (upkeep.lost, upkeep.take) == ((1,), False)
    assert [tick(run, tone=9.0)[1] for _ in range(9)] == [Upkeep((), take=False)] * 9
    assert healthy(run) == ()
    assert [tick(run)[1].take for _ in range(4)] == [False, True, False, False]


def test_a_proved_snapshot_outlasts_trouble() -> None:
    run = session(BACK + LEVEL, settings=EVERY_FOURTH)
    calm(run, 8)
    for _ in range(9):
        tick(run, tone=9.0)

    assert healthy(run) == (1,)


def test_an_update_that_was_left_out_is_not_taken_down() -> None:
    run = session(BACK + SKIP, settings=EVERY_FOURTH)

    assert [tick(run, loss)[1].take for loss in (9.0, 9.0, 1.0, 1.0)] == [False, False, True, False]


def test_a_rollback_drops_what_lies_ahead_and_what_is_not_proved() -> None:
    run = session(BACK, settings=EVERY_FOURTH)
    assert calm(run, 11) == [0, 4, 8]  # of the steps 1, 5 and 9, the first is given up for the third
    _, upkeep = tick(run, 99.0)

    assert (upkeep.lost, upkeep.take) == ((9,), False)
    assert (run.progress, healthy(run)) == (5, (5,))


def test_a_tick_that_rolls_back_is_no_calm_though_the_level_is() -> None:
    rules = BACK + "reflex again { when tone > 5 do rollback at most 20 steps }\n"
    run = session(rules, settings=EVERY_FOURTH)
    calm(run, 5)
    assert tick(run, 99.0)[0].granted
    assert tick(run, 99.0)[0].granted  # the snapshot just restored may be restored again

    assert calm(run, 6) == [10]


def test_where_an_update_follows_a_rollback_all_the_same_none_is_taken_down() -> None:
    """A replay goes on with the recorded updates, whatever was decided."""
    run = session(BACK, settings="snapshot every 1 steps")
    calm(run, 5)
    assert not decide(run, 99.0).updates

    assert not run.finish(applied=True).take


# Counts


def counted(run: Session, moments: list[tuple[float, float]]) -> list[int]:
    """Tell in which ticks the reflex `seen`, which reads a count of the last tick, fires."""
    found = [tick(run, *moment)[0] for moment in moments]
    return [int("seen" in turn.decision.fired) for turn in found]


def seeing(rules: str, event: str, settings: str = "") -> Session:
    """A session with a reflex that fires where a count is above zero; what it does is not counted."""
    return session(rules + f"reflex seen {{ when {event} > 0 do checkpoint }}\n", settings=settings)


@pytest.mark.parametrize(
    ("rules", "loss", "event", "seen"),
    [(SKIP, 9.0, "skips", 1), (SKIP, 9.0, "interventions", 1), (SKIP, 9.0, "clips", 0), (CLIP, 9.0, "clips", 1),
     (SAVE, 9.0, "interventions", 0), (BACK, 99.0, "rollbacks", 0), (BACK, 99.0, "interventions", 0)],
)  # fmt: skip
def test_what_began_at_a_tick_is_counted_at_the_next_and_refusals_and_checkpoints_are_not(
    rules: str, loss: float, event: str, seen: int
) -> None:
    moments = [(each, 0.0) for each in (1.0, loss, 1.0, 1.0)]

    assert counted(seeing(rules, event), moments) == [0, 0, seen, 0]


def test_a_rollback_is_counted() -> None:
    run = seeing(BACK, "rollbacks", EVERY_FOURTH)
    calm(run, 5)

    assert counted(run, [(99.0, 0.0), (1.0, 0.0), (1.0, 0.0)]) == [0, 1, 0]


def test_what_is_held_is_counted_where_it_began() -> None:
    run = seeing(LEVEL, "interventions")

    assert counted(run, [(1.0, tone) for tone in (0.0, 9.0, 9.0, 9.0, 9.0)]) == [0, 0, 1, 0, 0]
    assert run.limiter.frozen_for == 4


# Signals


def test_a_signal_is_read_at_the_ticks_at_which_it_is_due() -> None:
    policy = session("signal lr = telemetry.lr { every 3 steps }\nreflex a { when lr > 5 do skip }\n").policy
    due = [by_signal(policy, tick, {"lr": 1.0, "loss": 2.0}) for tick in range(4)]

    assert [reading.get("lr") for reading in due] == [1.0, None, None, 1.0]
    assert [reading["loss"] for reading in due] == [2.0] * 4


# Saved states

RULES = SKIP + BACK + LEVEL + 'alert seen info when rate(skips, 5 steps) > 1 "seen"\n'
SETTINGS = "snapshot every 4 steps  quarantine at most 3 steps"
STREAM = [(1.0, 0.0)] * 6 + [(9.0, 0.0), (1.0, 9.0), (1.0, 9.0), (9.0, 0.0), (9.0, 0.0), (99.0, 0.0), (1.0, 1.0)] * 3
STREAM += [(9.0, 0.0)] * 5


@pytest.mark.parametrize("cut", range(len(STREAM)))
def test_a_resumed_run_decides_as_if_it_had_never_stopped(cut: int) -> None:
    whole, first, second = (session(RULES, settings=SETTINGS) for _ in range(3))
    expected = [tick(whole, *moment) for moment in STREAM]
    before = [tick(first, *moment) for moment in STREAM[:cut]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))

    assert second.state_dict() == first.state_dict()
    assert before + [tick(second, *moment) for moment in STREAM[cut:]] == expected


def test_the_stream_of_that_test_meets_every_kind_of_event() -> None:
    run = session(RULES, settings=SETTINGS)
    found = [tick(run, *moment) for moment in STREAM]
    done = {grant.request.action for turn, _ in found for grant in turn.granted}

    assert done == {"skip", "rollback", "freeze", "scale_lr"}
    assert any(refused(turn) for turn, _ in found)
    assert any(turn.decision.messages for turn, _ in found)
    assert any(upkeep.lost for _, upkeep in found)


def test_a_run_resumed_without_snapshots_takes_a_new_one_before_it_rolls_back() -> None:
    first, second = (session(BACK, settings=EVERY_FOURTH) for _ in range(2))
    calm(first, 9)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())), snapshots=False)

    assert (second.tick, second.progress, healthy(second)) == (9, 9, ())
    assert "rollback" in refused(decide(second, 99.0))
    assert second.finish(applied=True).take


def test_a_run_without_snapshots_is_resumed() -> None:
    first, second = session(SKIP), session(SKIP)
    turns(first, [9.0] * 2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))

    assert second.state_dict() == first.state_dict()
    assert granted(turns(second, [9.0] * 2), "skip") == [0]


@pytest.mark.parametrize(
    "damage",
    [{"tick": -1}, {"tick": 1.5}, {"events": {}}, {"events": {"interventions": -1}}, {"schedule": None}, {"more": 1}],
)
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    run = session(BACK)

    with pytest.raises(StateError):
        run.load_state_dict({**run.state_dict(), **damage})


def test_a_saved_count_must_not_be_negative() -> None:
    run = session(BACK)
    state = run.state_dict()

    with pytest.raises(StateError):
        run.load_state_dict({**state, "events": {**state["events"], "skips": -1}})


@pytest.mark.parametrize(("last_tick", "rollback"), [(40, []), (0, [40]), (40, [40])])
def test_a_limiter_from_the_future_is_refused(last_tick: int, rollback: list[int]) -> None:
    """It would refuse every tick to come, and so leave the run unguarded, or find its budgets spent for ever."""
    run = session(BACK)
    calm(run, 1)
    state = run.state_dict()
    spent = {**state["limiter"]["budgets"], "rollback": rollback}

    with pytest.raises(StateError):
        run.load_state_dict({**state, "limiter": {**state["limiter"], "last_tick": last_tick, "budgets": spent}})
