"""Writes the guard's answers into the ledger: each thing once, when it begins or changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from lbw_policy.limits import Grant, Outcome
from lbw_policy.machine import Decision, StateMachine
from lbw_policy.record import Intervention, Ledger, log
from lbw_policy.semantics.policy import Policy

_LEVELS = {"info": 20, "warning": 30, "critical": 50}


class Present(Protocol):
    """What a record says of the moment."""

    @property
    def mode(self) -> str:
        """`act` or `shadow`."""

    @property
    def progress(self) -> int:
        """Accepted updates in the present history."""


class Recorder:
    """Turns one tick's decision and grants into records."""

    def __init__(self, policy: Policy, machine: StateMachine, ledger: Ledger) -> None:
        self._policy = policy
        self._machine = machine
        self._ledger = ledger
        self._places = {f"reflex {one.name}": one.place for one in policy.reflexes}
        self._places |= {f"level {one.name}": one.place for one in policy.levels if one.place}
        self._refused: dict[str, tuple[str, str]] = {}

    def tick(self, now: Present, decision: Decision, grants: Iterable[Grant], frozen: tuple[str, ...]) -> None:
        """Record what begins at this tick; a refusal is recorded when it begins, not on every tick it lasts."""
        refused = {}
        for grant in grants:
            action, key = grant.request.action, (grant.request.rule, grant.reason)
            if grant.outcome is Outcome.REFUSED:
                refused[action] = key
            if grant.starts or (action in refused and self._refused.get(action) != key):
                layers = frozen if action == "freeze" else ()
                self._ledger.add(self._intervention(now, decision, grant, layers))
        self._refused = refused
        for message in decision.messages:
            self._say(decision.tick, decision.level, message.severity, f"{message.alert}: {message.text}", now.progress)

    def _intervention(self, now: Present, decision: Decision, grant: Grant, layers: tuple[str, ...]) -> Intervention:
        rule = grant.request.rule
        return Intervention(
            tick=decision.tick,
            progress=now.progress,
            level=decision.level,
            rule=rule,
            place=self._place(rule),
            policy=self._policy.digest,
            action=grant.request.action,
            outcome=grant.outcome.value,
            asked=grant.request.amount,
            granted=grant.amount,
            reason=grant.reason,
            evidence=self._machine.evidence(rule),
            values={one.name: self._machine.evaluator.reading(one.name) for one in self._policy.signals},
            layers=layers,
            left=grant.left,
            mode=now.mode,
        )

    def _place(self, rule: str) -> str:
        place = self._places.get(rule)
        return f"{place.path}:{place.line}" if place else ""

    def _say(self, tick: int, level: str, severity: str, text: str, progress: int) -> None:
        name = text.split(":", 1)[0]
        self._ledger.add(
            Intervention(
                tick, progress, level, f"alert {name}", "", self._policy.digest, "alert", severity, reason=text
            )
        )
        log.log(_LEVELS.get(severity, 30), "tick %d: %s", tick, text)

    def warn(self, tick: int, level: str, text: str) -> None:
        """Record a warning of the guard's own."""
        self._say(tick, level, "warning", text, 0)

    def failure(self, tick: int, level: str, reason: str, progress: int) -> None:
        """Record that the guard itself failed."""
        self._ledger.add(
            Intervention(tick, progress, level, "guard", "", self._policy.digest, "failure", "failed", reason=reason)
        )
