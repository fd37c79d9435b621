"""Normal forms of expressions: two that are equal here mean the same, however they were written."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, cast

import attrs

from lbw_policy.semantics import expressions as e

OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_MIRRORED = {">": "<", ">=": "<="}


def inward(node: e.Condition, *, negate: bool = False) -> e.Condition:
    """Return a condition, or its negation, with `not` moved inward to what it is about."""
    match node:
        case e.Not(operand):
            return inward(operand, negate=not negate)
        case e.Both(left, right) | e.Either(left, right):
            kind = e.Both if isinstance(node, e.Both) != negate else e.Either
            return kind(inward(left, negate=negate), inward(right, negate=negate))
        case e.Comparison(op, left, right):
            return e.Comparison(OPPOSITE[op], left, right) if negate else node
        case _:
            return e.Not(node) if negate else node


def normal(node: e.Expression) -> Hashable:
    """Return a key that is equal for expressions that differ in order, direction or negation only."""
    match node:
        case e.Not(e.Finite() | e.RiskReading() as operand):
            return "not", normal(operand)
        case e.Not():
            return normal(inward(node))
        case e.Both() | e.Either():
            return type(node).__name__, frozenset(normal(part) for part in _chain(node, type(node)))
        case e.Comparison(op, left, right):
            return _comparison(op, normal(left), normal(right))
        case e.Arithmetic(op, left, right) if op in "+*":
            return op, frozenset((normal(left), normal(right)))
        case e.Function("neg", e.Constant(value)):
            return normal(e.Constant(-value))
        case _:
            return type(node).__name__, *(_part(getattr(node, field.name)) for field in attrs.fields(type(node)))


def _comparison(op: str, left: Hashable, right: Hashable) -> Hashable:
    if op in ("==", "!="):
        return op, frozenset((left, right))
    return (_MIRRORED[op], right, left) if op in _MIRRORED else (op, left, right)


def _chain(node: e.Condition, kind: type) -> Iterator[e.Condition]:
    node = inward(node) if isinstance(node, e.Not) else node
    if isinstance(node, e.Both | e.Either) and isinstance(node, kind):
        yield from _chain(node.left, kind)
        yield from _chain(node.right, kind)
    else:
        yield node


def _part(value: object) -> Hashable:
    return normal(value) if isinstance(value, e.Expression) else value


def shape(node: e.Expression) -> Hashable:
    """Return the normal form with every constant and every window's length left out."""
    return normal(cast(e.Expression, _erased(node)))


def _erased(node: object) -> object:
    """Return an expression with its numbers replaced by one and the same."""
    match node:
        case e.Constant() | e.Function("neg", e.Constant()):
            return e.Constant(0.0)
        case e.Statistic(name, argument):
            return e.Statistic(name, cast(e.Number, _erased(argument)), 1)
        case _:
            return mapped(node, _erased)


def mapped(node: object, change: Callable[[object], object]) -> object:
    """Return a value with `change` applied to the parts of an attrs class or a tuple."""
    if isinstance(node, tuple):
        return tuple(change(item) for item in node)
    if not attrs.has(type(node)):
        return node
    known = cast(Any, node)
    changed = {field.name: change(getattr(known, field.name)) for field in attrs.fields(type(known)) if field.init}
    return attrs.evolve(known, **changed)
