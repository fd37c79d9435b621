"""Checked expression -> the text of it, for records, diagrams and explanations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from attrs import evolve, field, frozen

from lbw_policy.semantics import expressions as e
from lbw_policy.semantics.policy import Policy
from lbw_policy.semantics.walk import children

_ADDITION, _PRODUCT, _UNARY, _ATOM = 5, 6, 7, 8
_COMPARISON = 4
_STRENGTH = {"+": _ADDITION, "-": _ADDITION, "*": _PRODUCT, "/": _PRODUCT}


@frozen
class Vocabulary:
    """What a policy calls things: names of `let`s by expression, and each signal's ticks between readings."""

    names: Mapping[e.Expression, str] = field(factory=dict)
    every: Mapping[str, int] = field(factory=dict)

    @classmethod
    def of(cls, policy: Policy) -> Vocabulary:
        """Return a policy's vocabulary; a `let` that only renames a reading or a number is left out."""
        names: dict[e.Expression, str] = {}
        for name, expression in policy.names:
            if not isinstance(expression, e.Constant | e.Reading | e.RiskReading):
                names.setdefault(expression, name)
        return cls(names, {signal.name: signal.every for signal in policy.signals})

    def without(self, expression: e.Expression) -> Vocabulary:
        """Return the vocabulary that has to spell this expression out."""
        return evolve(self, names={known: name for known, name in self.names.items() if known != expression})

    def steps(self, statistic: e.Statistic) -> int:
        """Return the length of a statistic's window in steps."""
        return statistic.samples * math.lcm(*(self.every.get(name, 1) for name in _signals(statistic.argument)))


def spell(node: e.Expression, vocabulary: Vocabulary = Vocabulary()) -> str:
    """Return an expression as a policy would write it, with the names its `let`s gave to parts of it."""
    return vocabulary.names.get(node) or _spell(node, vocabulary)


def amount(value: float) -> str:
    """Return a number as a policy would write it, exactly."""
    if math.isfinite(value) and abs(value) < 1e15 and value == int(value):
        return f"{int(value):_}"
    return repr(float(value))


def share(value: float) -> str:
    """Return a probability or a share as a percentage where that is exact, else as a plain number."""
    text = f"{100 * value:.6g}"
    return f"{text}%" if "e" not in text and float(text) / 100 == value else amount(value)


def steps(count: int) -> str:
    """Return a duration as a policy would write it."""
    return f"{count:_} step{'s' * (count != 1)}"


def _spell(node: e.Expression, words: Vocabulary) -> str:
    match node:
        case e.Constant(value):
            return amount(value)
        case e.Reading(signal):
            return signal
        case e.RiskReading(risk, part):
            return risk if part == "probability" else f"{risk}.{part}"
        case e.Statistic(name, argument, _, quantile):
            extra = "" if quantile is None else f", {share(quantile)}"
            return f"{name}({spell(argument, words)}, {steps(words.steps(node))}{extra})"
        case e.Function("neg", argument):
            return f"-{_inner(argument, words, _UNARY)}"
        case e.Function(name, argument):
            return f"{name}({spell(argument, words)})"
        case e.Finite(argument):
            return f"finite({spell(argument, words)})"
        case e.Not(operand):
            return f"not {_inner(operand, words, _UNARY)}"
        case _:
            return _joined(node, words)


def _joined(node: e.Comparison | e.Arithmetic | e.Both | e.Either, words: Vocabulary) -> str:
    """Spell two operands and what stands between them."""
    match node:
        case e.Comparison(op, left, right):
            return f"{_side(left, right, words)} {op} {_side(right, left, words)}"
        case e.Arithmetic(op, left, right):
            strength = _STRENGTH[op]
            return f"{_inner(left, words, strength)} {op} {_inner(right, words, strength + 1)}"
        case e.Both(left, right):
            return f"{_first(left, e.Both, words)} and {_inner(right, words, _COMPARISON)}"
        case e.Either(left, right):
            return f"{_first(left, e.Either, words)} or {_inner(right, words, _COMPARISON)}"


def _side(number: e.Number, other: e.Number, words: Vocabulary) -> str:
    """Spell one side of a comparison; beside a probability a number is a percentage."""
    if isinstance(number, e.Constant) and isinstance(other, e.RiskReading) and 0 <= number.value <= 1:
        return share(number.value)
    return _inner(number, words, _ADDITION)


def _first(left: e.Condition, kind: type, words: Vocabulary) -> str:
    """Spell the left side of `and` or `or`: a chain of the same needs no parentheses, a mixture gets them."""
    return spell(left, words) if isinstance(left, kind) else _inner(left, words, _COMPARISON)


def _inner(node: e.Expression, words: Vocabulary, least: int) -> str:
    """Spell an operand, in parentheses where it would else bind less than `least`."""
    text = spell(node, words)
    return text if node in words.names or _binding(node) >= least else f"({text})"


def _binding(node: e.Expression) -> int:
    match node:
        case e.Both() | e.Either():
            return 1
        case e.Not():
            return _COMPARISON
        case e.Comparison():
            return _COMPARISON
        case e.Arithmetic(op):
            return _STRENGTH[op]
        case e.Function("neg"):
            return _UNARY
        case _:
            return _ATOM


def _signals(node: e.Expression) -> Iterator[str]:
    if isinstance(node, e.Reading):
        yield node.signal
    for child in children(node):
        yield from _signals(child)
