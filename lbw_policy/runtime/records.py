"""Writes the guard's answers into the ledger: each thing once, when it begins or changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from attrs import evolve

from lbw_policy.limits import Grant, Outcome
from lbw_policy.machine import Decision, Message, Turn
from lbw_policy.record import Intervention, Ledger, log
from lbw_policy.runtime.deciding import Deciding
from lbw_policy.semantics.expressions import RiskReading
from lbw_policy.semantics.policy import Alert, Level, Policy, Reflex
from lbw_policy.semantics.walk import parts

_LEVELS = {"info": 20, "warning": 30, "critical": 50}


class Present(Protocol):
    """What a record says of the moment."""

    @property
    def mode(self) -> str:
        """`act` or `shadow`."""


class Recorder:
    """Turns one tick's decision and grants into records; `aloud`, alerts go to the log too."""

    def __init__(self, deciding: Deciding, ledger: Ledger, *, aloud: bool = True) -> None:
        session = deciding.session
        self._deciding, self._session = deciding, session
        self._aloud = aloud
        self._ledger = ledger
        policy = session.policy
        rules: tuple[Reflex | Level | Alert, ...] = (*policy.reflexes, *policy.levels, *policy.alerts)
        self._places = {one.rule: one.place for one in rules if one.place}
        self._reasons = {one.rule: one.why for one in rules}
        self._risks = dict(_risks_read(policy))
        self._trusted: dict[str, bool] = {}
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
        self._note_trust(now, turn.decision.tick)

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
            drivers=self.drivers(rule),
        )

    def drivers(self, rule: str) -> tuple[str, ...]:
        """Return which features raise the trusted risks that a rule reads at this tick, a line each."""
        told = (self._deciding.drivers(name) for name in self._risks.get(rule, ()))
        return tuple(one for one in told if one)

    def _note_trust(self, now: Present, tick: int) -> None:
        """Record that a risk is no longer trusted, and that it is again; that it came to be at first is no news."""
        for name, said in self._deciding.said.items():
            before = self._trusted.get(name)
            if said.trusted == before or not (said.trusted or before):
                continue
            self._trusted[name] = said.trusted
            if before is not None:
                severity, word = ("info", "again") if said.trusted else ("warning", "no longer believed:")
                text = f"risk `{name}` is {word} {self._deciding.standing(name)}"
                self._add(now, _note(tick, "guard", "alert", severity, text))

    def _place(self, rule: str) -> str:
        place = self._places.get(rule)
        return f"{place.path}:{place.line}" if place else ""

    def _add(self, now: Present, note: Intervention) -> None:
        at = self._session
        self._ledger.add(
            evolve(note, mode=now.mode, progress=at.progress, level=at.level, policy=at.policy.digest),
        )

    def _say(self, now: Present, tick: int, message: Message) -> None:
        rule = message.rule
        drivers = self.drivers(rule)
        text = f"{message.alert}: {message.text}" + (f" ({'; '.join(drivers)})" if drivers else "")
        note = evolve(_note(tick, rule, "alert", message.severity, text), drivers=drivers)
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


def _risks_read(policy: Policy) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each rule that reads risks, with their names."""
    conditions = [(one.rule, one.condition) for one in policy.reflexes]
    conditions += [(one.rule, one.enter.condition) for one in policy.levels if one.enter]
    conditions += [(one.rule, one.trigger.condition) for one in policy.alerts]
    for rule, condition in conditions:
        names = dict.fromkeys(part.risk for part in parts(condition) if isinstance(part, RiskReading))
        if names:
            yield rule, tuple(names)


def _note(tick: int, rule: str, action: str, outcome: str, reason: str) -> Intervention:
    return Intervention(tick, 0, "", rule, "", "", action, outcome, reason=reason)
