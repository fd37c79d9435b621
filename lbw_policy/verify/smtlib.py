"""Terms -> SMT-LIB, the text that every solver reads."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction

from lbw_policy.verify.terms import FLOAT, Term, Value, nodes, variables

_OF_FLOATS = {
    "+": "fp.add RNE",
    "-": "fp.sub RNE",
    "*": "fp.mul RNE",
    "<": "fp.lt",
    "<=": "fp.leq",
    ">": "fp.gt",
    ">=": "fp.geq",
}


def smt(node: Term, names: Mapping[Term, str] | None = None) -> str:
    """Return the SMT-LIB text of a term; a part that has a name is written as that."""
    if names and node in names:
        return names[node]
    if node.op == "variable":
        return f"|{node.name}|"
    if node.op == "constant":
        return _constant(node.value)
    op = _OF_FLOATS.get(node.op, node.op) if node.arguments[0].sort == FLOAT else node.op
    return f"({op} {' '.join(smt(one, names) for one in node.arguments)})"


def _constant(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _bits(value)
    text = f"(/ {abs(value.numerator)}.0 {value.denominator}.0)" if isinstance(value, Fraction) else str(abs(value))
    return f"(- {text})" if value < 0 else text


def _bits(value: float) -> str:
    """Return a float by its bits: nothing is rounded on the way to the solver."""
    if math.isnan(value):
        return "(_ NaN 11 53)"
    bits = f"{struct.unpack('>Q', struct.pack('>d', value))[0]:064b}"
    return f"(fp #b{bits[0]} #b{bits[1:12]} #b{bits[12:]})"


def declare(node: Term) -> str:
    """Return the SMT-LIB declaration of a variable."""
    return f"(declare-const |{node.name}| {node.sort})"


def unsatisfiable(*facts: Term) -> str:
    """Return the SMT-LIB script that asks whether facts can hold together; `unsat` means that they cannot."""
    lines = [declare(one) for one in variables(*facts).values()]
    names: dict[Term, str] = {}
    for node in _shared(*facts):
        lines.append(f"(define-fun |.{len(names)}| () {node.sort} {smt(node, names)})")
        names[node] = f"|.{len(names)}|"
    return "\n".join([*lines, *(f"(assert {smt(fact, names)})" for fact in facts), "(check-sat)", ""])


def _shared(*roots: Term) -> list[Term]:
    """Return the compound parts that are used more than once, each after the parts it is made of."""
    met = list(nodes(*roots))
    uses = Counter(one for node in met for one in node.arguments)
    depth: dict[Term, int] = {}
    found = [node for node in met if node.arguments and uses[node] > 1]
    return sorted(found, key=lambda node: _depth(node, depth))


def _depth(node: Term, known: dict[Term, int]) -> int:
    if node not in known:
        known[node] = 1 + max((_depth(one, known) for one in node.arguments), default=0)
    return known[node]
