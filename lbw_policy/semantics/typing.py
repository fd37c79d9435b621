"""Expressions: resolves names, settles units, turns windows into samples."""

from __future__ import annotations

import math
from typing import cast

from attrs import define, field, frozen

from lbw_policy.diagnostics import Span
from lbw_policy.semantics import ceilings, types
from lbw_policy.semantics import expressions as checked
from lbw_policy.semantics.extensions import function_kind
from lbw_policy.semantics.functions import FUNCTIONS, FunctionKind
from lbw_policy.semantics.literals import Literals
from lbw_policy.semantics.report import Report, did_you_mean, plain
from lbw_policy.semantics.scope import Scope
from lbw_policy.semantics.signals import EVENTS, OWN
from lbw_policy.semantics.types import PROBABILITY, RATIO, TRUTH, Unit
from lbw_policy.syntax import nodes

_RISK_PARTS = ("alarm", "probability", "trusted")
_MOST_NODES = 10_000
_MOST_DEPTH = 100
"""How deep an expression may nest with its `let`s written out; what walks it may recurse."""


@frozen
class Typed:
    """A checked expression with its unit; `every` is the ticks between its samples.

    `risky` tells that it depends on a risk model's output. `size` counts its parts and `depth`
    how far they nest, with every `let` written out.
    """

    expression: checked.Expression
    unit: Unit
    every: int = 1
    risky: bool = False
    size: int = 1
    depth: int = 1

    @property
    def number(self) -> checked.Number:
        """The expression as a number; the unit says that it is one."""
        return cast(checked.Number, self.expression)

    @property
    def condition(self) -> checked.Condition:
        """The expression as a condition; the unit says that it is one."""
        return cast(checked.Condition, self.expression)


