"""Guard: watches one optimizer's updates, lets the policy decide, and acts within its limits."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from attrs import define

from lbw_policy import saved
from lbw_policy.errors import Halted, StateError
from lbw_policy.limits import Grant, Limiter, Outcome, Situation
from lbw_policy.machine import Decision, RiskValues, StateMachine
from lbw_policy.record import Intervention, Ledger, log
from lbw_policy.risk import Assessment, RiskModel
from lbw_policy.runtime.effects import Effects, granted
from lbw_policy.runtime.hooks import Hooks
from lbw_policy.runtime.records import Recorder
from lbw_policy.runtime.schedule import SnapshotSchedule
from lbw_policy.runtime.summary import Summary, summarise
from lbw_policy.semantics.policy import Policy
from lbw_policy.telemetry import Collector, Readings

_VERSION = 1
_MOST_FAILURES = 10
"""After this many failing ticks in a row the guard stops trying; the run goes on unguarded."""
_PATIENCE = 20
"""Ticks after which a signal that the loop should observe and never did is worth a warning."""


@define(eq=False)
class Parts:
    """What a guard is made of; `attach` puts them together."""

    policy: Policy
    collector: Collector
    risks: dict[str, RiskModel]
    machine: StateMachine
    limiter: Limiter
    effects: Effects
    schedule: SnapshotSchedule | None
    ledger: Ledger


class Guard:
    """The runtime of one policy on one optimizer; made by `attach`.

    `mode` is `act`, or `shadow`: then everything is decided and recorded and nothing is changed.
    """

    def __init__(self, parts: Parts, mode: str = "act") -> None:
        self.mode = mode
        self.tick = 0
        self.hooks: Hooks | None = None
        self._parts = parts
        self._recorder = Recorder(parts.policy, parts.machine, parts.ledger)
        self._risk: Mapping[str, Assessment] = {}
        self._readings = Readings({}, {})
        self._grants: tuple[Grant, ...] = ()
        self._decision: Decision | None = None
        self._updates = True
        self._failures = 0
        self._silent: set[str] | None = {
            signal.name for signal in parts.policy.signals if _told(signal.source, signal.observed)
        }

    # For the training loop and its author

    def observe(self, **values: object) -> None:
        """Tell the guard this step's loss and other numbers the policy reads; tensors are not read back here.

        Raises ValueError for a name that the policy does not read, TypeError for what is not one number.
        """
        self._parts.collector.observe(values)

    @property
    def policy(self) -> Policy:
        """The attached policy."""
        return self._parts.policy

    @property
    def level(self) -> str:
        """The name of the present level."""
        return self._parts.machine.level

    @property
    def progress(self) -> int:
        """Accepted updates in the present history of the weights."""
        return self._parts.limiter.progress

    @property
    def risk(self) -> Mapping[str, Assessment]:
        """What each risk of the policy said at the last tick, by name."""
        return MappingProxyType(dict(self._risk))

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """The newest records, oldest first."""
        return tuple(self._parts.ledger.records)

    def risk_status(self, name: str) -> str:
        """Return `not ready`, `not trusted` or `trusted` for a risk of the policy, with the reason why."""
        model = self._parts.risks[name]
        return model.status + (f": {model.why}" if model.why else "")

    def summary(self) -> Summary:
        """Return what the guard did so far; `str()` of it is for people."""
        status = {name: self.risk_status(name) for name in self._parts.risks}
        return summarise(self, status, self._parts.ledger)

    def detach(self) -> None:
        """Take the guard off the optimizer; the run goes on as if it had never been there."""
        if self.hooks is not None:
            self.hooks.remove()
            self.hooks = None
        self._parts.effects.release()
        self._parts.collector.detach()

    # Called by the hooks

    def before_update(self) -> None:
        """Decide and act; raises Halted if the policy stops the run. A failure of the guard itself never spreads."""
        try:
            self._before()
        except Halted:
            raise
        except Exception as error:
            self._failed(error)

    def after_update(self) -> None:
        """Undo what must not outlast the update, and learn from it."""
        try:
            self._after()
        except Exception as error:
            self._failed(error)
        self.tick += 1

    def abandon(self) -> None:
        """The last step raised: leave learning rates and gradients as the run had them."""
        self._parts.effects.release()
        self._parts.collector.forget()
        self._parts.limiter.stepped(applied=False)
        self.tick += 1

    def closure_loss(self, loss: object) -> None:
        """Observe the loss a closure returned, unless the loop tells another one."""
        try:
            self._parts.collector.observe({"loss": loss})
        except (TypeError, ValueError):
            log.debug("the closure returned no loss that can be observed")

    # One tick

    def _before(self) -> None:
        self._updates, self._grants, self._decision = True, (), None
        self._parts.effects.release()
        if self._failures >= _MOST_FAILURES:
            return
        parts = self._parts
        self._readings = parts.collector.read(self.tick)
        parts.machine.begin(self.tick, self._values())
        self._decision = parts.machine.decide(self._assess())
        self._grants = self._answer(self._decision)
        parts.effects.choose(self._grants, self._readings.layers)
        self._record()
        self._act()
        self._failures = 0

    def _values(self) -> dict[str, float | None]:
        readings = self._readings.values
        due = [signal for signal in self.policy.signals if self.tick % signal.every == 0]
        values = {signal.name: readings.get(signal.source) for signal in due}
        self._notice_silence(values)
        return values

    def _notice_silence(self, values: Mapping[str, float | None]) -> None:
        if self._silent is None:
            return
        self._silent -= {name for name, value in values.items() if value is not None}
        if self.tick >= _PATIENCE:
            for name in sorted(self._silent):
                self._recorder.warn(
                    self.tick, self.level, f"signal `{name}` was never observed: call `guard.observe(...)`"
                )
            self._silent = None

    def _assess(self) -> dict[str, RiskValues]:
        machine, found = self._parts.machine, {}
        for risk in self.policy.risks:
            extra = machine.features(risk)
            found[risk.name] = self._parts.risks[risk.name].assess(self.tick, self._readings.values, extra)
        self._risk = found
        return {name: RiskValues(one.probability, one.alarm, one.trusted) for name, one in found.items()}

    def _answer(self, decision: Decision) -> tuple[Grant, ...]:
        parts, possible, refused = self._parts, [], []
        for request in decision.requests:
            reason = parts.effects.impossible(request)
            if reason is None:
                possible.append(request)
            else:
                refused.append(Grant(request, Outcome.REFUSED, None, reason, starts=False))
        healthy = parts.schedule.healthy() if parts.schedule else ()
        situation = Situation(healthy, self._readings.values.get("grad_norm"))
        return (*parts.limiter.rule(self.tick, possible, situation), *refused)

    def _record(self) -> None:
        assert self._decision is not None
        self._recorder.tick(self, self._decision, self._grants, self._parts.effects.frozen)

    def _act(self) -> None:
        """Carry out the grants; their records are already made."""
        if self.mode == "shadow":
            return
        if any(grant.request.action == "halt" for grant in granted(self._grants)):
            rule = next(grant.request.rule for grant in self._grants if grant.request.action == "halt")
            tick, self.tick = self.tick, self.tick + 1
            raise Halted(f"policy `{self.policy.name}` halted the run at tick {tick}: {rule}", tick)
        self._updates = self._parts.effects.apply(self._grants)
        if self._updates:
            self._parts.collector.before_update()

    def _after(self) -> None:
        parts = self._parts
        parts.effects.release()
        if self._failures:
            return
        if self._updates:
            parts.collector.after_update()
        else:
            parts.collector.forget()
        parts.limiter.stepped(applied=self._updates)
        self._learn()
        self._keep_snapshots()

    def _learn(self) -> None:
        values = self._readings.values
        finite = not any(values.get(name) for name in ("nonfinite_grads", "nonfinite_params"))
        intervened = self.mode == "act" and any(_changes(grant) for grant in granted(self._grants))
        for model in self._parts.risks.values():
            model.learn(self.tick, values.get("loss"), finite, intervened)

    def _keep_snapshots(self) -> None:
        schedule, snapshots = self._parts.schedule, self._parts.effects.snapshots
        if schedule is None or snapshots is None or self._decision is None:
            return
        back = [grant for grant in granted(self._grants) if grant.request.action == "rollback"]
        calm = self.level == self.policy.levels[0].name and not back
        lost = schedule.rolled_back(int(back[0].amount or 0)) if back else ()
        for progress in (*lost, *schedule.pass_tick(calm=calm)):
            snapshots.drop(progress)
        progress = self._parts.limiter.progress
        if calm and self._updates and schedule.due(progress):
            if self.mode == "act":
                snapshots.capture(self.tick, progress)
            schedule.take(self.tick, progress)

    def _failed(self, error: Exception) -> None:
        """Fail safe: undo everything, record it, and let the run go on (or halt, if the policy says so)."""
        self._failures += 1
        self._updates = True
        self._parts.effects.release()
        reason = traceback.format_exception_only(error)[-1].strip()
        self._recorder.failure(self.tick, self.level, reason, self.progress)
        log.error("the guard failed at tick %d; this update is not guarded", self.tick, exc_info=error)
        if self.policy.on_failure == "halt":
            raise Halted(f"the guard failed at tick {self.tick}: {reason}", self.tick) from error

    # State

    def state_dict(self, *, snapshots: bool = False) -> dict[str, Any]:
        """Return everything the guard remembers as plain data; with `snapshots`, also their tensors.

        Without them a resumed guard decides the same, but cannot roll back to before the resume.
        """
        parts = self._parts
        state: dict[str, Any] = {
            "version": _VERSION,
            "policy": self.policy.digest,
            "tick": self.tick,
            "collector": parts.collector.state_dict(),
            "machine": parts.machine.state_dict(),
            "limiter": parts.limiter.state_dict(),
            "ledger": parts.ledger.state_dict(),
            "risks": {name: model.state_dict() for name, model in parts.risks.items()},
            "schedule": None,
            "snapshots": None,
        }
        if snapshots and parts.schedule and parts.effects.snapshots:
            state["schedule"] = parts.schedule.state_dict()
            state["snapshots"] = parts.effects.snapshots.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; raises StateError, changing nothing, if it is damaged or another policy's."""
        before = self.state_dict(snapshots=True)
        try:
            self._load(state)
        except StateError:
            self._load(before)
            raise

    def _load(self, state: Mapping[str, Any]) -> None:
        names = (
            "version",
            "policy",
            "tick",
            "collector",
            "machine",
            "limiter",
            "ledger",
            "risks",
            "schedule",
            "snapshots",
        )
        found, parts = saved.record(state, names), self._parts
        if found["version"] != _VERSION:
            raise StateError(f"expected a guard's state of version {_VERSION}, found {found['version']!r:.80}")
        if found["policy"] != self.policy.digest:
            raise StateError(f"the state was saved under another policy than `{self.policy.name}`, or other params")
        risks = saved.record(found["risks"], tuple(parts.risks))
        self.tick = saved.natural(found["tick"])
        parts.machine.load_state_dict(saved.mapping(found["machine"]))
        parts.limiter.load_state_dict(saved.mapping(found["limiter"]))
        parts.ledger.load_state_dict(saved.mapping(found["ledger"]))
        parts.collector.load_state_dict(saved.mapping(found["collector"]))
        for name, model in parts.risks.items():
            model.load_state_dict(saved.mapping(risks[name]))
        if parts.schedule and parts.effects.snapshots:
            parts.schedule.load_state_dict(saved.mapping(found["schedule"] or {"taken": []}))
            parts.effects.snapshots.load_state_dict(saved.mapping(found["snapshots"] or {"slots": []}))


def _told(source: str, observed: bool) -> bool:
    return observed or source == "loss"


def _changes(grant: Grant) -> bool:
    """Tell whether a grant alters the update."""
    factor = grant.request.action in ("clip", "scale_lr")
    return not factor or (grant.amount is not None and grant.amount < 1.0)
