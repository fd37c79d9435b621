"""One run under one policy: state machine, limiter and snapshot schedule, tick by tick.

The guard, in-file tests and replays all drive this, so a policy decides the same in each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from lbw_policy import saved
from lbw_policy.limits import Allowance, Grant, Limiter, Outcome, Request, Situation
from lbw_policy.machine.ahead import Answering, Ruling
from lbw_policy.machine.decision import Decision
from lbw_policy.machine.foresight import Foreseen, Foresight, Operations
from lbw_policy.machine.machine import RiskValues, StateMachine
from lbw_policy.machine.schedule import SnapshotSchedule
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.signals import EVENTS, LR_FACTOR
from lbw_policy.semantics.walk import own

_ENDING = frozenset({"skip", "rollback", "halt"})
_HARMLESS = frozenset({"checkpoint", "halt"})
_NOTHING = dict.fromkeys(EVENTS, 0)


@frozen
class Turn:
    """What one tick decided, and what the limiter made of it."""

    decision: Decision
    grants: tuple[Grant, ...]

    @property
    def granted(self) -> tuple[Grant, ...]:
        """The grants that allow something."""
        return tuple(grant for grant in self.grants if grant.outcome is not Outcome.REFUSED)

    @property
    def updates(self) -> bool:
        """Whether an update follows."""
        return not any(grant.request.action in _ENDING for grant in self.granted)


@frozen
class Upkeep:
    """What a tick's end asks of the snapshots: those to drop, by progress, and whether to take one."""

    lost: tuple[int, ...]
    take: bool


@frozen
class Present:
    """A tick's readings by signal, as far as they are at hand; `unseen` has those that the host must compute."""

    values: Mapping[str, Foreseen]
    unseen: frozenset[str] = frozenset()


_NO_UPKEEP = Upkeep((), take=False)
_NOTHING_ASKED = Situation()


