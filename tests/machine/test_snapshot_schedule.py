"""Snapshots: when one is taken, when it is trusted, and which are given up."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbw_policy.errors import StateError
from lbw_policy.machine.schedule import SnapshotSchedule, Taken, slack
from lbw_policy.semantics import load

TEXT = """lbw 1
policy p {{ {setting} }}
signal loss = telemetry.loss
reflex broken {{ when not finite(loss)  do {action} }}
limits {{ rollback at most {distance} steps back, at most 3 per 1_000 steps
  skip at most 2 in a row, at most 9 per 1_000 steps }}
"""


def of(distance: int, setting: str = "", action: str = "rollback at most 1 step") -> SnapshotSchedule | None:
    return SnapshotSchedule.of(load(TEXT.format(distance=distance, setting=setting, action=action)))


def schedule(*taken: Taken) -> SnapshotSchedule:
    """A schedule of one snapshot every 10 updates, proved after 3 calm ticks."""
    return SnapshotSchedule(10, 3, list(taken))


def calm(schedule: SnapshotSchedule, ticks: int) -> None:
    for _ in range(ticks):
        assert schedule.pass_tick(calm=True) == ()


def proved(progress: int) -> Taken:
    return Taken(progress, progress, 3)


@pytest.mark.parametrize(
    ("distance", "setting", "every", "proof"),
    [(50, "", 25, 12), (8, "", 4, 2), (4, "", 2, 1), (3, "", 1, 1), (1, "", 1, 1),
     (100, "snapshot every 30 steps", 30, 25), (100, "snapshot every 5 steps", 5, 5)],
)  # fmt: skip
def test_a_policy_gets_half_its_distance_between_snapshots_and_a_quarter_as_proof(
    distance: int, setting: str, every: int, proof: int
) -> None:
    found = of(distance, setting)

    assert found is not None
    assert (found.every, found.proof, found.taken) == (every, proof, [])


def test_a_policy_that_never_rolls_back_takes_no_snapshots() -> None:
    assert of(50, action="skip") is None


def test_a_snapshot_is_healthy_once_it_has_seen_its_calm_ticks_and_not_before() -> None:
    one, found = schedule(), []
    one.take(0, 0)
    for _ in range(4):
        found.append(one.healthy())
        calm(one, 1)

    assert found == [(), (), (), (0,)]


def test_the_calm_ticks_of_a_proved_snapshot_are_counted_no_further() -> None:
    one = schedule(Taken(0, 0))
    calm(one, 9)

    assert one.taken == [Taken(0, 0, 3)]


def test_the_first_snapshot_is_due_at_once_and_the_next_after_its_distance_and_its_proof() -> None:
    assert schedule().due(0)
    assert [schedule(proved(20)).due(progress) for progress in (20, 29, 30, 31)] == [False, False, True, True]
    assert [schedule(Taken(20, 20, calm)).due(30) for calm in (0, 2, 3)] == [False, False, True]


def test_the_newest_snapshot_decides_when_the_next_is_due() -> None:
    assert not schedule(proved(10), proved(20)).due(29)
    assert not schedule(proved(10), Taken(20, 20, 2)).due(30)


def test_a_third_snapshot_replaces_the_oldest() -> None:
    one = schedule(proved(0), proved(10))
    one.take(25, 20)

    assert one.taken == [proved(10), Taken(25, 20)]


def test_a_second_snapshot_leaves_the_first() -> None:
    one = schedule(proved(0))
    one.take(12, 10)

    assert one.healthy() == (0,)


def test_a_snapshot_of_the_same_progress_replaces_the_other() -> None:
    one = schedule(proved(0), proved(10))
    one.take(31, 10)

    assert one.taken == [proved(0), Taken(31, 10)]


def test_trouble_drops_what_is_not_proved_and_keeps_what_is() -> None:
    one = schedule(proved(0), Taken(10, 10, 2))

    assert one.pass_tick(calm=False) == (10,)
    assert one.taken == [proved(0)]
    assert one.pass_tick(calm=False) == ()
    calm(one, 3)
    assert one.healthy() == (0,)


def test_a_rollback_drops_what_lies_ahead_and_keeps_what_it_restored() -> None:
    one = schedule(proved(10), proved(20))

    assert one.rolled_back(10) == (20,)
    assert one.taken == [proved(10)]
    assert one.rolled_back(10) == ()


def test_what_is_not_held_in_fact_is_forgotten() -> None:
    one = schedule(proved(10), Taken(25, 20, 1))
    one.keep_only({(25, 20), (10, 20), (0, 10)})

    assert one.taken == [Taken(25, 20, 1)]


def test_a_resumed_schedule_trusts_nothing_that_was_not_proved() -> None:
    one, other = schedule(proved(0), Taken(10, 10, 2)), schedule()
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))

    assert other == one
    assert other.healthy() == (0,)


@pytest.mark.parametrize(
    "taken",
    [[[0, 0, 3], [9, 9, 3], [20, 20, 3]], [[0, -5, 3]], [[0, 0, -1]], [[0, 0]], [[0, 0, 3, 1]], [["0", 0, 3]], None],
)
def test_a_damaged_schedule_is_refused(taken: object) -> None:
    with pytest.raises(StateError):
        schedule().load_state_dict({"taken": taken})


@settings(deadline=None)
@given(st.lists(st.sampled_from(("step", "step", "step", "trouble", "rollback")), max_size=80))
def test_a_healthy_snapshot_saw_its_calm_ticks_and_one_is_at_hand_once_one_was(events: list[str]) -> None:
    """Driven as a run drives it: trouble and rollbacks are not calm, snapshots are taken at calm updates."""
    one, progress, since, healthy = schedule(), 0, dict[int, int](), False
    for tick, event in enumerate(events):
        lost: tuple[int, ...] = ()
        if event == "rollback" and one.healthy():
            progress = one.healthy()[0]
            lost = one.rolled_back(progress)
        lost += one.pass_tick(calm=event == "step")
        since = {at: ticks + (event == "step") for at, ticks in since.items() if at not in lost}
        progress += event == "step"
        if event == "step" and one.due(progress):
            one.take(tick, progress)
            since[progress] = 0
        healthy = healthy or bool(one.healthy())

        assert len(one.taken) <= 2
        assert all(since[at] >= 3 for at in one.healthy())
        assert bool(one.healthy()) == healthy


@settings(max_examples=80, deadline=None)
@given(
    distance=st.integers(4, 200),
    every=st.none() | st.integers(1, 200),
    hold=st.integers(1, 8),
    begins=st.integers(0, 300),
)
@example(distance=4, every=1, hold=2, begins=0)
@example(distance=12, every=3, hold=3, begins=0)
@example(distance=50, every=None, hold=12, begins=7)
def test_a_healthy_snapshot_is_in_reach_however_far_it_is_stretched(
    distance: int, every: int | None, hold: int, begins: int
) -> None:
    """Where the policy's own snapshots suffice, so do those taken as rarely, and noticed as late, as ever allowed."""
    setting = f"snapshot every {every} steps" if every else ""
    policy = load(f"""lbw 1
policy p {{ {setting} }}
signal g = telemetry.grad_norm
levels n -> r
level r {{ enter when g > 1 for {hold} steps  stay at most 5 steps  do rollback at most {distance} steps }}
limits {{ rollback at most {distance} steps back, at most 3 per 1_000 steps }}
""")
    bound = slack(policy)
    assert bound is not None
    found = SnapshotSchedule.of(policy)
    assert found is not None
    written = found.every
    if written + found.proof + hold > distance or hold > found.proof:
        # Too far back, or proved before trouble is noticed: the policy's own snapshots may not suffice.
        assert (bound.late, bound.every) == (1, written)
        return
    assert written <= bound.every <= max(written, distance // 2)
    found.every = bound.every
    noticed = begins + 2 * distance + bound.late - 1 + hold
    for tick in range(noticed):
        found.pass_tick(calm=True)
        if found.due(tick + 1):
            found.take(tick, tick + 1)
    before_trouble = [progress for progress in found.healthy() if progress <= begins + 2 * distance]
    assert before_trouble
    assert noticed - max(before_trouble) <= distance
