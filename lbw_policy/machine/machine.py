"""Policy -> StateMachine: one tick of telemetry in, one decision out. Deterministic, no clock, no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lbw_policy import saved
from lbw_policy.limits.requests import Request
from lbw_policy.machine.asking import Asking
from lbw_policy.machine.decision import Decision, Message
from lbw_policy.machine.expressions import Evaluator, RiskValues
from lbw_policy.machine.ladder import Configuration, Ladder, Truths
from lbw_policy.machine.program import Program, tests_in
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Comparison, Condition, Constant, Finite, Number, Truth
from lbw_policy.semantics.spelling import Vocabulary, spell

__all__ = ["RiskValues", "StateMachine"]

_UNKNOWN = int(Truth.UNKNOWN)


class StateMachine:
    """The compiled policy. One tick is `begin`, `features` of each risk, `decide`.

    It asks for actions and never takes one: requests go to the limiter. In a `lagged` machine the levels move by
    what the tick before said, so that what they ask for is known before the tick's readings are; all else is the same.
    """

    def __init__(self, policy: p.Policy, *, lagged: bool = False) -> None:
        self.policy = policy
        self.lagged = lagged
        self.program = Program.of(policy)
        self.evaluator = Evaluator(policy.signals, self.program.numbers, self.program.conditions)
        self.ladder = Ladder(policy.levels)
        self.configuration = self.ladder.start()
        self.quarantine_run = 0
        self._alerts = [0] * len(policy.alerts)
        self._seen = self._nothing_seen()
        self._bind()
        self._vocabulary = Vocabulary.of(policy)
        self._asking: Asking | None = None
        self._tick = -1

    def _bind(self) -> None:
        """Put each rule beside the test of its condition."""
        program, test = self.program, self.evaluator.test
        place, read = program.number_index, self.evaluator.read_number
        self._features = {
            risk.name: [(name, read(place[number])) for name, number in risk.features] for risk in self.policy.risks
        }
        self._reflexes = [(reflex, test(at)) for reflex, at in zip(self.policy.reflexes, program.reflexes, strict=True)]
        self._alarms = [(alert, test(at)) for alert, at in zip(self.policy.alerts, program.alerts, strict=True)]
        self._enter, self._leave = (
            [None if at is None else test(at) for at in places] for places in (program.enter, program.leave)
        )

    @property
    def level(self) -> str:
        """The name of the present level."""
        return self.policy.levels[self.configuration.level].name

    @property
    def settled(self) -> bool:
        """Whether the present level is the calm one, or one that has settled."""
        return self.ladder.settled(self.configuration)

    def begin(self, tick: int, values: Mapping[str, float | None]) -> None:
        """Take in the tick's signals by name; None or absent means that there is no reading."""
        self._tick, self._asking = tick, None
        self.evaluator.begin(tick, values)

    def features(self, risk: p.Risk) -> dict[str, float | None]:
        """Return the risk's own features this tick, by name."""
        return {name: read() for name, read in self._features[risk.name]}

    def decide(self, risks: Mapping[str, RiskValues]) -> Decision:
        """Take in what the risk models say, make at most one transition, and ask for actions."""
        self.evaluator.finish(risks)
        before = self.configuration
        fired = self._fired()
        entered = self._move()
        configuration = self.configuration
        requests: tuple[Request, ...] = ()
        if fired or entered or not self.ladder.at_rest(configuration):
            requests = self._ask(fired, entered=entered)
        # What was counted before the transition is counted with this tick, as `stay` is.
        quarantined = self._quarantine(bool(fired) or not (self.ladder.settled(before, 1) and self.settled))
        messages = self._messages()
        self.evaluator.commit(quarantined)
        return Decision(
            tick=self._tick,
            previous=self.policy.levels[before.level].name,
            level=self.level,
            requests=requests,
            fired=tuple(reflex.name for reflex in fired),
            messages=messages,
            quarantined=quarantined,
        )

    def coming(self) -> tuple[Configuration, bool]:
        """Return where the coming tick of a lagged machine leads, and whether a level is entered by it."""
        return self.ladder.advance(self.configuration, self._seen)

    def _move(self) -> bool:
        """Make the tick's transition; return whether a level was entered with its actions."""
        if not self.lagged:
            self.configuration, entered = self.ladder.advance(self.configuration, self._truths())
            return entered
        self.configuration, entered = self.coming()
        self._seen = self._truths()
        return entered

    def _nothing_seen(self) -> Truths:
        return Truths((None,) * len(self.policy.levels), None)

    def _fired(self) -> list[p.Reflex]:
        return [reflex for reflex, test in self._reflexes if test() >= _UNKNOWN]

    def _ask(self, fired: list[p.Reflex], *, entered: bool) -> tuple[Request, ...]:
        asking = Asking(self.ladder, self.configuration, self._value)
        for reflex in fired:
            asking.reflex(reflex)
        asking.levels(entered=entered)
        self.configuration, self._asking = asking.configuration, asking
        return tuple(asking.found.values())

    def otherwise(self, refused: Request, already: Collection[str]) -> tuple[Request, ...]:
        """Return what this tick's rules declared in place of a request; what a level falls back to, it goes on with.

        `already` are the actions refused in this tick, of which none is asked for again.
        """
        if self._asking is None:
            return ()
        found = self._asking.instead(refused, already)
        self.configuration = self._asking.configuration
        return found

    def _value(self, number: Number) -> float | None:
        return self.evaluator.number(self.program.number_index[number])

    def _truths(self) -> Truths:
        enter = tuple([test() if test else None for test in self._enter])
        leave = self._leave[self.configuration.level]
        return Truths(enter, leave() if leave else None)

    def _quarantine(self, suspicious: bool) -> bool:
        """Keep suspicious samples from the baselines, but not for ever: a new normal is learned."""
        self.quarantine_run = self.quarantine_run + 1 if suspicious else 0
        return 0 < self.quarantine_run <= self.policy.quarantine

    def _messages(self) -> tuple[Message, ...]:
        found = []
        for index, (alert, test) in enumerate(self._alarms):
            trigger = alert.trigger
            before = self._alerts[index]
            holds = test() >= _UNKNOWN
            if not before and not holds:
                continue
            after = ((before << 1) | holds) & ((1 << trigger.window) - 1)
            self._alerts[index] = after
            # An alert speaks when it begins to hold, not on every tick that it holds.
            if after.bit_count() >= trigger.count > before.bit_count() and holds:
                found.append(Message(alert.name, alert.severity, self._filled(alert), alert.rule))
        return tuple(found)

    def _filled(self, alert: p.Alert) -> str:
        text = alert.message
        for name, number in alert.values:
            value = self._value(number)
            text = text.replace("{" + name + "}", "not ready" if value is None else f"{value:.4g}")
        return text

    def evidence(self, rule: str) -> tuple[str, ...]:
        """Return what a rule of this tick tested, such as `jump = 31.2 > 6` and `finite(loss = nan)`."""
        found = next((trigger for name, trigger in self._triggers() if name == rule), None)
        return tuple(self._spelled(test) for test in tests_in(found)) if found else ()

    def _triggers(self) -> Iterator[tuple[str, Condition]]:
        for reflex in self.policy.reflexes:
            yield reflex.rule, reflex.condition
        for level in self.policy.levels:
            if level.enter:
                yield level.rule, level.enter.condition

    def _spelled(self, test: Comparison | Finite) -> str:
        if isinstance(test, Finite):
            return f"finite({self._side(test.argument)})"
        return f"{self._side(test.left)} {test.op} {self._side(test.right)}"

    def _side(self, number: Number) -> str:
        value = self._value(number)
        shown = "not ready" if value is None else f"{value:.6g}"
        return shown if isinstance(number, Constant) else f"{spell(number, self._vocabulary)} = {shown}"

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return windows, ladder and counters as plain data."""
        return {
            "evaluator": self.evaluator.state_dict(),
            "ladder": self.ladder.save(self.configuration),
            "quarantine_run": self.quarantine_run,
            "alerts": list(self._alerts),
            "tick": self._tick,
            "seen": [*self._seen.enter, self._seen.leave],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; raises StateError, changing nothing, unless it fits this policy."""
        parts = saved.record(state, ("evaluator", "ladder", "quarantine_run", "alerts", "tick", "seen"))
        configuration = self.ladder.load(saved.mapping(parts["ladder"]))
        run, tick = saved.natural(parts["quarantine_run"]), saved.whole(parts["tick"])
        alerts = [saved.natural(mask) for mask in saved.exactly(parts["alerts"], len(self._alerts))]
        *enter, leave = [_truth(one) for one in saved.exactly(parts["seen"], len(self.policy.levels) + 1)]
        self.evaluator.load_state_dict(saved.mapping(parts["evaluator"]))
        self.configuration, self.quarantine_run, self._alerts, self._tick = configuration, run, alerts, tick
        self._seen = Truths(tuple(enter), leave) if self.lagged else self._nothing_seen()
        self._asking = None


def _truth(value: object) -> int | None:
    return None if value is None else saved.within(value, int(Truth.TRUE))
