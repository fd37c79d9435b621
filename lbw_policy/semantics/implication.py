"""Which condition follows from which, by their form alone; what cannot be seen at a glance counts as open."""

from __future__ import annotations

import math

from lbw_policy.semantics import expressions as e
from lbw_policy.semantics.walk import children

MOST_PARTS = 32
"""Larger conditions are not compared, so that advice costs no more than the text."""

_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def opposite(node: e.Condition) -> e.Condition:
    """Return the negation, moved inward to the comparisons."""
    match node:
        case e.Not(operand):
            return normal(operand)
        case e.Both(left, right):
            return e.Either(opposite(left), opposite(right))
        case e.Either(left, right):
            return e.Both(opposite(left), opposite(right))
        case e.Comparison(op, first, second):
            return turned(e.Comparison(_OPPOSITE[op], first, second))
        case _:
            return e.Not(node)


def normal(node: e.Condition) -> e.Condition:
    """Return the condition with negations inside and constants on the right."""
    match node:
        case e.Not(operand):
            return opposite(operand)
        case e.Both(left, right):
            return e.Both(normal(left), normal(right))
        case e.Either(left, right):
            return e.Either(normal(left), normal(right))
        case e.Comparison():
            return turned(node)
        case _:
            return node


def turned(node: e.Comparison) -> e.Comparison:
    """Return the comparison with a lone constant on its right."""
    if isinstance(node.left, e.Constant) and not isinstance(node.right, e.Constant):
        return e.Comparison(_TURNED[node.op], node.right, node.left)
    return node


def small(*nodes: e.Condition) -> bool:
    """Tell whether conditions have few enough parts to be compared."""
    stack: list[e.Expression] = [*nodes]
    for _ in range(MOST_PARTS * len(nodes)):
        if not stack:
            return True
        node = stack.pop()
        if isinstance(node, e.Not | e.Both | e.Either):
            stack += children(node)
    return not stack


def implies(one: e.Condition, other: e.Condition) -> bool:
    """Tell whether `other` is at least as true as `one` in every tick; both are `normal`.

    The order of truth is kept: where `one` is unknown, `other` is unknown or true.
    """
    if one == other:
        return True
    if isinstance(other, e.Both):
        return implies(one, other.left) and implies(one, other.right)
    if isinstance(one, e.Either):
        return implies(one.left, other) and implies(one.right, other)
    if isinstance(one, e.Both) and (implies(one.left, other) or implies(one.right, other)):
        return True
    if isinstance(other, e.Either):
        return implies(one, other.left) or implies(one, other.right)
    return isinstance(one, e.Comparison) and isinstance(other, e.Comparison) and _stronger(one, other)


def _stronger(one: e.Comparison, other: e.Comparison) -> bool:
    limits = threshold(one), threshold(other)
    if one.left != other.left or None in limits:
        return False
    (op, value), (weaker, least) = (one.op, limits[0] or 0.0), (other.op, limits[1] or 0.0)
    if op[0] != weaker[0] or op[0] in "=!":
        return False
    gap = value - least if op[0] == ">" else least - value
    return gap > 0 or (gap == 0 and not (weaker in ("<", ">") and op in ("<=", ">=")))


def threshold(node: e.Comparison) -> float | None:
    """Return the finite constant a comparison has on its right."""
    if isinstance(node.right, e.Constant) and math.isfinite(node.right.value):
        return node.right.value
    return None
