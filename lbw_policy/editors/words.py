"""The words and signs of the language by what they are for, taken from the grammar and the tables of meaning.

Both highlighters, hover and completion read them here, so that a word added to the grammar is known everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from attrs import frozen
from lark.grammar import Rule

from lbw_policy.semantics.functions import FUNCTIONS
from lbw_policy.semantics.signals import SIGNALS
from lbw_policy.semantics.types import NAMED
from lbw_policy.syntax.parser import built

ROOTS = ("telemetry", "observed")
"""What stands before the dot in the source of a signal."""
RISK_PARTS = {
    "alarm": "true while the model's score is beyond the threshold its false-alarm budget sets",
    "probability": "the calibrated probability of divergence within the horizon; the risk's name alone means the same",
    "trusted": "true while the model has earned trust; else the fallback is read",
}
SEVERITIES = ("info", "warning", "critical")
_LOGIC = ("AND", "OR", "NOT")
_CONSTANTS = ("NAN", "INF")


@frozen
class Words:
    """Keywords, each in one group, and the patterns of everything else; regular expressions are the grammar's own."""

    statements: frozenset[str]
    """Words that open a statement of a file."""
    actions: frozenset[str]
    """What may stand after `do`."""
    logic: frozenset[str]
    durations: frozenset[str]
    """What makes a number a duration."""
    constants: frozenset[str]
    clauses: frozenset[str]
    """Every other keyword."""
    signs: frozenset[str]
    patterns: dict[str, str]
    kinds: dict[str, str]
    """The text of each keyword and sign, by the name of its terminal."""
    functions: tuple[str, ...] = tuple(FUNCTIONS)
    signals: tuple[str, ...] = tuple(SIGNALS)
    units: tuple[str, ...] = tuple(NAMED)

    @property
    def keywords(self) -> frozenset[str]:
        """Every keyword of the grammar."""
        return self.statements | self.actions | self.logic | self.durations | self.constants | self.clauses


@functools.cache
def words() -> Words:
    """Return the words of the one grammar."""
    grammar = built()
    kinds = {t.name: t.pattern.value for t in grammar.terminals if t.pattern.type == "str"}
    firsts = {rule: _first(rule, grammar.rules) for rule in ("edition", "statement", "action", "unit")}
    groups = {rule: frozenset(kinds[kind] for kind in found if kind in kinds) for rule, found in firsts.items()}
    keywords = frozenset(text for text in kinds.values() if text.isidentifier())
    logic, constants = (frozenset(kinds[kind] for kind in some if kind in kinds) for some in (_LOGIC, _CONSTANTS))
    known = frozenset().union(logic, constants, *groups.values())
    return Words(
        statements=groups["edition"] | groups["statement"],
        actions=groups["action"],
        logic=logic,
        durations=groups["unit"],
        constants=constants,
        clauses=keywords - known,
        signs=frozenset(kinds.values()) - keywords,
        patterns={t.name: t.pattern.value for t in grammar.terminals if t.pattern.type == "re"},
        kinds=kinds,
    )


def _first(rule: str, rules: Iterable[Rule]) -> frozenset[str]:
    """Return the terminals a rule may begin with."""
    starts: dict[str, set[str]] = {}
    for each in rules:
        starts.setdefault(str(each.origin.name), set()).update(str(symbol.name) for symbol in each.expansion[:1])
    seen: set[str] = set()
    open_ = [rule]
    while open_:
        name = open_.pop()
        if name not in seen:
            seen.add(name)
            open_ += starts.get(name, ())
    return frozenset(seen - set(starts))
