"""Where expressions stand: each checked condition beside the words it was read from."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.walk import children
from lbw_policy.syntax import nodes

Pair = tuple[nodes.Expression, e.Expression]


@frozen
class Site:
    """One expression of a policy: `kind` is `let`, `reflex`, `require`, `alert`, `enter` or `leave`."""

    kind: str
    node: nodes.Expression
    expression: e.Expression


@frozen
class Clauses:
    """A level with the clauses it was read from, by name; `each` has its repeated actions in order."""

    level: p.Level
    node: nodes.Level
    found: dict[str, nodes.Condition | nodes.Setting]
    each: tuple[nodes.Each, ...]

    def condition(self, name: str) -> nodes.Condition | None:
        """Return the `enter` or `leave` clause."""
        clause = self.found.get(name)
        return clause if isinstance(clause, nodes.Condition) else None


def sites(policy: p.Policy, statements: tuple[nodes.Statement, ...]) -> list[Site]:
    """Return every condition of a policy without errors, and every `let`."""
    rules: dict[str, e.Expression] = {f"reflex {one.name}": one.condition for one in policy.reflexes}
    rules |= {f"alert {one.name}": one.trigger.condition for one in policy.alerts}
    rules |= {f"let {name}": expression for name, expression in policy.names}
    found = [site for node in statements for site in _site(node, rules)]
    required = (node for node in statements if isinstance(node, nodes.Require))
    found += [site for number, node in enumerate(required, start=1) for site in _required(node, rules, number)]
    return found + [site for clauses in levels(policy, statements) for site in _of_level(clauses)]


def _site(node: nodes.Statement, rules: dict[str, e.Expression]) -> Iterator[Site]:
    if isinstance(node, nodes.Reflex | nodes.Alert | nodes.Let):
        kind = type(node).__name__.lower()
        written = node.condition if isinstance(node, nodes.Reflex) else node.expression
        if f"{kind} {node.name.text}" in rules:
            yield Site(kind, written, rules[f"{kind} {node.name.text}"])


def _required(node: nodes.Require, rules: dict[str, e.Expression], number: int) -> Iterator[Site]:
    """Yield what a requirement requires; the rule made of it has the opposite condition."""
    rule = rules.get(f"reflex require_{number}") or rules.get(f"alert require_{number}")
    if isinstance(rule, e.Not):
        yield Site("require", node.expression, rule.operand)


def levels(policy: p.Policy, statements: tuple[nodes.Statement, ...]) -> list[Clauses]:
    """Return the levels above the calm one, in order, with their clauses."""
    written = {node.name.text: node for node in statements if isinstance(node, nodes.Level)}
    return [_clauses(level, written[level.name]) for level in policy.levels[1:] if level.name in written]


def _clauses(level: p.Level, node: nodes.Level) -> Clauses:
    named = {one.name: one for one in node.clauses if isinstance(one, nodes.Condition | nodes.Setting)}
    return Clauses(level, node, named, tuple(one for one in node.clauses if isinstance(one, nodes.Each)))


def _of_level(clauses: Clauses) -> Iterator[Site]:
    for name, trigger in (("enter", clauses.level.enter), ("leave", clauses.level.leave)):
        clause = clauses.condition(name)
        if clause is not None and trigger is not None:
            yield Site(name, clause.expression, trigger.condition)


def paired(site: Site) -> Iterator[Pair]:
    """Yield the site's expression and the parts written out in it, each beside its words.

    What a name stands for is not entered: a `let` is a site of its own.
    """
    stack: list[Pair] = [(site.node, site.expression)]
    while stack:
        node, expression = stack.pop()
        yield node, expression
        stack += zip(reversed(_operands(node)), reversed(children(expression)), strict=False)


def _operands(node: nodes.Expression) -> list[nodes.Expression]:
    match node:
        case nodes.Binary():
            return [node.left, node.right]
        case nodes.Unary():
            return [node.operand]
        case nodes.Call():
            return [node.arguments[0]]
        case _:
            return []


def adjustable(statements: tuple[nodes.Statement, ...]) -> frozenset[str]:
    """Return the names whose value depends on a param, so that it may be another at the next load."""
    lets = {node.name.text: node for node in statements if isinstance(node, nodes.Let)}
    found = {node.name.text for node in statements if isinstance(node, nodes.Param)}
    readers: dict[str, list[str]] = {}
    for name, let in lets.items():
        for read in names_in(let.expression):
            readers.setdefault(read, []).append(name)
    stack = [*found]
    while stack:
        grown = [name for name in readers.pop(stack.pop(), ()) if name not in found]
        found.update(grown)
        stack += grown
    return frozenset(found)


def names_in(node: nodes.Expression) -> Iterator[str]:
    """Yield the first part of every name an expression is computed from."""
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, nodes.Reference):
            yield one.parts[0].text
        stack += _operands(one)
