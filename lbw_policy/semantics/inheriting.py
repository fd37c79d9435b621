"""What a policy takes over from the one it extends: everything but the header and the tests."""

from __future__ import annotations

from attrs import evolve

from lbw_policy.syntax import nodes

_KEPT = ("quarantine", "snapshot", "on_failure")
"""The settings of a policy that one which extends it takes over."""

Statements = tuple[nodes.Statement, ...]
Key = tuple[type[nodes.Statement], str]


def inherit(child: Statements, parent: Statements) -> Statements:
    """Return the parent's statements, the child's in place of its like, then the child's others."""
    order = next((node for node in child if isinstance(node, nodes.Levels)), None)
    first: dict[Key, nodes.Statement] = {}
    for node in child:
        if (key := _key(node)) is not None:
            first.setdefault(key, node)
    taken: set[int] = set()
    placed: list[nodes.Statement] = []
    for node in parent:
        if isinstance(node, nodes.Test) or _left_out(node, order):
            continue
        own = first.get(key) if (key := _key(node)) else None
        placed.append(_merged(own, node) if own else node)
        taken.add(id(own))
    return (*placed, *(node for node in child if id(node) not in taken))


def _left_out(node: nodes.Statement, order: nodes.Levels | None) -> bool:
    """Tell whether a level has no place in the child's own order of levels."""
    named = order is None or not isinstance(node, nodes.Level) or node.name.text in {word.text for word in order.names}
    return not named


def _key(node: nodes.Statement) -> Key | None:
    """Return what makes two statements the same one; None where each stands for itself."""
    if isinstance(node, nodes.Policy | nodes.Levels | nodes.Limits):
        return type(node), ""
    if isinstance(node, nodes.Import | nodes.Require | nodes.Test) or not node.name.text:
        return None
    return type(node), node.name.text


def _merged(child: nodes.Statement, parent: nodes.Statement) -> nodes.Statement:
    if isinstance(child, nodes.Policy) and isinstance(parent, nodes.Policy):
        given = {clause.name for clause in child.clauses}
        kept = (clause for clause in parent.clauses if clause.name in _KEPT and clause.name not in given)
        return evolve(child, clauses=(*child.clauses, *kept))
    if isinstance(child, nodes.Limits) and isinstance(parent, nodes.Limits):
        bounded = {entry.name for entry in child.entries}
        rest = (entry for entry in parent.entries if entry.name not in bounded)
        return evolve(child, entries=(*child.entries, *rest))
    return child
