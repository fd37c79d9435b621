"""Guard: watches one optimizer's updates, lets the policy decide, and acts within its limits."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import define

from lbw_policy import saved
from lbw_policy.errors import Halted, StateError
from lbw_policy.limits import Grant
from lbw_policy.machine import Session, Turn, by_signal
from lbw_policy.record import Intervention, Ledger, log
from lbw_policy.risk import Assessment, RiskModel
from lbw_policy.runtime.deciding import Deciding
from lbw_policy.runtime.effects import Effects
from lbw_policy.runtime.hooks import Hooks
from lbw_policy.runtime.plugged import Plugged
from lbw_policy.runtime.records import Recorder
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
    session: Session
    effects: Effects
    ledger: Ledger
    plugged: Plugged | None = None


class Guard:
    """The runtime of one policy on one optimizer; made by `attach`.

    `mode` is `act`, or `shadow`: then everything is decided and recorded and nothing is changed.
    """

    def __init__(self, parts: Parts, mode: str = "act") -> None:
        self.mode = mode
        self.hooks: Hooks | None = None
        self._parts = parts
        self._recorder = Recorder(parts.session, parts.ledger)
        self._deciding = Deciding(parts.session, parts.risks)
        self._readings = Readings({}, {})
        self._turn: Turn | None = None
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
    def tick(self) -> int:
        """Calls of `optimizer.step()` so far; it never goes back."""
        return self._parts.session.tick

    @property
    def level(self) -> str:
        """The name of the present level."""
        return self._parts.session.level

    @property
    def progress(self) -> int:
        """Accepted updates in the present history of the weights."""
        return self._parts.session.progress

    @property
    def risk(self) -> Mapping[str, Assessment]:
        """What each risk of the policy said at the last tick, by name."""
        return MappingProxyType(dict(self._deciding.said))

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """The newest records, oldest first."""
        return tuple(self._parts.ledger.records)

    def risk_status(self, name: str) -> str:
        """Return `not ready`, `not trusted` or `trusted` for a risk of the policy, with the reason why."""
        return self._deciding.status(name)

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
            self._decide_or_fail()
        except Halted:
            self.abandon()
            raise

    def after_update(self) -> None:
        """Undo what must not outlast the update, and learn from it."""
        try:
            self._after()
        except Exception as error:
            self._failed(error)
        finally:
            self._end()

    def abandon(self) -> None:
        """End a tick without an update (the step raised, or the policy halts), all rates and gradients given back."""
        self._parts.effects.release()
        self._parts.collector.forget()
        self._parts.session.finish(applied=False)

    def closure_loss(self, loss: object) -> None:
        """Observe the loss a closure returned, unless the loop tells another one."""
        try:
            self._parts.collector.observe({"loss": loss})
        except (TypeError, ValueError):
            log.debug("the closure returned no loss that can be observed")

    # One tick

    def _decide_or_fail(self) -> None:
        try:
            self._before()
        except Halted:
            raise
        except Exception as error:
            self._failed(error)

    def _before(self) -> None:
        self._updates, self._turn = True, None
        self._parts.effects.release()
        if self._failures >= _MOST_FAILURES:
            return
        self._readings = self._parts.collector.read(self.tick)
        self._note_failures(self._readings.failures)
        values = by_signal(self.policy, self.tick, self._readings.values)
        self._notice_silence(values)
        self._turn = self._deciding.decide(values, self._readings.values, self._parts.effects.impossible)
        self._parts.effects.choose(self._turn.granted, self._readings.layers)
        self._recorder.tick(self, self._turn, self._parts.effects.frozen)
        self._act(self._turn)
        self._failures = 0

    def _notice_silence(self, values: Mapping[str, float | None]) -> None:
        if self._silent is None:
            return
        self._silent -= {name for name, value in values.items() if value is not None}
        if self.tick >= _PATIENCE:
            for name in sorted(self._silent):
                text = f"signal `{name}` was never observed: call `guard.observe(...)`"
                self._recorder.warn(self, self.tick, text)
            self._silent = None

    def _act(self, turn: Turn) -> None:
        """Carry out the grants; their records are already made."""
        if self.mode == "shadow":
            self._parts.collector.before_update()
            return
        halt = next((grant for grant in turn.granted if grant.request.action == "halt"), None)
        if halt is not None:
            self._save_before_halting(turn)
            message = f"policy `{self.policy.name}` halted the run at tick {self.tick}: {halt.request.rule}"
            raise Halted(message, self.tick)
        # Plugins act first, on the run as the loop left it; what the guard undoes later is then its own only.
        failures = self._parts.plugged.act(turn.granted, self.tick) if self._parts.plugged else []
        self._updates = self._parts.effects.apply(turn.granted)
        self._note_failures(failures)
        if self._updates:
            self._parts.collector.before_update()

    def _save_before_halting(self, turn: Turn) -> None:
        """Call the user's checkpoint function if the same tick asks for it; a failure of it does not keep the run."""
        try:
            self._parts.effects.apply([grant for grant in turn.granted if grant.request.action == "checkpoint"])
        except Exception as error:
            self._recorder.failure(self, self.tick, traceback.format_exception_only(error)[-1].strip())
            log.error("the checkpoint before the halt failed", exc_info=error)

    def _after(self) -> None:
        self._parts.effects.release()
        if self._turn is None or not self._updates:
            self._parts.collector.forget()
        else:
            self._parts.collector.after_update()
        if self._turn is None:
            return
        intervened = self.mode == "act" and any(_changes(grant) for grant in self._turn.granted)
        self._deciding.learn(self._readings.values, intervened=intervened)

    def _end(self) -> None:
        """End the tick: count progress, and keep the snapshots the schedule asks for."""
        tick = self.tick
        upkeep = self._parts.session.finish(applied=self._updates)
        snapshots = self._parts.effects.snapshots
        if snapshots is None or self.mode == "shadow":
            return
        for progress in upkeep.lost:
            snapshots.drop(progress)
        if upkeep.take:
            snapshots.capture(tick, self.progress)

    def _note_failures(self, reasons: Iterable[str]) -> None:
        """Record what plugins failed at; the tick goes on without them, unless the policy says to halt."""
        for reason in reasons:
            self._recorder.failure(self, self.tick, reason)
            log.error("tick %d: %s", self.tick, reason)
            if self.policy.on_failure == "halt":
                raise Halted(f"the guard failed at tick {self.tick}: {reason}", self.tick)

    def _failed(self, error: Exception) -> None:
        """Fail safe: undo everything, record it, and let the run go on (or halt, if the policy says so)."""
        self._failures += 1
        self._updates, self._turn = True, None
        self._parts.effects.release()
        reason = traceback.format_exception_only(error)[-1].strip()
        self._recorder.failure(self, self.tick, reason)
        log.error("the guard failed at tick %d; this update is not guarded", self.tick, exc_info=error)
        if self.policy.on_failure == "halt":
            raise Halted(f"the guard failed at tick {self.tick}: {reason}", self.tick) from error

    # State

    def state_dict(self, *, snapshots: bool = False) -> dict[str, Any]:
        """Return everything the guard remembers as plain data; with `snapshots`, also their tensors.

        Without them a resumed guard decides the same, but cannot roll back to before the resume.
        """
        parts = self._parts
        held = parts.effects.snapshots if snapshots else None
        return {
            "version": _VERSION,
            "policy": self.policy.digest,
            "session": parts.session.state_dict(),
            "collector": parts.collector.state_dict(),
            "ledger": parts.ledger.state_dict(),
            "risks": {name: model.state_dict() for name, model in parts.risks.items()},
            "snapshots": held.state_dict() if held else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; raises StateError, changing nothing, if it is damaged or another policy's."""
        before = self.state_dict(snapshots=True)
        try:
            self._load(state)
        except StateError:
            self._load(before)
            raise

    def _load(self, state: Mapping[str, Any]) -> None:
        names = ("version", "policy", "session", "collector", "ledger", "risks", "snapshots")
        found, parts = saved.record(state, names), self._parts
        if found["version"] != _VERSION:
            raise StateError(f"expected a guard's state of version {_VERSION}, found {found['version']!r:.80}")
        if found["policy"] != self.policy.digest:
            raise StateError(f"the state was saved under another policy than `{self.policy.name}`, or other params")
        risks = saved.record(found["risks"], tuple(parts.risks))
        kept = found["snapshots"]
        parts.session.load_state_dict(saved.mapping(found["session"]), snapshots=kept is not None)
        parts.ledger.load_state_dict(saved.mapping(found["ledger"]))
        parts.collector.load_state_dict(saved.mapping(found["collector"]))
        for name, model in parts.risks.items():
            model.load_state_dict(saved.mapping(risks[name]))
        if parts.effects.snapshots:
            parts.effects.snapshots.load_state_dict({"slots": []} if kept is None else saved.mapping(kept))


def _told(source: str, observed: bool) -> bool:
    return observed or source == "loss"


def _changes(grant: Grant) -> bool:
    """Tell whether a grant alters the update."""
    factor = grant.request.action in ("clip", "scale_lr")
    return not factor or (grant.amount is not None and grant.amount < 1.0)