@define
class ExpressionChecker:
    """Checks expressions of one policy; each method returns None after reporting an error."""

    report: Report
    scope: Scope
    literals: Literals
    units: dict[str, Unit]
    """Units of the declared signals and params."""
    sampling: dict[str, int]
    """`every` of the declared signals."""
    own: set[str] = field(factory=set)
    """The guard's own numbers that were read."""
    _lets: dict[str, Typed | None] = field(factory=dict)
    _open: list[str] = field(factory=list)
    _depth: int = 0

    def condition(self, node: nodes.Expression) -> checked.Condition | None:
        """Return a condition, or report that the expression is a number."""
        found = self._truth(node)
        return found.condition if found else None

    def _truth(self, node: nodes.Expression) -> Typed | None:
        found = self.check(node)
        if found is None:
            return None
        if found.unit != TRUTH:
            self.report.error("LBW205", f"expected a condition, found a {found.unit}", node.span,
                              "compare it with something: `x > 3`")  # fmt: skip
            return None
        return found

    def number(self, node: nodes.Expression) -> Typed | None:
        """Return a number, or report that the expression is a condition."""
        found = self.check(node)
        if found is not None and found.unit == TRUTH:
            self.report.error("LBW206", "expected a number, found a condition", node.span,
                              "a condition stands by itself, or beside `and`, `or`, `not`")  # fmt: skip
            return None
        return found

    def check(self, node: nodes.Expression) -> Typed | None:
        """Return the checked form of any expression."""
        if self._depth > _MOST_DEPTH:
            self._too_large(node.span)
            return None
        self._depth += 1
        try:
            return self._checked(node)
        finally:
            self._depth -= 1

    def _checked(self, node: nodes.Expression) -> Typed | None:
        match node:
            case nodes.Number():
                return Typed(checked.Constant(node.value), _literal_unit(node))
            case nodes.Reference():
                return self._reference(node)
            case nodes.Call():
                return self._call(node)
            case nodes.Unary():
                return self._unary(node)
            case nodes.Binary():
                return self._binary(node)
            case nodes.Broken():
                return None

    # Names

    def _reference(self, node: nodes.Reference) -> Typed | None:
        first = node.parts[0]
        if first.text in ("telemetry", "observed"):
            self.report.error("LBW215", f"`{node.text}` can only be read by a `signal`", node.span,
                              f"declare `signal NAME = {node.text}` and use the name")  # fmt: skip
            return None
        if first.text in OWN and first.text not in self.scope.names and len(node.parts) == 1:
            self.own.add(first.text)
            return Typed(checked.Reading(first.text), OWN[first.text].unit)
        found = self.scope.find(first)
        match found:
            case None:
                return None
            case nodes.Risk():
                return self._risk(found, node)
            case _ if len(node.parts) > 1:
                self._no_part(node, 1)
                return None
            case nodes.Param():
                value = self.literals.params.get(first.text)
                return None if value is None else Typed(checked.Constant(value), self.units[first.text])
            case nodes.Signal():
                return Typed(checked.Reading(first.text), self.units[first.text], self.sampling.get(first.text, 1))
            case nodes.Let():
                return self.let(found, node.span)

    def _risk(self, risk: nodes.Risk, node: nodes.Reference) -> Typed | None:
        part = node.parts[1].text if len(node.parts) > 1 else "probability"
        if len(node.parts) > 2 or part not in _RISK_PARTS:
            self._no_part(node, 1 if part not in _RISK_PARTS else 2, _RISK_PARTS)
            return None
        unit = PROBABILITY if part == "probability" else TRUTH
        return Typed(checked.RiskReading(risk.name.text, part), unit, risky=True)

    def _no_part(self, node: nodes.Reference, index: int, parts: tuple[str, ...] = ()) -> None:
        part, whole = node.parts[index], ".".join(word.text for word in node.parts[:index])
        advice = did_you_mean(part.text, parts) if index == 1 else None
        if part.text:  # else the parser has reported it
            self.report.error("LBW201", f"`{whole}` has no part `{part.text}`", part.span, advice)

    def let(self, let: nodes.Let, span: Span) -> Typed | None:
        """Return what a `let` stands for, checked once; report at `span` if it is defined by itself."""
        name = let.name.text
        if name in self._open:
            chain = " -> ".join([*self._open[self._open.index(name) :], name])
            self.report.error("LBW216", f"`{name}` is defined by itself: {chain}", span)
            return None
        if name not in self._lets:
            self._open.append(name)
            self._lets[name] = self.check(let.expression)
            self._open.pop()
        return self._lets[name]

    # Operators

    def _unary(self, node: nodes.Unary) -> Typed | None:
        if node.op == "not":
            condition = self._truth(node.operand)
            if condition is None:
                return None
            return self._grown(node.span, checked.Not(condition.condition), TRUTH, condition)
        operand = self.number(node.operand)
        if operand is None:
            return None
        return self._grown(node.span, checked.Function("neg", operand.number), operand.unit, operand)

    def _binary(self, node: nodes.Binary) -> Typed | None:
        if node.op in ("and", "or"):
            return self._logic(node)
        left, right = self.number(node.left), self.number(node.right)
        if left is None or right is None:
            return None
        if node.op in ("*", "/"):
            unit = left.unit.times(right.unit, 1 if node.op == "*" else -1)
            return self._grown(node.span, _arithmetic(node.op, left, right), unit, left, right)
        unit_or_none = self._meet(node, left, right)
        if unit_or_none is None:
            return None
        if node.op in ("+", "-"):
            return self._grown(node.span, _arithmetic(node.op, left, right), unit_or_none, left, right)
        comparison = checked.Comparison(node.op, left.number, right.number)
        return self._grown(node.span, comparison, TRUTH, left, right)

    def _logic(self, node: nodes.Binary) -> Typed | None:
        left, right = self._truth(node.left), self._truth(node.right)
        if left is None or right is None:
            return None
        join = checked.Both if node.op == "and" else checked.Either
        return self._grown(node.span, join(left.condition, right.condition), TRUTH, left, right)

    def _meet(self, node: nodes.Binary, left: Typed, right: Typed) -> Unit | None:
        for one, other, side in ((left, right, node.left), (right, left, node.right)):
            if one.unit.literal and other.unit.probability:
                return self._as_probability(one, side)
        unit = types.meet(left.unit, right.unit)
        if unit is None:
            verb = "combine" if node.op in ("+", "-") else "compare"
            message = f"cannot {verb} a {left.unit} with a {right.unit}"
            self.report.error("LBW204", message, node.span, _unit_advice(left.unit, right.unit))
        return unit

    def _as_probability(self, typed: Typed, node: nodes.Expression) -> Unit | None:
        value = typed.expression.value if isinstance(typed.expression, checked.Constant) else None
        if value is None or 0 <= value <= 1:
            return PROBABILITY
        advice = f"write a percentage: `{value:g}%`" if 1 < value <= 100 else None
        self.report.error("LBW210", f"expected a probability from 0 to 1, found `{plain(value)}`", node.span, advice)
        return None

    def _grown(self, span: Span, expression: checked.Expression, unit: Unit, *parts: Typed) -> Typed | None:
        size = 1 + sum(part.size for part in parts)
        depth = 1 + max(part.depth for part in parts)
        if size > _MOST_NODES or depth > _MOST_DEPTH:
            self._too_large(span)
            return None
        every = math.lcm(*(part.every for part in parts))  # fresh together only that often
        return Typed(expression, unit, every, any(part.risky for part in parts), size, depth)

    def _too_large(self, span: Span) -> None:
        message = f"expected an expression of at most {_MOST_NODES:_} parts, {_MOST_DEPTH} deep, found a larger one"
        self.report.error("LBW217", message, span, "a `let` counts as if it were written out; simplify it")

    # Functions

    def _call(self, node: nodes.Call) -> Typed | None:
        kind = FUNCTIONS.get(node.function.text) or function_kind(self.report, node.function)
        if kind is None:
            return None
        if not self._arity(node, kind):
            return None
        argument = self.number(node.arguments[0])
        if argument is None:
            return None
        return self._windowed(node, kind, argument) if kind.windowed else self._plain(node, kind, argument)

    def _arity(self, node: nodes.Call, kind: FunctionKind) -> bool:
        most = 1 + kind.windowed + kind.shares
        least = most - (kind.default_window is not None)
        if least <= len(node.arguments) <= most:
            return True
        count = f"{least} or {most}" if least < most else f"{least}"
        message = f"`{kind.name}` takes {count} argument{'s' * (most != 1)}, found {len(node.arguments)}"
        self.report.error("LBW208", message, node.span, f"write `{kind.example}`")
        return False

    def _plain(self, node: nodes.Call, kind: FunctionKind, argument: Typed) -> Typed | None:
        if kind.name == "finite":
            return self._grown(node.span, checked.Finite(argument.number), TRUTH, argument)
        function = checked.Function(kind.name, argument.number)
        return self._grown(node.span, function, kind.unit or argument.unit, argument)

    def _windowed(self, node: nodes.Call, kind: FunctionKind, argument: Typed) -> Typed | None:
        if isinstance(argument.expression, checked.Constant):
            self.report.error("LBW218", f"`{kind.name}` of a number that never changes", node.arguments[0].span,
                              "give it a signal, or a `let` that reads one")  # fmt: skip
            return None
        if kind.name == "rate" and not self._countable(node.arguments[0], argument):
            return None
        samples = self._samples(node, kind, argument)
        share = self.literals.real(node.arguments[2], 0.0, 1.0, "a share") if kind.shares else None
        unit = kind.unit or argument.unit
        if kind.name == "slope":
            unit = argument.unit.times(types.STEPS, -1)
        statistic = checked.Statistic(kind.name, argument.number, samples, share)
        return self._grown(node.span, statistic, unit, argument)

    def _countable(self, node: nodes.Expression, argument: Typed) -> bool:
        """Tell whether a number is one of the guard's events; report it if not."""
        name, events = getattr(argument.expression, "signal", None), ", ".join(EVENTS)
        if name not in self.own:
            self.report.error("LBW229", "`rate` counts what the guard did", node.span, f"write one of {events}")
        elif name not in EVENTS:
            message = f"`rate` counts what the guard did, and `{name}` is no event but a number"
            self.report.error("LBW229", message, node.span, f"write `mean({name}, 100 steps)`, or one of {events}")
        return name in self.own and name in EVENTS

    def _samples(self, node: nodes.Call, kind: FunctionKind, argument: Typed) -> int:
        if len(node.arguments) < 2:
            return kind.default_window or 1
        least = argument.every * (1 if kind.name == "prev" else 2)
        return max(1, self.literals.duration(node.arguments[1], ceilings.WINDOW, least) // argument.every)


def _arithmetic(op: str, left: Typed, right: Typed) -> checked.Arithmetic:
    return checked.Arithmetic(op, left.number, right.number)


def _literal_unit(node: nodes.Number) -> Unit:
    if node.steps:
        return types.STEPS
    return PROBABILITY if node.percent else types.NUMBER


def _unit_advice(left: Unit, right: Unit) -> str | None:
    if types.STEPS in (left, right):
        return "a number of steps meets only steps"
    if RATIO in (left, right):
        return "divide by a baseline to get a ratio: `x / median(x, 128 steps)`"
    return None