class Session:
    """The deciding half of a run. One tick is `begin`, `decide`, `finish`; `tick` counts them for ever.

    A `lagged` one can say what the coming tick will be granted before its readings are there (`foresee`): its levels
    move by what the tick before said, and its snapshots are taken when the tick before was calm.
    """

    def __init__(self, policy: p.Policy, *, lagged: bool = False) -> None:
        self.policy = policy
        self.tick = 0
        self.machine = StateMachine(policy, lagged=lagged)
        self.limiter = Limiter(policy.limits)
        self.schedule = SnapshotSchedule.of(policy)
        self.factors: Mapping[str, int] = {}
        self._turn: Turn | None = None
        self._read_own = [signal.name for signal in policy.signals if own(signal)]
        self._events = dict.fromkeys(EVENTS, 0)

    @property
    def level(self) -> str:
        """The name of the present level."""
        return self.machine.level

    @property
    def progress(self) -> int:
        """Accepted updates in the present history of the weights."""
        return self.limiter.progress

    def thin(self, factors: Mapping[str, int]) -> None:
        """From now on every signal is sampled so many times more rarely than the policy says, by name."""
        self.factors = factors
        self.machine.evaluator.thin(factors)

    def begin(self, values: Mapping[str, float | None]) -> None:
        """Take in the tick's signals by name."""
        self._turn = None
        self.machine.begin(self.tick, {**values, **self._own()} if self._read_own else values)

    def foresee(self, present: Present, operations: Operations, norm: Foreseen) -> Ruling:
        """Return what the coming tick's rules will be granted, from readings that are not all known to the host.

        `norm` is that of the gradients as they are now. Only of a lagged session, between `finish` and `begin`;
        `UnforeseenError` where it takes all readings to tell.
        """
        values = {**present.values, **self._own()} if self._read_own else present.values
        compiled = self.machine.evaluator.compiled
        foresight = Foresight(compiled, operations, self.tick, values, present.unseen)
        return Answering(self.machine, foresight, norm, Allowance.of(self.limiter, self.tick)).ruling()

    def _own(self) -> dict[str, float]:
        """Return those of the guard's own numbers that the policy reads, as the last tick left them."""
        numbers = {**self._events, LR_FACTOR: self.limiter.factor_at(self.tick - 1)}
        return {name: float(numbers[name]) for name in self._read_own}

    def decide(
        self,
        risks: Mapping[str, RiskValues],
        grad_norm: float | None = None,
        impossible: Callable[[Request], str | None] = lambda _: None,
        layer_norm: float | None = None,
    ) -> Turn:
        """Decide, and answer every request; `impossible` tells why one cannot be carried out now.

        `grad_norm` is that of the gradients as they are now, `layer_norm` the largest of a layer's.
        """
        decision, situation = self.machine.decide(risks), _NOTHING_ASKED
        if decision.requests:
            healthy = self.schedule.healthy() if self.schedule else ()
            situation = Situation(healthy, grad_norm, impossible, self.machine.otherwise, layer_norm)
        self._turn = Turn(decision, self.limiter.rule(self.tick, decision.requests, situation))
        return self._turn

    @property
    def due(self) -> bool:
        """Whether a lagged run takes a snapshot after the coming tick's update, by what is known before it."""
        return self.machine.settled and self.schedule is not None and self.schedule.due(self.progress)

    def finish(self, *, applied: bool, captured: int | None = None) -> Upkeep:
        """End the tick, telling whether an update was applied; returns what to do with snapshots.

        `captured` is the progress of the snapshot that a lagged run took after this update: it counts if the tick
        turns out to have been calm, and is lost if not.
        """
        self.limiter.stepped(applied=applied)
        lost = () if captured is None else (captured,)
        upkeep = self._keep_snapshots(applied, lost) if self._turn else Upkeep(lost, take=False)
        self._events = _count(self._turn)
        self.tick += 1
        self._turn = None
        return upkeep

    def _keep_snapshots(self, applied: bool, captured: tuple[int, ...]) -> Upkeep:
        if self.schedule is None or self._turn is None:
            return _NO_UPKEEP
        granted = self._turn.granted if self._turn.grants else ()
        back = [grant for grant in granted if grant.request.action == "rollback"]
        calm = self.machine.settled and not back
        lost = self.schedule.rolled_back(int(back[0].amount or 0)) if back else ()
        lost += self.schedule.pass_tick(calm=calm)
        if self.machine.lagged:
            take = calm and applied and bool(captured)
            lost += () if take else captured
        else:
            take = calm and applied and self.schedule.due(self.progress)
        if take:
            self.schedule.take(self.tick, self.progress)
        return Upkeep(lost, take) if lost or take else _NO_UPKEEP

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return everything that decides as plain data."""
        return {
            "tick": self.tick,
            "machine": self.machine.state_dict(),
            "limiter": self.limiter.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule else None,
            "events": dict(self._events),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, snapshots: bool = True) -> None:
        """Go on from a saved state; without `snapshots` the schedule starts anew. Raises StateError."""
        parts = saved.record(state, ("tick", "machine", "limiter", "schedule", "events"))
        tick, events = saved.natural(parts["tick"]), saved.record(parts["events"], tuple(EVENTS))
        counts = {name: saved.natural(count) for name, count in events.items()}
        self.machine.load_state_dict(saved.mapping(parts["machine"]))
        self.limiter.load_state_dict(saved.mapping(parts["limiter"]))
        if self.schedule:
            empty: dict[str, Any] = {"taken": []}
            self.schedule.load_state_dict(saved.mapping(parts["schedule"]) if snapshots else empty)
        self.tick, self._events = tick, counts


def _count(turn: Turn | None) -> dict[str, int]:
    """Count what began at a tick, by event."""
    if turn is None or not turn.grants:
        return _NOTHING
    began = [grant.request.action for grant in turn.granted if grant.starts]
    interventions = [action for action in began if action not in _HARMLESS]
    one_kind = {"skips": "skip", "clips": "clip", "rollbacks": "rollback"}
    return {"interventions": len(interventions), **{name: began.count(kind) for name, kind in one_kind.items()}}


def by_signal(
    policy: p.Policy, tick: int, readings: Mapping[str, float | None], factors: Mapping[str, int] | None = None
) -> dict[str, float | None]:
    """Return readings named by source and group under the names of the policy's signals that are due at this tick.

    `factors` tells of signals that are thinned how many times more rarely they are due.
    """
    get = readings.get
    if not factors:
        return {signal.name: get(signal.key) for signal in policy.signals if not tick % signal.every}
    due = (signal for signal in policy.signals if not tick % (signal.every * factors.get(signal.name, 1)))
    return {signal.name: get(signal.key) for signal in due}
