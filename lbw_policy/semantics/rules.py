"""Reflexes, levels and alerts: their conditions, holds and actions."""

from __future__ import annotations

import re

from attrs import frozen

from lbw_policy.diagnostics import Span
from lbw_policy.semantics import ceilings, types
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.bounds import check_allowed, check_factor, check_most
from lbw_policy.semantics.clauses import once
from lbw_policy.semantics.expressions import Number
from lbw_policy.semantics.literals import Literals
from lbw_policy.semantics.report import Report
from lbw_policy.semantics.signals import LAYER_STATISTICS
from lbw_policy.semantics.typing import ExpressionChecker
from lbw_policy.syntax import nodes

SEVERITIES = ("info", "warning", "critical")


@frozen
class RuleChecker:
    """Checks the rules of one policy against its names and limits."""

    report: Report
    expressions: ExpressionChecker
    literals: Literals
    limits: p.Limits

    def place(self, span: Span) -> p.Place:
        """Return where a span begins, for the record."""
        return p.Place(self.report.source.name, self.report.source.position(span.start)[0])

    # Rules

    def reflex(self, node: nodes.Reflex) -> p.Reflex | None:
        """Return a checked reflex."""
        condition = self.expressions.condition(node.condition)
        actions = tuple(self.action(do) for do in node.actions)
        if not node.actions:
            self.report.error("LBW305", f"reflex `{node.name.text}` does nothing", node.span, "add `do skip`")
        if condition is None:
            return None
        return p.Reflex(node.name.text, condition, actions, self.place(node.span))

    def alert(self, node: nodes.Alert) -> p.Alert | None:
        """Return a checked alert."""
        severity = self.literals.word(node.severity, SEVERITIES, "severity")
        trigger = self.trigger(node.expression, node.hold)
        values = self._placeholders(node.message)
        if trigger is None:
            return None
        return p.Alert(node.name.text, severity, trigger, node.message.text, values, self.place(node.span))

    def _placeholders(self, message: nodes.Word) -> tuple[tuple[str, Number], ...]:
        found: dict[str, Number] = {}
        for name in re.findall(r"\{([^{}]*)\}", message.text):
            words = tuple(nodes.Word(part.strip(), message.span) for part in name.split("."))
            typed = self.expressions.number(nodes.Reference(words, message.span))
            if typed is not None:
                found[name] = typed.number
        return tuple(found.items())

    def level(self, node: nodes.Level) -> p.Level:
        """Return a checked level; a clause in error is left out of it."""
        settings = [clause for clause in node.clauses if isinstance(clause, nodes.Condition | nodes.Setting)]
        found = once(self.report, settings, f"level `{node.name.text}`")
        stay, cooldown = found.get("stay"), found.get("cooldown")
        return p.Level(
            name=node.name.text,
            enter=self._condition(found.get("enter")),
            leave=self._condition(found.get("leave")),
            stay=self._timer(stay) if stay else None,
            cooldown=self._timer(cooldown) if cooldown else 0,
            actions=tuple(self.action(clause) for clause in node.clauses if isinstance(clause, nodes.Do)),
            periodic=tuple(self._periodic(clause) for clause in node.clauses if isinstance(clause, nodes.Each)),
            place=self.place(node.span),
        )

    def _condition(self, clause: nodes.Condition | nodes.Setting | None) -> p.Trigger | None:
        return self.trigger(clause.expression, clause.hold) if isinstance(clause, nodes.Condition) else None

    def _timer(self, clause: nodes.Condition | nodes.Setting) -> int:
        assert isinstance(clause, nodes.Setting)
        assert isinstance(clause.value, nodes.Duration)
        return self.literals.duration(clause.value)

    def _periodic(self, node: nodes.Each) -> p.Periodic:
        return p.Periodic(self.literals.duration(node.every), self.action(node.action))

    def trigger(self, node: nodes.Expression, hold: nodes.Hold | None) -> p.Trigger | None:
        """Return a condition with its hold."""
        condition = self.expressions.condition(node)
        window = self.literals.duration(hold.window, ceilings.HOLD) if hold else 1
        count = window
        if hold and hold.count is not None:
            count = self.literals.count(hold.count, window)
        return None if condition is None else p.Trigger(condition, count, window)

    # Actions

    def action(self, node: nodes.Do) -> p.Action:
        """Return a checked action; one in error reads as `skip`, and is reported."""
        check_allowed(self.report, node, self.limits)
        match node.name:
            case "clip":
                return self._clip(node)
            case "scale_lr":
                return self._scale_lr(node)
            case "rollback":
                return self._rollback(node)
            case "freeze":
                return self._freeze(node)
            case "halt":
                return p.Halt()
            case _:
                return p.Skip()

    def _clip(self, node: nodes.Do) -> p.Action:
        typed = self.expressions.number(_value(node))
        if typed is None:
            return p.Skip()
        if types.meet(typed.unit, types.NORM) is None:
            message = f"expected a norm, found a {typed.unit}"
            self.report.error("LBW204", message, _value(node).span, "such as `2.5 * median(grad, 128 steps)`")
        return p.Clip(typed.number)

    def _scale_lr(self, node: nodes.Do) -> p.Action:
        restore = self.literals.duration(node.restore) if node.restore else 1
        typed = self.expressions.number(_value(node))
        if typed is None:
            return p.Skip()
        if types.meet(typed.unit, types.RATIO) is None:
            self.report.error("LBW204", f"expected a ratio, found a {typed.unit}", _value(node).span,
                              "such as `0.5` or `50%`")  # fmt: skip
        check_factor(self.report, node, typed, self.limits)
        return p.ScaleLr(typed.number, restore)

    def _rollback(self, node: nodes.Do) -> p.Action:
        at_most = self.literals.duration(_value(node), ceilings.ROLLBACK_DISTANCE)
        check_most(self.report, node, at_most, self.limits.rollback.distance if self.limits.rollback else None)
        return p.Rollback(at_most)

    def _freeze(self, node: nodes.Do) -> p.Action:
        share = self.literals.real(_value(node), 0.0, 1.0, "a share of layers")
        check_most(self.report, node, share, self.limits.freeze.share if self.limits.freeze else None)
        assert node.by is not None
        return p.Freeze(share, self.literals.word(node.by, LAYER_STATISTICS, "layer statistic"))


def _value(node: nodes.Do) -> nodes.Expression:
    assert node.value is not None
    return node.value
