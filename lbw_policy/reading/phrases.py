"""Checked expressions in plain English, to be read aloud."""

from __future__ import annotations

from lbw_policy.reading.normal import OPPOSITE
from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.spelling import Vocabulary, amount, share, spell, steps

_VERBS = {
    "<": "is below",
    "<=": "is at most",
    ">": "is above",
    ">=": "is at least",
    "==": "equals",
    "!=": "differs from",
}
_OPERATORS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}
_FUNCTIONS = {"log": "the logarithm of {x}", "abs": "the size of {x}", "neg": "minus {x}"}
_STATISTICS = {
    "zscore": "how many robust deviations {x} lies above its median of the last {n}",
    "median": "the median of {x} over the last {n}",
    "mean": "the mean of {x} over the last {n}",
    "std": "the standard deviation of {x} over the last {n}",
    "min": "the least {x} of the last {n}",
    "max": "the greatest {x} of the last {n}",
    "quantile": "the {q} quantile of {x} over the last {n}",
    "spread": "the range of {x} over the last {n}, relative to its median",
    "ewma": "{x} smoothed over {n}",
    "slope": "the slope of {x} over the last {n}",
    "prev": "{x} {n} ago",
    "rate": "the number of {x} in the last {n}",
}


def condition(node: e.Condition, words: Vocabulary, *, negate: bool = False) -> str:
    """Return a condition, or its negation, as a clause; `let`s go by their names."""
    if node in words.names:
        return f"`{words.names[node]}` {'does not hold' if negate else 'holds'}"
    match node:
        case e.Not(operand):
            return condition(operand, words, negate=not negate)
        case e.Both() | e.Either():
            return _joined(node, words, negate)
        case e.Comparison(op, left, right):
            verb = _VERBS[OPPOSITE[op] if negate else op]
            return f"{_side(left, right, words)} {verb} {_side(right, left, words)}"
        case e.Finite(argument):
            return f"{number(argument, words)} is {'not ' * negate}a finite number"
        case e.RiskReading(risk, "alarm"):
            return f"`{risk}` {'does not raise' if negate else 'raises'} its alarm"
        case e.RiskReading(risk, part):
            return f"`{risk}` is {'not ' * negate}{part}"


def _joined(node: e.Both | e.Either, words: Vocabulary, negate: bool) -> str:
    kind = type(node)
    parts = [(condition(part, words, negate=negate), part) for part in _chain(node, kind, words)]
    grouped = [f"({text})" if _compound(part, words) else text for text, part in parts]
    return (" and " if (kind is e.Both) != negate else " or ").join(grouped)


def _compound(node: e.Condition, words: Vocabulary) -> bool:
    """Tell whether a condition is said as several joined ones."""
    while isinstance(node, e.Not) and node not in words.names:
        node = node.operand
    return isinstance(node, e.Both | e.Either) and node not in words.names


def _chain(node: e.Condition, kind: type, words: Vocabulary) -> list[e.Condition]:
    """Return the operands of a run of the same operator."""
    if not isinstance(node, e.Both | e.Either) or not isinstance(node, kind):
        return [node]
    sides = (node.left, node.right)
    return [part for side in sides for part in ([side] if side in words.names else _chain(side, kind, words))]


def _side(node: e.Number, other: e.Number, words: Vocabulary) -> str:
    if isinstance(node, e.Constant) and isinstance(other, e.RiskReading) and 0 <= node.value <= 1:
        return share(node.value)
    return number(node, words)


def number(node: e.Number, words: Vocabulary) -> str:
    """Return a number as a noun phrase; `let`s go by their names."""
    if node in words.names:
        return f"`{words.names[node]}`"
    match node:
        case e.Constant(value):
            return amount(value)
        case e.Reading(signal):
            return f"`{signal}`"
        case e.RiskReading(risk):
            return f"the probability of `{risk}`"
        case e.Arithmetic(op, left, right):
            return f"{_part(left, words)} {_OPERATORS[op]} {_part(right, words)}"
        case e.Function(name, argument) if name in _FUNCTIONS:
            return _FUNCTIONS[name].format(x=_part(argument, words))
        case e.Statistic(name, argument, _, quantile) if name in _STATISTICS:
            q = "" if quantile is None else share(quantile)
            return _STATISTICS[name].format(x=_atom(argument, words), n=steps(words.steps(node)), q=q)
        case _:
            return f"`{spell(node, words)}`"


def _part(node: e.Number, words: Vocabulary) -> str:
    """Return an operand, in parentheses where it is made of several itself."""
    bare = node in words.names or not isinstance(node, e.Arithmetic)
    return number(node, words) if bare else f"({number(node, words)})"


def _atom(node: e.Number, words: Vocabulary) -> str:
    """Return an argument, in parentheses unless it is one word."""
    bare = node in words.names or isinstance(node, e.Reading | e.Constant)
    return number(node, words) if bare else f"({number(node, words)})"


def hold(trigger: p.Trigger) -> str:
    """Return how long a condition must hold, with a space before it."""
    if trigger.window == 1:
        return ""
    if trigger.count == trigger.window:
        return f" for {steps(trigger.window)} in a row"
    return f" in {trigger.count} of the last {steps(trigger.window)}"


def when(trigger: p.Trigger, words: Vocabulary) -> str:
    """Return a trigger as a clause; its hold is set apart where it concerns several conditions."""
    apart = "," if trigger.window > 1 and _compound(trigger.condition, words) else ""
    return condition(trigger.condition, words) + apart + hold(trigger)


def budget(limit: p.Budget) -> str:
    """Return a budget, such as `at most 3 times in any 1_000 steps`."""
    times = "once" if limit.count == 1 else f"{limit.count:_} times"
    return f"at most {times} in any {steps(limit.window)}"
