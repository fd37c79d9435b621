"""Guard: watches one optimizer's updates, lets the policy decide, and acts within its limits."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

from attrs import define
from torch import Tensor

from lbw_policy import saved
from lbw_policy.actions import Snapshots
from lbw_policy.errors import Halted, StateError
from lbw_policy.limits import Grant
from lbw_policy.machine import Session, Turn, by_signal
from lbw_policy.record import Intervention, Ledger, log
from lbw_policy.risk import Assessment, RiskModel
from lbw_policy.runtime.ahead import Ahead
from lbw_policy.runtime.deciding import Deciding
from lbw_policy.runtime.effects import Effects
from lbw_policy.runtime.hooks import Hooks
from lbw_policy.runtime.pacing import Pace
from lbw_policy.runtime.plugged import Plugged
from lbw_policy.runtime.records import Recorder
from lbw_policy.runtime.silence import Silence
from lbw_policy.runtime.summary import Summary, summarise
from lbw_policy.runtime.thinning import Overhead, Thinning
from lbw_policy.semantics.policy import Policy
from lbw_policy.telemetry import Collector, Readings

_VERSION = 3
_MOST_FAILURES = 10
"""After this many failing ticks in a row the guard stops trying; the run goes on unguarded."""


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
    thinning: Thinning | None = None
    ahead: Ahead | None = None


class Guard:
    """The runtime of one policy on one optimizer; made by `attach`.

    `mode` is `act`, or `shadow`: then everything is decided and recorded and nothing is changed. In the tier `device`
    a tick's decision, its records and all that follows from it come with its numbers, at the next step.
    """

    def __init__(self, parts: Parts, mode: str = "act") -> None:
        self._mode = mode
        self.hooks: Hooks | None = None
        self._parts = parts
        self._deciding = Deciding(parts.session, parts.risks)
        self._recorder = Recorder(self._deciding, parts.ledger)
        self._readings = Readings({}, {})
        self._turn: Turn | None = None
        self._updates = True
        self._gone_on = self._due = False
        self._left: bool | None = None
        self._captured: int | None = None
        self._failures = 0
        self._watch: AbstractContextManager[None] = parts.thinning.meter.watch if parts.thinning else nullcontext()
        self._silence = Silence(parts.policy)

    # For the training loop and its author

    def observe(self, **values: object) -> None:
        """Tell the guard this step's loss and other numbers the policy reads; tensors are not read back here.

        Raises ValueError for a name that the policy does not read, TypeError for what is not one number.
        """
        self._settle()
        with self._watch:
            self._parts.collector.observe(values)
            if self._parts.thinning:
                self._parts.thinning.pace.told(values)

    def curvature(self, loss: Tensor) -> None:
        """Take the loss, before its backward pass, for `gradient_curvature` and `hessian_trace`.

        Nothing is done in ticks that read neither. A model that cannot be differentiated twice is
        recorded as a failure, once; the run goes on without these signals.
        """
        self._settle()
        with self._watch:
            self._parts.collector.curvature(loss)

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Clip like `torch.nn.utils.clip_grad_norm_`, and return the norm before, a tensor on the device.

        The policy then reads `grad_norm` and what belongs to it as they were before the clip, and the
        gradients are passed over once instead of twice. All parameters of the optimizer count.
        """
        self._settle()
        return self._parts.collector.clip_gradients(max_norm)

    @property
    def mode(self) -> str:
        """`act` or `shadow`; it may be set at any time between two steps."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in ("act", "shadow"):
            raise ValueError(f"expected mode `act` or `shadow`, found `{mode}`")
        self.catch_up()
        self._mode = mode
        self._agree_on_snapshots()

    @property
    def tier(self) -> str:
        """Where the reflexes act: `host`, or `device`, which does not wait for a step's numbers."""
        ahead = self._parts.ahead
        return "device" if ahead is not None and ahead.trusted else "host"

    @property
    def policy(self) -> Policy:
        """The attached policy."""
        return self._parts.policy

    @property
    def tick(self) -> int:
        """Calls of `optimizer.step()` so far; it never goes back."""
        return self._parts.session.tick + (self._left is not None)

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

    @property
    def overhead(self) -> Overhead | None:
        """What the guard costs, and what it thins for it; None unless the policy has `overhead` among its limits."""
        return self._parts.thinning.overhead if self._parts.thinning else None

    def risk_status(self, name: str) -> str:
        """Return `not ready`, `not trusted` or `trusted` for a risk of the policy, with the reason why."""
        return self._deciding.status(name)

    def summary(self) -> Summary:
        """Return what the guard did so far, to the last step; `str()` of it is for people."""
        self.catch_up()
        status = {name: self._deciding.standing(name) for name in self._parts.risks}
        snapshots = self._parts.effects.snapshots
        return summarise(self, status, self._parts.ledger, str(snapshots or ""), str(self.overhead or ""))

    def detach(self) -> None:
        """Take the guard off the optimizer; the run goes on as if it had never been there."""
        try:
            self.catch_up()
        finally:
            if self.hooks is not None:
                self.hooks.remove()
                self.hooks = None
            self._parts.effects.release()
            self._parts.collector.detach()
            if self._parts.effects.snapshots:
                self._parts.effects.snapshots.release()

    def catch_up(self) -> None:
        """In the tier `device`, wait for the last step's numbers and do what they lead to; else there is nothing to do.

        `summary`, `state_dict`, `detach` and a change of `mode` call it; `interventions`, `level`, `progress` and
        `risk` tell without it what is known.
        """
        self._settle()
        self._arrive()

    def _settle(self) -> None:
        """End the tick of a step that raised, before anything else is asked of the guard."""
        if self.hooks is not None:
            self.hooks.settle()

    # Called by the hooks

    def before_update(self) -> None:
        """Decide and act; raises Halted if the policy stops the run. A failure of the guard itself never spreads."""
        if self._parts.thinning:
            self._parts.thinning.meter.lap()
        try:
            with self._watch:
                self._arrive()
                self._due = self._parts.session.machine.lagged and self._parts.session.due
                self._decide_or_fail()
        except BaseException:  # a halt, or an interrupt from the keyboard
            self.abandon()
            raise

    def after_update(self) -> None:
        """Undo what must not outlast the update, and learn from it."""
        with self._watch:
            try:
                self._parts.effects.release()
                if not self._gone_on:
                    self._after()
            except Exception as error:
                self._failed(error)
            finally:
                self._close(applied=self._updates)

    def abandon(self) -> None:
        """End a tick without an update (the step raised, or the policy halts), all rates and gradients given back."""
        self._parts.effects.release()
        self._parts.collector.forget()
        self._close(applied=False)
        if self._parts.thinning:
            self._parts.thinning.meter.gap()

    def closure_loss(self, loss: object) -> None:
        """Observe the loss a closure returned, unless the loop tells another one."""
        try:
            self._parts.collector.observe({"loss": loss})
        except (TypeError, ValueError):
            log.debug("the closure returned no loss that can be observed")

    def gradients_again(self) -> None:
        """Hold still what this tick holds still, also in a step that evaluates its closure again."""
        self._parts.effects.hold()

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
        self._pace()
        ahead = self._parts.ahead
        if ahead is None:
            self._readings = self._parts.collector.read(self.tick)
        elif ahead.begin(acts=self.mode == "act"):
            self._gone_on = True
            return
        else:
            self._readings = ahead.settle()
        self._act(self._judge())
        self._failures = 0

    def _arrive(self) -> None:
        """Do for the last tick what had to wait for its numbers; a failure of the guard itself never spreads."""
        applied, self._left, ahead = self._left, None, self._parts.ahead
        if applied is None or ahead is None:
            return
        self._updates, self._turn = True, None
        try:
            self._readings = ahead.settle()
            turn = self._judge()
            ahead.check(turn)
            self._updates = turn.updates or self.mode == "shadow"
            if applied:
                self._after()
            self._failures = 0
        except Halted:
            raise
        except Exception as error:
            ahead.trusted = False
            self._failed(error)
        finally:
            self._end(applied=applied and self._updates and not ahead.skipped)

    def _judge(self) -> Turn:
        """Decide on the readings, and record it."""
        self._note_failures(self._readings.failures)
        for text in self._readings.notes:
            self._recorder.warn(self, self.tick, text)
        values = by_signal(self.policy, self.tick, self._readings.values, self._parts.session.factors)
        for text in self._silence.notice(values):
            self._recorder.warn(self, self.tick, text)
        impossible = self._parts.effects.impossible
        self._turn = self._deciding.decide(values, self._readings.values, impossible, self._readings.norm)
        largest = self._readings.values.get("grad_norm_max")
        self._parts.effects.choose(self._turn.granted, self._readings.layers, math.nan if largest is None else largest)
        self._recorder.tick(self, self._turn, self._parts.effects.frozen)
        return self._turn

    def _pace(self) -> None:
        """Thin the sampling, or come back, where the guard's own time asks for it; before anything is read."""
        thinning, collector = self._parts.thinning, self._parts.collector
        if thinning is None:
            return
        for text in thinning.judge(collector.every):
            self._recorder.tell(self, self.tick, text)
        if thinning.pace.turn(self.tick):
            self._thin(thinning.pace)
        thinning.meter.kind = collector.due(self.tick), collector.due(self.tick + 1)

    def _thin(self, pace: Pace) -> None:
        self._parts.collector.pace(pace.every, pace.ranking)
        self._parts.session.thin(pace.signals)

    def _act(self, turn: Turn) -> None:
        """Carry out the grants; their records are already made."""
        if self.mode == "shadow":
            return
        halt = next((grant for grant in turn.granted if grant.request.action == "halt"), None)
        if halt is not None:
            self._save_before_halting(turn)
            message = f"policy `{self.policy.name}` halted the run at tick {self.tick}: {_cause(halt, turn)}"
            raise Halted(message, self.tick)
        # Foreign code runs first, on the run as the loop left it; what the guard undoes later is then its own only.
        failures = self._parts.effects.checkpoint(turn.granted)
        failures += self._parts.plugged.act(turn.granted, self.tick) if self._parts.plugged else []
        self._note_failures(failures)
        self._updates = self._parts.effects.apply(turn.granted)

    def _save_before_halting(self, turn: Turn) -> None:
        """Call the user's checkpoint function if the same tick asks for it; a failure of it does not keep the run."""
        for reason in self._parts.effects.checkpoint(turn.granted):
            self._recorder.failure(self, self.tick, reason)
            log.error("tick %d: %s", self.tick, reason)

    def _after(self) -> None:
        """Learn from an update that is known."""
        if self._turn is None or not self._updates:
            self._parts.collector.forget()
        if self._turn is None:
            return
        intervened = self.mode == "act" and any(_changes(grant) for grant in self._turn.granted)
        self._deciding.learn(self._readings.values, intervened=intervened)

    def _close(self, *, applied: bool) -> None:
        """End the present step: its tick too, unless that waits for its numbers."""
        gone_on, self._gone_on = self._gone_on, False
        due, self._due = self._due and applied and (gone_on or self._turn is not None), False
        self._left = applied if gone_on else None
        try:
            if due:
                self._capture_early(self._parts.session)
        finally:
            if not gone_on:
                self._end(applied=applied)

    def _capture_early(self, session: Session) -> None:
        """Take the snapshot of a lagged run, before it is known whether the tick was calm."""
        snapshots, progress = self._parts.effects.snapshots, session.progress + 1
        if self.mode == "shadow" or snapshots is None or self._capture(snapshots, session.tick, progress):
            self._captured = progress

    def _end(self, *, applied: bool) -> None:
        """End the tick: count progress, and keep the snapshots the schedule asks for."""
        session, captured, self._captured = self._parts.session, self._captured, None
        tick, upkeep = session.tick, session.finish(applied=applied, captured=captured)
        snapshots = self._parts.effects.snapshots
        if snapshots is None or self.mode == "shadow":
            return
        for progress in upkeep.lost:
            snapshots.drop(progress)
        if upkeep.take and captured is None:
            self._capture(snapshots, tick, session.progress)

    def _capture(self, snapshots: Snapshots, tick: int, progress: int) -> bool:
        """Take a snapshot, and tell whether it was; one that fails (no memory, no disk) is not offered."""
        taken = False
        try:
            with self._parts.thinning.meter.capturing() if self._parts.thinning else nullcontext():
                snapshots.capture(tick, progress)
            taken = True
        except Exception as error:
            reason = f"no snapshot was taken: {traceback.format_exception_only(error)[-1].strip()}"
            self._recorder.failure(self, tick, reason)
            log.error("tick %d: %s", tick, reason)
            self._stop_if_told(reason, error)
        finally:
            self._agree_on_snapshots()
        return taken

    def _note_failures(self, reasons: Iterable[str]) -> None:
        """Record what plugins failed at; the tick goes on without them, unless the policy says to halt."""
        for reason in reasons:
            self._recorder.failure(self, self.tick, reason)
            log.error("tick %d: %s", self.tick, reason)
            self._stop_if_told(reason)

    def _failed(self, error: Exception) -> None:
        """Fail safe: undo everything, record it, and let the run go on (or halt, if the policy says so)."""
        self._failures += 1
        self._updates, self._turn = True, None
        self._parts.effects.release()
        reason = traceback.format_exception_only(error)[-1].strip()
        if self._failures == _MOST_FAILURES:
            reason += f"; after {_MOST_FAILURES} failures in a row the guard stops trying"
        self._recorder.failure(self, self.tick, reason)
        log.error("the guard failed at tick %d; this update is not guarded", self.tick, exc_info=error)
        self._stop_if_told(reason, error)

    def _stop_if_told(self, reason: str, error: Exception | None = None) -> None:
        if self.policy.on_failure == "halt" and self.mode == "act":
            raise Halted(f"the guard failed at tick {self.tick}: {reason}", self.tick) from error

    # State

    def state_dict(self, *, snapshots: bool = False) -> dict[str, Any]:
        """Return everything the guard remembers as plain data; with `snapshots`, also their tensors.

        Without them a resumed guard decides the same, but cannot roll back to before the resume.
        """
        self.catch_up()
        parts = self._parts
        held = parts.effects.snapshots if snapshots else None
        thinned = {"thinning": parts.thinning.state_dict()} if parts.thinning else {}
        return {
            "version": _VERSION,
            "policy": self.policy.digest,
            "session": parts.session.state_dict(),
            "collector": parts.collector.state_dict(),
            "ledger": parts.ledger.state_dict(),
            "risks": {name: model.state_dict() for name, model in parts.risks.items()},
            "frozen": list(parts.effects.frozen),
            "snapshots": held.state_dict() if held else None,
            **thinned,
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
        names = ("version", "policy", "session", "collector", "ledger", "risks", "frozen", "snapshots")
        parts = self._parts
        found = saved.record(state, (*names, "thinning") if parts.thinning else names)
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
        if parts.thinning:
            parts.thinning.load_state_dict(saved.mapping(found["thinning"]))
            self._thin(parts.thinning.pace)
        limit = self.policy.limits.freeze
        parts.effects.go_on_freezing(found["frozen"], limit.share if limit else 0.0)
        if parts.effects.snapshots:
            parts.effects.snapshots.load_state_dict({"slots": []} if kept is None else saved.mapping(kept))
        self._agree_on_snapshots()

    def _agree_on_snapshots(self) -> None:
        """Offer no snapshot for a rollback that is not there: a shadow notes when it would take one, and takes none."""
        schedule, snapshots = self._parts.session.schedule, self._parts.effects.snapshots
        if self.mode == "act" and schedule and snapshots:
            schedule.keep_only({(one.tick, one.progress) for one in snapshots.slots})


def _cause(halt: Grant, turn: Turn) -> str:
    """Return the rule that halts, and what it was refused if it halts for that."""
    refused = next((grant for grant in turn.grants if "halt" in grant.fallback.split(", ")), None)
    if refused is None:
        return halt.request.rule
    return f"{halt.request.rule}, because {refused.request.action} was refused: {refused.reason}"


def _changes(grant: Grant) -> bool:
    """Tell whether a grant alters the update."""
    factor = grant.request.action in ("clip", "scale_lr")
    return not factor or (grant.amount is not None and grant.amount < 1.0)
