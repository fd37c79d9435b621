"""Policy -> StateMachine: one tick of telemetry in, one decision out. Deterministic, no clock, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lbw_policy import saved
from lbw_policy.machine.asking import Asking
from lbw_policy.machine.decision import Decision, Message
from lbw_policy.machine.expressions import Evaluator, RiskValues
from lbw_policy.machine.ladder import Ladder, Truths
from lbw_policy.machine.program import Program, comparisons
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Comparison, Condition, Constant, Number, Truth
from lbw_policy.semantics.spelling import spell

__all__ = ["RiskValues", "StateMachine"]


class StateMachine:
    """The compiled policy. One tick is `begin`, `features` of each risk, `decide`.

    It asks for actions and never takes one: requests go to the limiter.
    """

    def __init__(self, policy: p.Policy) -> None:
        self.policy = policy
        self.program = Program.of(policy)
        self.evaluator = Evaluator(policy.signals, self.program.numbers, self.program.conditions)
        self.ladder = Ladder(policy.levels)
        self.configuration = self.ladder.start()
        self.quarantine_run = 0
        self._alerts = [0] * len(policy.alerts)
        self._tick = -1

    @property
    def level(self) -> str:
        """The name of the present level."""
        return self.policy.levels[self.configuration.level].name

    def begin(self, tick: int, values: Mapping[str, float | None]) -> None:
        """Take in the tick's signals by name; None or absent means that there is no reading."""
        self._tick = tick
        self.evaluator.begin(tick, values)

    def features(self, risk: p.Risk) -> dict[str, float | None]:
        """Return the risk's own features this tick, by name."""
        return {name: self._value(number) for name, number in risk.features}

    def decide(self, risks: Mapping[str, RiskValues]) -> Decision:
        """Take in what the risk models say, make at most one transition, and ask for actions."""
        self.evaluator.finish(risks)
        previous = self.configuration.level
        fired = self._fired()
        configuration, entered = self.ladder.advance(self.configuration, self._truths())
        asking = Asking(self.ladder, configuration, self._value)
        for reflex in fired:
            asking.reflex(reflex)
        asking.levels(entered=entered)
        self.configuration = asking.configuration
        quarantined = self._quarantine(bool(fired) or previous > 0 or self.configuration.level > 0)
        messages = self._messages()
        self.evaluator.commit(quarantined)
        return Decision(
            tick=self._tick,
            previous=self.policy.levels[previous].name,
            level=self.level,
            requests=tuple(asking.found.values()),
            fired=tuple(reflex.name for reflex in fired),
            messages=messages,
            quarantined=quarantined,
        )

    def _fired(self) -> list[p.Reflex]:
        truth, places = self.evaluator.truth, self.program.reflexes
        return [
            reflex for reflex, place in zip(self.policy.reflexes, places, strict=True) if truth(place) >= Truth.UNKNOWN
        ]

    def _value(self, number: Number) -> float | None:
        return self.evaluator.number(self.program.number_index[number])

    def _truths(self) -> Truths:
        truth, present = self.evaluator.truth, self.configuration.level
        enter = tuple(None if place is None else truth(place) for place in self.program.enter)
        place = self.program.leave[present]
        return Truths(enter, None if place is None else truth(place))

    def _quarantine(self, suspicious: bool) -> bool:
        """Keep suspicious samples from the baselines, but not for ever: a new normal is learned."""
        self.quarantine_run = self.quarantine_run + 1 if suspicious else 0
        return 0 < self.quarantine_run <= self.policy.quarantine

    def _messages(self) -> tuple[Message, ...]:
        found = []
        for index, alert in enumerate(self.policy.alerts):
            trigger = alert.trigger
            before = self._alerts[index]
            holds = self.evaluator.truth(self.program.alerts[index]) >= Truth.UNKNOWN
            after = ((before << 1) | holds) & ((1 << trigger.window) - 1)
            self._alerts[index] = after
            # An alert speaks when it begins to hold, not on every tick that it holds.
            if after.bit_count() >= trigger.count > before.bit_count() and holds:
                found.append(Message(alert.name, alert.severity, self._filled(alert)))
        return tuple(found)

    def _filled(self, alert: p.Alert) -> str:
        text = alert.message
        for name, number in alert.values:
            value = self._value(number)
            text = text.replace("{" + name + "}", "not ready" if value is None else f"{value:.4g}")
        return text

    def evidence(self, rule: str) -> tuple[str, ...]:
        """Return the comparisons behind a rule of this tick, such as `jump = 31.2 > 6`."""
        found = next((trigger for name, trigger in self._triggers() if name == rule), None)
        return tuple(self._spelled(comparison) for comparison in comparisons(found)) if found else ()

    def _triggers(self) -> Iterator[tuple[str, Condition]]:
        for reflex in self.policy.reflexes:
            yield f"reflex {reflex.name}", reflex.condition
        for level in self.policy.levels:
            if level.enter:
                yield f"level {level.name}", level.enter.condition

    def _spelled(self, comparison: Comparison) -> str:
        left, right = (_side(side, self._value(side)) for side in (comparison.left, comparison.right))
        return f"{left} {comparison.op} {right}"

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return windows, ladder and counters as plain data."""
        return {
            "evaluator": self.evaluator.state_dict(),
            "ladder": self.ladder.save(self.configuration),
            "quarantine_run": self.quarantine_run,
            "alerts": list(self._alerts),
            "tick": self._tick,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; raises StateError, changing nothing, unless it fits this policy."""
        parts = saved.record(state, ("evaluator", "ladder", "quarantine_run", "alerts", "tick"))
        configuration = self.ladder.load(saved.mapping(parts["ladder"]))
        run, tick = saved.natural(parts["quarantine_run"]), saved.whole(parts["tick"])
        alerts = [saved.natural(mask) for mask in saved.exactly(parts["alerts"], len(self._alerts))]
        self.evaluator.load_state_dict(saved.mapping(parts["evaluator"]))
        self.configuration, self.quarantine_run, self._alerts, self._tick = configuration, run, alerts, tick


def _side(number: Number, value: float | None) -> str:
    shown = "not ready" if value is None else f"{value:.6g}"
    return shown if isinstance(number, Constant) else f"{spell(number)} = {shown}"
