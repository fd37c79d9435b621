"""Advice about fallbacks: those that are never asked for."""

from __future__ import annotations

from collections.abc import Iterator

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.report import Report
from lbw_policy.syntax import nodes


def lint_fallbacks(report: Report, policy: p.Policy, statements: tuple[nodes.Statement, ...]) -> None:
    """Report the first fallback of each chain that stands after an action which no limit ever refuses."""
    for node in (do for statement in statements for do in _written(statement)):
        following = (node, *node.otherwise)
        for before, fallback in zip(following, node.otherwise, strict=False):
            if _always_granted(policy, before.name):
                report.warning("LBW427", f"never asked for: `{before.name}` is never refused", fallback.span,
                               "remove it, or put it before what is never refused")  # fmt: skip
                break


def _written(statement: nodes.Statement) -> Iterator[nodes.Do]:
    match statement:
        case nodes.Reflex():
            yield from statement.actions
        case nodes.Level():
            yield from (clause for clause in statement.clauses if isinstance(clause, nodes.Do))
            yield from (clause.action for clause in statement.clauses if isinstance(clause, nodes.Each))
        case nodes.Require() if isinstance(statement.otherwise, nodes.Do):
            yield statement.otherwise


def _always_granted(policy: p.Policy, action: str) -> bool:
    """Tell whether an action is at most reduced: an lr factor is refused only where all interventions are spent."""
    return action == "halt" or (action == "scale_lr" and policy.limits.intervene is None)
