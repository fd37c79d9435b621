"""When to take snapshots, and which have proved healthy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from attrs import define, field, frozen

from lbw_policy import saved
from lbw_policy.semantics.policy import Policy, Rollback
from lbw_policy.semantics.walk import actions_of

SLOTS = 2


@frozen
class Taken:
    """A snapshot: the tick and progress it was taken at, and the calm ticks since, counted until it is proved."""

    tick: int
    progress: int
    calm: int = 0


@frozen
class Slack:
    """How far sampling and snapshots may be stretched and every rollback still find a healthy snapshot in reach.

    `late` is the most ticks between two samples of what levels read, by which trouble shows before a snapshot taken
    in it counts as healthy; `every` the most updates between two snapshots.
    """

    late: int
    every: int


def slack(policy: Policy) -> Slack | None:
    """Return the slack of a policy's rollbacks, None if it has none.

    The newest healthy snapshot is at most `every` + `proof` old when trouble begins; until it is noticed the
    holds of the levels pass, and the ticks to the next sample. A snapshot taken in that time must not be proved
    before it is over: it would be restored, and make room for another. Where the policy's own snapshots do not
    suffice for that, there is no slack.
    """
    schedule, limit = SnapshotSchedule.of(policy), policy.limits.rollback
    if schedule is None or limit is None:
        return None
    reach = min(limit.distance, *(one.at_most for one in actions_of(policy) if isinstance(one, Rollback)))
    hold = max((level.enter.count for level in policy.levels if level.enter), default=0)
    room = reach - schedule.proof - hold
    late = min(schedule.proof - max(hold, 1) + 1, room - schedule.every + 1)
    if late < 1:
        return Slack(1, schedule.every)
    return Slack(late, max(schedule.every, min(limit.distance // 2, room - late + 1)))


@define
class SnapshotSchedule:
    """Two snapshots in rotation, `every` accepted updates apart.

    A snapshot may be restored once it has seen `proof` calm ticks: damage that was in the weights
    when it was taken would have shown by then. One that trouble overtakes before is dropped.
    """

    every: int
    proof: int
    taken: list[Taken] = field(factory=list)

    @classmethod
    def of(cls, policy: Policy) -> SnapshotSchedule | None:
        """Return the schedule a policy's rollbacks need, None if it has none.

        With a limit of D steps: one every D/2 (or as the policy says), proved after D/4, so that a
        healthy one is at most 3D/4 old and D/4 steps are left for trouble to be noticed.
        """
        limit = policy.limits.rollback
        if limit is None or not any(isinstance(action, Rollback) for action in actions_of(policy)):
            return None
        every = policy.snapshot_every or max(1, limit.distance // 2)
        return cls(every, max(1, min(every, limit.distance // 4)))

    def healthy(self) -> tuple[int, ...]:
        """Return the progress of every snapshot that may be restored."""
        return tuple(one.progress for one in self.taken if one.calm >= self.proof)

    def due(self, progress: int) -> bool:
        """Tell whether the next snapshot should be taken at this progress."""
        # INVARIANT: the newest is proved before the other, older one is given up for a third.
        newest = self.taken[-1] if self.taken else None
        return newest is None or (progress - newest.progress >= self.every and newest.calm >= self.proof)

    def take(self, tick: int, progress: int) -> None:
        """Note a snapshot; of more than two the oldest is given up."""
        kept = [one for one in self.taken if one.progress != progress]
        self.taken = [*kept, Taken(tick, progress)][-SLOTS:]

    def pass_tick(self, *, calm: bool) -> tuple[int, ...]:
        """Note one tick; return the progress of snapshots that trouble overtook."""
        if calm:
            for place, one in enumerate(self.taken):
                if one.calm < self.proof:
                    self.taken[place] = Taken(one.tick, one.progress, one.calm + 1)
            return ()
        lost = tuple(one.progress for one in self.taken if one.calm < self.proof)
        self.taken = [one for one in self.taken if one.calm >= self.proof]
        return lost

    def rolled_back(self, progress: int) -> tuple[int, ...]:
        """Note a rollback; return the progress of snapshots that lie in the history it gave up."""
        lost = tuple(one.progress for one in self.taken if one.progress > progress)
        self.taken = [one for one in self.taken if one.progress <= progress]
        return lost

    def keep_only(self, held: Collection[tuple[int, int]]) -> None:
        """Forget every snapshot that is not held in fact, by tick and progress."""
        self.taken = [one for one in self.taken if (one.tick, one.progress) in held]

    def state_dict(self) -> dict[str, Any]:
        """Return the snapshots' notes as plain data."""
        return {"taken": [[one.tick, one.progress, one.calm] for one in self.taken]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved notes; raises StateError where they are damaged."""
        rows = saved.items(saved.record(state, ("taken",))["taken"], SLOTS)
        self.taken = [Taken(*(saved.natural(value) for value in saved.exactly(row, 3))) for row in rows]
