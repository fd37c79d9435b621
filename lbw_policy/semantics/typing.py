"""Expressions: resolves names, settles units, turns windows into samples."""

from __future__ import annotations

from typing import cast

from attrs import define, field, frozen

from lbw_policy.diagnostics import Span
from lbw_policy.semantics import ceilings, types
from lbw_policy.semantics import expressions as checked
from lbw_policy.semantics.functions import FUNCTIONS, FunctionKind
from lbw_policy.semantics.literals import Literals
from lbw_policy.semantics.report import Report, did_you_mean
from lbw_policy.semantics.scope import Scope
from lbw_policy.semantics.types import PROBABILITY, RATIO, TRUTH, Unit
from lbw_policy.syntax import nodes

_MOST_NODES = 10_000


@frozen
class Typed:
    """A checked expression with its unit; `every` is the ticks between its samples.

    `risky` tells that it depends on a risk model's output.
    """

    expression: checked.Expression
    unit: Unit
    every: int = 1
    risky: bool = False
    size: int = 1

    @property
    def number(self) -> checked.Number:
        """The expression as a number; the unit says that it is one."""
        return cast(checked.Number, self.expression)


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
    _lets: dict[str, Typed | None] = field(factory=dict)
    _open: list[str] = field(factory=list)

    def condition(self, node: nodes.Expression) -> checked.Condition | None:
        """Return a condition, or report that the expression is a number."""
        found = self.check(node)
        if found is None:
            return None
        if found.unit != TRUTH:
            self.report.error("LBW205", f"expected a condition, found a {found.unit}", node.span,
                              "compare it with something: `x > 3`")  # fmt: skip
            return None
        return cast(checked.Condition, found.expression)

    def number(self, node: nodes.Expression) -> Typed | None:
        """Return a number, or report that the expression is a condition."""
        found = self.check(node)
        if found is not None and found.unit == TRUTH:
            self.report.error("LBW206", "expected a number, found a condition", node.span)
            return None
        return found

    def check(self, node: nodes.Expression) -> Typed | None:
        """Return the checked form of any expression."""
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
        found = self.scope.find(first)
        match found:
            case None:
                return None
            case nodes.Risk():
                return self._risk(found, node)
            case _ if len(node.parts) > 1:
                self.report.error("LBW201", f"`{first.text}` has no part `{node.parts[1].text}`", node.span)
                return None
            case nodes.Param():
                value = self.literals.params.get(first.text)
                return None if value is None else Typed(checked.Constant(value), self.units[first.text])
            case nodes.Signal():
                return Typed(checked.Reading(first.text), self.units[first.text], self.sampling.get(first.text, 1))
            case nodes.Let():
                return self._let(found, node.span)

    def _risk(self, risk: nodes.Risk, node: nodes.Reference) -> Typed | None:
        part = node.parts[1].text if len(node.parts) > 1 else "probability"
        if len(node.parts) > 2 or part not in ("probability", "alarm", "trusted"):
            advice = did_you_mean(part, ("alarm", "trusted", "probability"))
            self.report.error("LBW201", f"a risk has no part `{part}`", node.span, advice)
            return None
        unit = PROBABILITY if part == "probability" else TRUTH
        return Typed(checked.RiskReading(risk.name.text, part), unit, risky=True)

    def _let(self, let: nodes.Let, span: Span) -> Typed | None:
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
            condition = self.condition(node.operand)
            return None if condition is None else Typed(checked.Not(condition), TRUTH)
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
        left, right = self.condition(node.left), self.condition(node.right)
        if left is None or right is None:
            return None
        return Typed(checked.Both(left, right) if node.op == "and" else checked.Either(left, right), TRUTH)

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
        self.report.error("LBW210", f"a probability lies between 0 and 1, found `{value:g}`", node.span,
                          f"write a percentage: `{value:g}%`")  # fmt: skip
        return None

    def _grown(self, span: Span, expression: checked.Expression, unit: Unit, *parts: Typed) -> Typed | None:
        size = 1 + sum(part.size for part in parts)
        if size > _MOST_NODES:
            self.report.error("LBW217", f"expected an expression of at most {_MOST_NODES:_} parts, found more", span,
                              "nested `let`s multiply; simplify them")  # fmt: skip
            return None
        every = max(part.every for part in parts)
        return Typed(expression, unit, every, any(part.risky for part in parts), size)

    # Functions

    def _call(self, node: nodes.Call) -> Typed | None:
        kind = FUNCTIONS.get(node.function.text)
        if kind is None:
            advice = did_you_mean(node.function.text, tuple(FUNCTIONS))
            self.report.error("LBW207", f"unknown function `{node.function.text}`", node.function.span, advice)
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
        shape = f"{kind.name}(x{', 128 steps' if kind.windowed else ''}{', 90%' if kind.shares else ''})"
        message = f"`{kind.name}` takes {least} argument{'s' * (least != 1)}, found {len(node.arguments)}"
        self.report.error("LBW208", message, node.span, f"write `{shape}`")
        return False

    def _plain(self, node: nodes.Call, kind: FunctionKind, argument: Typed) -> Typed | None:
        if kind.name == "finite":
            return self._grown(node.span, checked.Finite(argument.number), TRUTH, argument)
        function = checked.Function(kind.name, argument.number)
        return self._grown(node.span, function, kind.unit or argument.unit, argument)

    def _windowed(self, node: nodes.Call, kind: FunctionKind, argument: Typed) -> Typed | None:
        if isinstance(argument.expression, checked.Constant):
            self.report.error("LBW218", f"`{kind.name}` of a constant", node.arguments[0].span,
                              "give it a signal, or a `let` that reads one")  # fmt: skip
            return None
        samples = self._samples(node, kind, argument)
        share = self.literals.real(node.arguments[2], 0.0, 1.0, "a share") if kind.shares else None
        unit = kind.unit or argument.unit
        if kind.name == "slope":
            unit = argument.unit.times(types.STEPS, -1)
        statistic = checked.Statistic(kind.name, argument.number, samples, share)
        return self._grown(node.span, statistic, unit, argument)

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
