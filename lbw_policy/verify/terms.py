"""Terms over named variables: the one form in which the proof, its tests and its certificates speak of a policy.

A term is plain data. `evaluate` gives its value in Python, `smt` its SMT-LIB text, so what the solver proves
and what the tests hold against the running machine is the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

from attrs import field, frozen

Value = int | bool | Fraction
INT, BOOL, REAL = "Int", "Bool", "Real"
_COMPARISONS = ("<", "<=", ">", ">=", "=")
_JOINTS = ("and", "or", "not", "=>")


@frozen(cache_hash=True, order=False)
class Term:
    """An operator applied to terms; `name` is set for a variable, `value` for a constant."""

    op: str
    arguments: tuple[Term, ...] = ()
    sort: str = INT
    name: str = ""
    value: Value = field(default=0)

    def __add__(self, other: Term | int) -> Term:
        return _join("+", self.sort, self, term(other))

    def __sub__(self, other: Term | int) -> Term:
        return _join("-", self.sort, self, term(other))

    def __mul__(self, other: Term | int) -> Term:
        return _join("*", self.sort, self, term(other))

    def __lt__(self, other: Term | int) -> Term:
        return _join("<", BOOL, self, term(other))

    def __le__(self, other: Term | int) -> Term:
        return _join("<=", BOOL, self, term(other))

    def __gt__(self, other: Term | int) -> Term:
        return _join(">", BOOL, self, term(other))

    def __ge__(self, other: Term | int) -> Term:
        return _join(">=", BOOL, self, term(other))

    def __and__(self, other: Term | bool) -> Term:
        return _join("and", BOOL, self, term(other))

    def __or__(self, other: Term | bool) -> Term:
        return _join("or", BOOL, self, term(other))

    def __invert__(self) -> Term:
        return _join("not", BOOL, self)

    def same(self, other: Term | Value) -> Term:
        """Return the term that tells whether two terms are equal; `==` compares the terms themselves."""
        return _join("=", BOOL, self, term(other))

    def implies(self, other: Term) -> Term:
        """Return the implication."""
        return _join("=>", BOOL, self, other)


def _join(op: str, sort: str, *arguments: Term) -> Term:
    return Term(op, arguments, sort)


def variable(name: str, sort: str = INT) -> Term:
    """Return a variable."""
    return Term("variable", (), sort, name)


def term(value: Term | Value) -> Term:
    """Return a constant, or the term itself."""
    if isinstance(value, Term):
        return value
    sort = BOOL if isinstance(value, bool) else INT if isinstance(value, int) else REAL
    return Term("constant", (), sort, "", value)


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


def least(one: Term, other: Term | int) -> Term:
    """Return the smaller of two numbers."""
    return when(one <= other, one, other)


def most(one: Term, other: Term | int) -> Term:
    """Return the greater of two numbers."""
    return when(one >= other, one, other)


def variables(*roots: Term) -> dict[str, Term]:
    """Return the variables of terms by name, in the order in which they are met."""
    return {node.name: node for node in _nodes(*roots) if node.op == "variable"}


def _nodes(*roots: Term) -> Iterator[Term]:
    seen: set[Term] = set()
    stack = [*reversed(roots)]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            yield node
            stack += reversed(node.arguments)


# Values


def evaluate(root: Term, values: Mapping[str, Value]) -> Value:
    """Return the value of a term; raises KeyError for a variable without one."""
    return _evaluate(root, values, {})


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


_APPLY: Mapping[str, Callable[[list[Value]], Value]] = {
    "+": lambda found: found[0] + found[1],
    "-": lambda found: found[0] - found[1],
    "*": lambda found: found[0] * found[1],
    "<": lambda found: found[0] < found[1],
    "<=": lambda found: found[0] <= found[1],
    ">": lambda found: found[0] > found[1],
    ">=": lambda found: found[0] >= found[1],
    "=": lambda found: found[0] == found[1],
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


# SMT-LIB


def smt(node: Term) -> str:
    """Return the SMT-LIB text of a term."""
    if node.op == "variable":
        return f"|{node.name}|"
    if node.op == "constant":
        return _constant(node.value)
    return f"({node.op} {' '.join(smt(one) for one in node.arguments)})"


def _constant(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"(/ {abs(value.numerator)}.0 {value.denominator}.0)" if isinstance(value, Fraction) else str(abs(value))
    return f"(- {text})" if value < 0 else text


def declare(node: Term) -> str:
    """Return the SMT-LIB declaration of a variable."""
    return f"(declare-const |{node.name}| {node.sort})"


def unsatisfiable(*facts: Term) -> str:
    """Return the SMT-LIB script that asks whether facts can hold together; `unsat` means that they cannot."""
    lines = [declare(one) for one in variables(*facts).values()]
    return "\n".join([*lines, *(f"(assert {smt(fact)})" for fact in facts), "(check-sat)", ""])
