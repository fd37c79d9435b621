"""Terms over named variables: the one form in which the proof, its tests and its certificates speak of a policy.

A term is plain data. `evaluate` gives its value in Python, `smtlib.smt` its SMT-LIB text, so what the solver proves
and what the tests hold against the running machine is the same object.
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

from attrs import field, frozen

Value = int | bool | Fraction | float
INT, BOOL, REAL, FLOAT = "Int", "Bool", "Real", "Float64"
"""A `Float64` is what Python calls a float: IEEE 754 binary64, rounded to nearest, NaN and infinities included."""


@frozen(cache_hash=True, order=False)
class Term:
    """An operator applied to terms; `name` is set for a variable, `value` for a constant.

    A float constant has its hexadecimal form as name, so that -0.0 is another term than 0.0.
    """

    op: str
    arguments: tuple[Term, ...] = ()
    sort: str = INT
    name: str = ""
    value: Value = field(default=0)

    def __add__(self, other: Term | Value) -> Term:
        return _join("+", self.sort, self, term(other))

    def __sub__(self, other: Term | Value) -> Term:
        return _join("-", self.sort, self, term(other))

    def __mul__(self, other: Term | Value) -> Term:
        return _join("*", self.sort, self, term(other))

    def __lt__(self, other: Term | Value) -> Term:
        return _join("<", BOOL, self, term(other))

    def __le__(self, other: Term | Value) -> Term:
        return _join("<=", BOOL, self, term(other))

    def __gt__(self, other: Term | Value) -> Term:
        return _join(">", BOOL, self, term(other))

    def __ge__(self, other: Term | Value) -> Term:
        return _join(">=", BOOL, self, term(other))

    def __and__(self, other: Term | bool) -> Term:
        return _join("and", BOOL, self, term(other))

    def __or__(self, other: Term | bool) -> Term:
        return _join("or", BOOL, self, term(other))

    def __invert__(self) -> Term:
        return _join("not", BOOL, self)

    def same(self, other: Term | Value) -> Term:
        """Return the term that tells whether two values are the same; `==` compares the terms themselves.

        Floats are the same if their bits are, and NaN is the same as NaN.
        """
        return _join("=", BOOL, self, term(other))

    def implies(self, other: Term) -> Term:
        """Return the implication."""
        return _join("=>", BOOL, self, other)


def _join(op: str, sort: str, *arguments: Term) -> Term:
    return Term(op, arguments, sort)


def variable(name: str, sort: str = INT) -> Term:
    """Return a variable."""
    return Term("variable", (), sort, name)


def integers(names: str) -> list[Term]:
    """Return integer variables by their names, which spaces part."""
    return [variable(name) for name in names.split()]


def term(value: Term | Value) -> Term:
    """Return a constant, or the term itself."""
    if isinstance(value, Term):
        return value
    name = value.hex() if isinstance(value, float) else ""
    return Term("constant", (), _sort(value), name, value)


def _sort(value: Value) -> str:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, int):
        return INT
    return FLOAT if isinstance(value, float) else REAL


def either(*terms: Term) -> Term:
    """Return the disjunction; false of nothing."""
    return _join("or", BOOL, *terms) if terms else term(False)


def every(*terms: Term) -> Term:
    """Return the conjunction; true of nothing."""
    return _join("and", BOOL, *terms) if terms else term(True)


def when(condition: Term, then: Term | Value, otherwise: Term | Value) -> Term:
    """Return `then` where the condition is true, else `otherwise`."""
    one, other = term(then), term(otherwise)
    return _join("ite", one.sort, condition, one, other)


def least(one: Term, other: Term | Value) -> Term:
    """Return the smaller of two numbers."""
    return when(one <= other, one, other)


def most(one: Term, other: Term | Value) -> Term:
    """Return the greater of two numbers."""
    return when(one >= other, one, other)


def variables(*roots: Term) -> dict[str, Term]:
    """Return the variables of terms by name, in the order in which they are met."""
    return {node.name: node for node in nodes(*roots) if node.op == "variable"}


def nodes(*roots: Term) -> Iterator[Term]:
    """Yield every part of terms once."""
    seen: set[Term] = set()
    stack = [*reversed(roots)]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            yield node
            stack += reversed(node.arguments)


# Values


def evaluate(root: Term, values: Mapping[str, Value], known: dict[Term, Value] | None = None) -> Value:
    """Return the value of a term; raises KeyError for a variable without one.

    Terms that are evaluated with the same values may share `known`, the values of their parts.
    """
    return _evaluate(root, values, {} if known is None else known)


def _evaluate(node: Term, values: Mapping[str, Value], known: dict[Term, Value]) -> Value:
    if node.op == "variable":
        return values[node.name]
    if node.op == "constant":
        return node.value
    if node not in known:
        if node.op == "ite":
            condition, then, otherwise = node.arguments
            known[node] = _evaluate(then if _evaluate(condition, values, known) else otherwise, values, known)
        else:
            known[node] = _APPLY[node.op]([_evaluate(one, values, known) for one in node.arguments])
    return known[node]


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack(">d", one) == struct.pack(">d", other) or (math.isnan(one) and math.isnan(other))
    return one == other


def _fold(apply: Callable[[Value, Value], Value]) -> Callable[[list[Value]], Value]:
    return lambda found: apply(found[0], found[1])


_APPLY: Mapping[str, Callable[[list[Value]], Value]] = {
    "+": _fold(operator.add),
    "-": _fold(operator.sub),
    "*": _fold(operator.mul),
    "<": _fold(operator.lt),
    "<=": _fold(operator.le),
    ">": _fold(operator.gt),
    ">=": _fold(operator.ge),
    "=": _fold(_same),
    "and": all,
    "or": any,
    "not": lambda found: not found[0],
    "=>": lambda found: not found[0] or bool(found[1]),
}


def substitute(root: Term, replacements: Mapping[str, Term]) -> Term:
    """Return a term with variables replaced, all at once."""
    known: dict[Term, Term] = {}

    def walk(node: Term) -> Term:
        if node.op == "variable":
            return replacements.get(node.name, node)
        if node not in known:
            found = tuple(walk(one) for one in node.arguments)
            known[node] = node if found == node.arguments else Term(node.op, found, node.sort, node.name, node.value)
        return known[node]

    return walk(root)
