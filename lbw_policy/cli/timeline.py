"""How a replay is shown: a timeline and a summary as text, or as JSON Lines."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from attrs import asdict, define, field, frozen

from lbw_policy.diagnostics import printable
from lbw_policy.limits import Grant, Outcome
from lbw_policy.machine import Turn
from lbw_policy.record import Intervention
from lbw_policy.runtime.replaying import Binding, Replay
from lbw_policy.runtime.summary import by_action, counted
from lbw_policy.traces import Trace

_AMOUNTS = {
    "scale_lr": "to {:.4g} of its rate",
    "clip": "to {:.4g} of its norm",
    "rollback": "to progress {:.0f}",
    "freeze": "of {:.3g} of the layers",
}
"""What an amount means, by action."""


@define
class Tally:
    """What is counted from tick `first` on."""

    first: int
    ticks: int = 0
    last: int = 0
    levels: Counter[str] = field(factory=Counter)
    alerts: Counter[str] = field(factory=Counter)
    halted_at: int | None = None

    def add(self, turn: Turn) -> None:
        """Count one tick."""
        decision = turn.decision
        self.ticks, self.last = self.ticks + 1, decision.tick
        self.levels[decision.level] += 1
        for message in decision.messages:
            self.alerts[message.alert] += 1
        if self.halted_at is None and turn.grants and any(grant.request.action == "halt" for grant in turn.granted):
            self.halted_at = decision.tick


class View(Protocol):
    """A way to show a replay, line by line."""

    def moment(self, turn: Turn, replay: Replay) -> Iterator[str]:
        """Yield the lines of one tick."""

    def summary(self, summary: Mapping[str, Any]) -> Iterator[str]:
        """Yield the lines that end the replay."""


def summarise(replay: Replay, trace: Trace, binding: Binding, tally: Tally, seconds: float) -> dict[str, Any]:
    """Return a replay's account as plain data; `seconds` is what the replay of all its ticks took."""
    actions = {action: counts for action, counts in by_action(replay.ledger.counts).items() if action != "alert"}
    replayed = replay.session.tick - trace.first
    return {
        "policy": replay.policy.name,
        "digest": replay.policy.digest,
        "trace": str(trace.path),
        "ticks": tally.ticks,
        "first": tally.first,
        "last": tally.last,
        "seconds": round(seconds, 3),
        "microseconds_per_tick": round(seconds / max(replayed, 1) * 1e6, 1),
        "actions": actions,
        "fallbacks": by_action(replay.ledger.fallbacks),
        "alerts": dict(sorted(tally.alerts.items())),
        "levels": {level.name: tally.levels[level.name] for level in replay.policy.levels},
        "final_level": replay.session.level,
        "halted_at": tally.halted_at,
        "risks": {risk.name: replay.deciding.standing(risk.name) for risk in replay.policy.risks},
        "columns": {**binding.signals},
        "absent": list(binding.absent),
    }


# JSON Lines


@frozen
class JsonLines:
    """One object a line: the ticks that matter, or all of them, then the summary."""

    every_tick: bool = False

    def moment(self, turn: Turn, replay: Replay) -> Iterator[str]:
        """Yield the tick's object."""
        if self.every_tick or _matters(turn):
            yield json.dumps(_plain(_tick(turn, replay)), allow_nan=False)

    def summary(self, summary: Mapping[str, Any]) -> Iterator[str]:
        """Yield the summary's object."""
        yield json.dumps({"summary": _plain(summary)}, allow_nan=False)


def _matters(turn: Turn) -> bool:
    """Tell whether the level changed, something was asked for, or an alert began."""
    decision = turn.decision
    return decision.level != decision.previous or bool(decision.requests or decision.messages)


def _tick(turn: Turn, replay: Replay) -> dict[str, Any]:
    decision = turn.decision
    return {
        "tick": decision.tick,
        "level": decision.level,
        "previous": decision.previous,
        "requests": [asdict(request) for request in decision.requests],
        "grants": [_grant(grant, replay) for grant in turn.grants],
        "messages": [asdict(message) for message in decision.messages],
        "risks": {name: said.probability for name, said in replay.deciding.said.items()},
    }


def _grant(grant: Grant, replay: Replay) -> dict[str, Any]:
    return {
        "action": grant.request.action,
        "rule": grant.request.rule,
        "outcome": grant.outcome.value,
        "amount": grant.amount,
        "reason": grant.reason,
        "starts": grant.starts,
        "left": grant.left,
        "fallback": grant.fallback,
        "evidence": replay.session.machine.evidence(grant.request.rule) if grant.starts else (),
        "drivers": replay.drivers(grant.request.rule) if grant.starts else (),
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - any plain data
    """Return plain data with what JSON cannot say, NaN and the infinities, as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    return [_plain(member) for member in value] if isinstance(value, list | tuple) else value


# Text


@frozen
class Text:
    """One line for each change of level, intervention that begins, refusal and alert; or for every tick."""

    every_tick: bool = False

    def moment(self, turn: Turn, replay: Replay) -> Iterator[str]:
        """Yield the tick's lines."""
        decision = turn.decision
        if not (self.every_tick or replay.records or decision.level != decision.previous):
            return
        lines = [*_change(turn, replay), *(_record(record) for record in replay.records)]
        if self.every_tick and not lines:
            lines = [f"level {decision.level}"]
        yield from (f"tick {decision.tick}: {printable(line)}" for line in lines)

    def summary(self, summary: Mapping[str, Any]) -> Iterator[str]:
        """Yield the summary's lines."""
        yield ""
        yield f"policy {summary['policy']} ({summary['digest'][:12]}) over {printable(summary['trace'])}"
        ticks = f"{summary['ticks']} ticks, {summary['first']} to {summary['last']}"
        yield f"{ticks}, in {summary['seconds']:.2f} s ({summary['microseconds_per_tick']:.0f} us a tick)"
        yield "levels: " + _counts(summary["levels"]) + f"; at the end {summary['final_level']}"
        for action, outcomes in summary["actions"].items():
            yield f"  {action}: {counted(outcomes, summary['fallbacks'].get(action, {}))}"
        if not summary["actions"]:
            yield "  no interventions"
        if summary["alerts"]:
            yield "alerts: " + _counts(summary["alerts"])
        yield from (f"risk {name}: {status}" for name, status in summary["risks"].items())
        yield from _notes(summary)


def _change(turn: Turn, replay: Replay) -> Iterator[str]:
    decision = turn.decision
    if decision.level == decision.previous:
        return
    names = [level.name for level in replay.policy.levels]
    to = names.index(decision.level)
    up = to > names.index(decision.previous)
    evidence = replay.session.machine.evidence(replay.policy.levels[to].rule) if up else ()
    yield f"level {decision.previous} -> {decision.level}" + _because(evidence)


def _because(evidence: tuple[str, ...]) -> str:
    return f": {', '.join(evidence)}" if evidence else ""


def _record(record: Intervention) -> str:
    if record.action == "alert":
        return f"alert {record.reason} ({record.outcome})"
    amount = "" if record.granted is None else " " + _AMOUNTS.get(record.action, "{:.4g}").format(record.granted)
    reason = f" ({record.reason})" if record.reason else ""
    refused = record.outcome == Outcome.REFUSED.value
    end = f", {record.instead}" if refused else _because((*record.evidence, *record.drivers))
    return f"{record.action}{amount} {record.outcome}{reason}, {record.rule}{end}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def _notes(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["halted_at"] is not None:
        yield f"note: a guard would have halted the run at tick {summary['halted_at']}"
    if summary["absent"]:
        yield f"note: the trace has no {', '.join(summary['absent'])}: the risk models go without"
