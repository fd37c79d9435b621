"""Reflexes, levels and alerts: their conditions, holds and actions."""

from __future__ import annotations

import re

from attrs import evolve, frozen

from lbw_policy.diagnostics import Span
from lbw_policy.semantics import ceilings, types
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.bounds import check_allowed, check_chain, check_factor, check_most
from lbw_policy.semantics.clauses import once
from lbw_policy.semantics.expressions import Not, Number
from lbw_policy.semantics.extensions import check_amount
from lbw_policy.semantics.literals import Literals
from lbw_policy.semantics.notes import Notes, read_notes
from lbw_policy.semantics.plugins import ActionPlugin, usable
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
    sound: bool
    """Whether the limits are as written, so that asking beyond them can be judged."""

    def place(self, span: Span) -> p.Place:
        """Return where a span begins, for the record."""
        return p.Place(self.report.source.name_at(span.start), self.report.source.position(span.start)[0])

    # Rules

    def reflex(self, node: nodes.Reflex) -> p.Reflex | None:
        """Return a checked reflex."""
        condition = self.expressions.condition(node.condition)
        actions = tuple(self.action(do) for do in node.actions)
        if not node.actions:
            self.report.missing("LBW305", f"reflex `{node.name.text}` does nothing", node.name.span, "add `do skip`")
        if condition is None:
            return None
        notes = read_notes(self.report, node.notes, *(do.notes for do in node.actions))
        return p.Reflex(node.name.text, condition, actions, self.place(node.span), notes.id, notes.why)

    def require(self, node: nodes.Require, number: int) -> p.Reflex | p.Alert | None:
        """Return what a `require` stands for: a reflex, or an alert, on the opposite condition."""
        name = f"require_{number}"
        trigger, notes = self.trigger(node.expression, node.hold), read_notes(self.report, node.notes)
        if isinstance(node.otherwise, nodes.Do):
            action = self.action(node.otherwise)
            if node.hold:
                self.report.error("LBW228", "a requirement that acts cannot hold for several steps", node.hold.span,
                                  "use a level for what takes time, or `else alert`")  # fmt: skip
            if trigger is None:
                return None
            opposite = Not(trigger.condition)
            return p.Reflex(name, opposite, (action,), self.place(node.span), notes.id, notes.why)
        return self._required(node, name, trigger, notes)

    def _required(self, node: nodes.Require, name: str, trigger: p.Trigger | None, notes: Notes) -> p.Alert | None:
        otherwise = node.otherwise
        assert isinstance(otherwise, nodes.Otherwise)
        severity = self.literals.word(otherwise.severity, SEVERITIES, "severity") if otherwise.severity else "warning"
        values = self._placeholders(otherwise.message) if otherwise.message else ()
        span = node.expression.span
        message = otherwise.message.text if otherwise.message else self.report.source.text[span.start : span.end]
        if trigger is None:
            return None
        opposite = evolve(trigger, condition=Not(trigger.condition))
        text = message if otherwise.message else f"required: {' '.join(message.split())}"
        return p.Alert(name, severity, opposite, text, values, self.place(node.span), notes.id, notes.why)

    def alert(self, node: nodes.Alert) -> p.Alert | None:
        """Return a checked alert."""
        severity = self.literals.word(node.severity, SEVERITIES, "severity")
        trigger = self.trigger(node.expression, node.hold)
        values = self._placeholders(node.message)
        if trigger is None:
            return None
        notes = read_notes(self.report, node.notes)
        place = self.place(node.span)
        return p.Alert(node.name.text, severity, trigger, node.message.text, values, place, notes.id, notes.why)

    def _placeholders(self, message: nodes.Word) -> tuple[tuple[str, Number], ...]:
        found: dict[str, Number] = {}
        written = self.report.source.text[message.span.start : message.span.end]
        for match in re.finditer(r"\{([^{}]*)\}", written):
            name, span = match[1], Span(*(message.span.start + offset for offset in match.span()))
            if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name, re.ASCII):
                self.report.error("LBW224", f"expected a name in braces, found `{match[0]}`", span,
                                  "name the value with `let` and write `{NAME}`")  # fmt: skip
                continue
            words = tuple(nodes.Word(part, span) for part in name.split("."))
            typed = self.expressions.number(nodes.Reference(words, span))
            if typed is not None:
                found[name] = typed.number
        return tuple(found.items())

    def level(self, node: nodes.Level) -> p.Level:
        """Return a checked level; a clause in error is left out of it."""
        settings = [clause for clause in node.clauses if isinstance(clause, nodes.Condition | nodes.Setting)]
        found = once(self.report, settings, f"level `{node.name.text}`")
        stay, settles, cooldown = (found.get(name) for name in ("stay", "settles", "cooldown"))
        notes = read_notes(self.report, node.notes, *(clause.notes for clause in node.clauses))
        return p.Level(
            name=node.name.text,
            enter=self._condition(found.get("enter")),
            leave=self._condition(found.get("leave")),
            stay=self._timer(stay) if stay else None,
            settles=self._timer(settles) if settles else None,
            cooldown=self._timer(cooldown) if cooldown else 0,
            actions=tuple(self.action(clause) for clause in node.clauses if isinstance(clause, nodes.Do)),
            periodic=tuple(self._periodic(clause) for clause in node.clauses if isinstance(clause, nodes.Each)),
            place=self.place(node.span),
            id=notes.id,
            why=notes.why,
        )

    def _condition(self, clause: nodes.Condition | nodes.Setting | None) -> p.Trigger | None:
        return self.trigger(clause.expression, clause.hold) if isinstance(clause, nodes.Condition) else None

    def _timer(self, clause: nodes.Condition | nodes.Setting) -> int:
        assert isinstance(clause, nodes.Setting)
        assert isinstance(clause.value, nodes.Duration)
        return self.literals.duration(clause.value)

    def _periodic(self, node: nodes.Each) -> p.Periodic:
        if node.action.name in ("clip", "freeze"):
            held = node.action.name
            self.report.error("LBW310", f"`{held}` is held, so it cannot be repeated", node.action.span,
                              f"write `do {held} ...` without `each`: it lasts as long as the level")  # fmt: skip
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
        """Return a checked action with its fallbacks; one in error reads as `skip`, and is reported."""
        check_chain(self.report, node)
        done = self._action(node)
        following: p.Action | None = None
        for one in reversed([self._action(fallback) for fallback in node.otherwise[: ceilings.CHAIN - 1]]):
            following = evolve(one, otherwise=following)
        return evolve(done, otherwise=following)

    def _action(self, node: nodes.Do) -> p.Action:
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
            case "reset_moments":
                return p.ResetMoments()
            case "checkpoint":
                return p.Checkpoint()
            case "halt":
                return p.Halt()
            case "skip":
                return p.Skip()
            case _:
                return self._custom(node)

    def _custom(self, node: nodes.Do) -> p.Action:
        typed = self.expressions.number(node.value) if node.value is not None else None
        plugin = usable(ActionPlugin, node.name)
        if plugin is None or not check_amount(self.report, node, plugin, typed.unit if typed else None):
            return p.Skip()
        return p.Custom(node.name, typed.number if typed else None)

    def _clip(self, node: nodes.Do) -> p.Action:
        typed = self.expressions.number(_value(node))
        if typed is None:
            return p.Skip()
        if types.meet(typed.unit, types.NORM) is None:
            message = f"expected a norm, found a {typed.unit}"
            self.report.error("LBW204", message, _value(node).span, "such as `2.5 * median(grad, 128 steps)`")
        return p.Clip(typed.number, node.layers)

    def _scale_lr(self, node: nodes.Do) -> p.Action:
        restore = self.literals.duration(node.restore) if node.restore else 1
        typed = self.expressions.number(_value(node))
        if typed is None:
            return p.Skip()
        if types.meet(typed.unit, types.RATIO) is None:
            self.report.error("LBW204", f"expected a ratio, found a {typed.unit}", _value(node).span,
                              "such as `0.5` or `50%`")  # fmt: skip
        elif self.sound:
            check_factor(self.report, node, typed, self.limits)
        return p.ScaleLr(typed.number, restore)

    def _rollback(self, node: nodes.Do) -> p.Action:
        at_most = self.literals.duration(_value(node), ceilings.ROLLBACK_DISTANCE)
        if self.sound:
            check_most(self.report, node, at_most, self.limits.rollback.distance if self.limits.rollback else None)
        return p.Rollback(at_most)

    def _freeze(self, node: nodes.Do) -> p.Action:
        before = self.report.failures
        share = self.literals.real(_value(node), 0.0, 1.0, "a share of layers")
        if self.sound and self.report.failures == before:
            check_most(self.report, node, share, self.limits.freeze.share if self.limits.freeze else None)
        assert node.by is not None
        group = self.expressions.scope.group(node.group) if node.group else ""
        return p.Freeze(share, self.literals.word(node.by, LAYER_STATISTICS, "layer statistic"), group)


def _value(node: nodes.Do) -> nodes.Expression:
    assert node.value is not None
    return node.value
