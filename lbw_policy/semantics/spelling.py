"""Checked expression -> the text of it, for records and explanations."""

from __future__ import annotations

from lbw_policy.semantics import expressions as e


def spell(node: e.Expression) -> str:
    """Return an expression as a policy would write it, with names of `let`s written out."""
    match node:
        case e.Constant(value):
            return f"{value:g}"
        case e.Reading(signal):
            return signal
        case e.RiskReading(risk, field):
            return risk if field == "probability" else f"{risk}.{field}"
        case e.Statistic(name, argument, samples, share):
            extra = "" if share is None else f", {share:.6g}"
            return f"{name}({spell(argument)}, {samples} samples{extra})"
        case e.Function("neg", argument):
            return f"-{_inner(argument)}"
        case e.Function(name, argument):
            return f"{name}({spell(argument)})"
        case e.Finite(argument):
            return f"finite({spell(argument)})"
        case e.Not(operand):
            return f"not {_inner(operand)}"
        case e.Arithmetic(op, left, right) | e.Comparison(op, left, right):
            return f"{_inner(left)} {op} {_inner(right)}"
        case e.Both(left, right):
            return f"{_inner(left)} and {_inner(right)}"
        case e.Either(left, right):
            return f"{_inner(left)} or {_inner(right)}"


def _inner(node: e.Expression) -> str:
    compound = isinstance(node, e.Arithmetic | e.Comparison | e.Both | e.Either)
    return f"({spell(node)})" if compound else spell(node)
