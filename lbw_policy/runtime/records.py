"""Writes the guard's answers into the ledger: each thing once, when it begins or changes."""

from __future__ import annotations

from typing import Protocol

from attrs import evolve

from lbw_policy.limits import Grant, Outcome
from lbw_policy.machine import Decision, Message, Session, Turn
from lbw_policy.record import Intervention, Ledger, log
from lbw_policy.semantics.policy import Alert, Level, Reflex

_LEVELS = {"info": 20, "warning": 30, "critical": 50}


class Present(Protocol):
    """What a record says of the moment."""

    @property
    def mode(self) -> str:
        """`act` or `shadow`."""


class Recorder:
    """Turns one tick's decision and grants into records; `aloud`, alerts go to the log too."""

    def __init__(self, session: Session, ledger: Ledger, *, aloud: bool = True) -> None:
        self._session = session
        self._aloud = aloud
        self._ledger = ledger
        policy = session.policy
        rules: tuple[Reflex | Level | Alert, ...] = (*policy.reflexes, *policy.levels, *policy.alerts)
        self._places = {one.rule: one.place for one in rules if one.place}
        self._reasons = {one.rule: one.why for one in rules}
        self._refused: dict[str, tuple[str, str, str]] = {}

    def tick(self, now: Present, turn: Turn, frozen: tuple[str, ...]) -> None:
        """Record what begins at this tick; a refusal is recorded when it begins, not on every tick it lasts."""
        refused = {}
        for grant in turn.grants:
            action, key = grant.request.action, (grant.request.rule, grant.reason, grant.fallback)
            if grant.outcome is Outcome.REFUSED:
                refused[action] = key
            if grant.starts or (action in refused and self._refused.get(action) != key):
                layers = frozen if action == "freeze" else ()
                self._ledger.add(self._intervention(now, turn.decision, grant, layers))
        self._refused = refused
        for message in turn.decision.messages:
            self._say(now, turn.decision.tick, message)

    def _intervention(self, now: Present, decision: Decision, grant: Grant, layers: tuple[str, ...]) -> Intervention:
        rule, machine, policy = grant.request.rule, self._session.machine, self._session.policy
        return Intervention(
            tick=decision.tick,
            progress=self._session.progress,
            level=decision.level,
            rule=rule,
            place=self._place(rule),
            policy=policy.digest,
            action=grant.request.action,
            outcome=grant.outcome.value,
            asked=grant.request.amount,
            granted=grant.amount,
            reason=grant.reason,
            evidence=machine.evidence(rule),
            values={one.name: machine.evaluator.reading(one.name) for one in policy.signals},
            layers=layers,
            left=grant.left,
            why=self._reasons.get(rule, ""),
            mode=now.mode,
            fallback=grant.fallback,
        )

    def _place(self, rule: str) -> str:
        place = self._places.get(rule)
        return f"{place.path}:{place.line}" if place else ""

    def _add(self, now: Present, note: Intervention) -> None:
        at = self._session
        self._ledger.add(
            evolve(note, mode=now.mode, progress=at.progress, level=at.level, policy=at.policy.digest),
        )

    def _say(self, now: Present, tick: int, message: Message) -> None:
        text, rule = f"{message.alert}: {message.text}", message.rule
        note = _note(tick, rule, "alert", message.severity, text)
        self._add(now, evolve(note, place=self._place(rule), why=self._reasons.get(rule, "")))
        if self._aloud:
            log.log(_LEVELS.get(message.severity, 30), "tick %d: %s", tick, text)

    def warn(self, now: Present, tick: int, text: str) -> None:
        """Record a warning of the guard's own."""
        self._add(now, _note(tick, "guard", "alert", "warning", text))
        log.warning("tick %d: %s", tick, text)

    def tell(self, now: Present, tick: int, text: str) -> None:
        """Record what the guard changed about itself."""
        self._add(now, _note(tick, "guard", "alert", "info", text))
        log.info("tick %d: %s", tick, text)

    def failure(self, now: Present, tick: int, reason: str) -> None:
        """Record that the guard itself failed."""
        self._add(now, _note(tick, "guard", "failure", "failed", reason))


def _note(tick: int, rule: str, action: str, outcome: str, reason: str) -> Intervention:
    return Intervention(tick, 0, "", rule, "", "", action, outcome, reason=reason)
