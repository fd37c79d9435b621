"""Advice beyond errors, one function a code."""

from __future__ import annotations

from lbw_policy.semantics import ceilings
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Statistic
from lbw_policy.semantics.lint_conditions import lint_conditions
from lbw_policy.semantics.lint_fallbacks import lint_fallbacks
from lbw_policy.semantics.lint_limits import lint_limits, lint_params
from lbw_policy.semantics.lint_rules import lint_levels, lint_reflexes, lint_risks
from lbw_policy.semantics.report import Report
from lbw_policy.semantics.scope import Scope
from lbw_policy.semantics.sites import adjustable, levels, sites
from lbw_policy.semantics.walk import actions_of, conditions_of, numbers_of, parts
from lbw_policy.syntax import nodes


def lint(report: Report, policy: p.Policy, scope: Scope, statements: tuple[nodes.Statement, ...]) -> None:
    """Report what is allowed but most likely not meant."""
    _memory(report, policy)
    if report.failed():
        return  # advice on a policy in error would be about the error
    _unused(report, scope)
    _no_way_back(report, policy, statements)
    _limit_never_used(report, policy, statements)
    found = sites(policy, statements)
    lint_conditions(report, policy, found, adjustable(statements))
    lint_levels(report, policy, levels(policy, statements))
    lint_reflexes(report, policy, statements)
    lint_risks(report, policy, found, statements)
    lint_fallbacks(report, policy, statements)
    lint_limits(report, policy, statements)
    lint_params(report, policy, statements)


def _memory(report: Report, policy: p.Policy) -> None:
    roots = [*conditions_of(policy), *numbers_of(policy)]
    windows = [part for part in parts(*roots) if isinstance(part, Statistic)]
    samples = sum(window.samples for window in windows)
    if samples > ceilings.MEMORY:
        report.error("LBW304", f"expected windows of at most {ceilings.MEMORY:_} samples together, found {samples:_}",
                     None, "shorten the windows")  # fmt: skip


def _unused(report: Report, scope: Scope) -> None:
    for node in scope.unused():
        kind = type(node).__name__.lower()
        report.warning("LBW401", f"{kind} `{node.name.text}` is never used", node.name.span, "use it or remove it")


def _no_way_back(report: Report, policy: p.Policy, statements: tuple[nodes.Statement, ...]) -> None:
    spans = {node.name.text: node.name.span for node in statements if isinstance(node, nodes.Level)}
    for level in policy.levels[1:]:
        final = any(isinstance(action, p.Halt) for action in level.actions)
        if level.leave is None and level.stay is None and not final:
            report.warning("LBW402", f"level `{level.name}` has no way back", spans.get(level.name),
                           "add `leave when CONDITION` or `stay at most N steps`")  # fmt: skip


def _limit_never_used(report: Report, policy: p.Policy, statements: tuple[nodes.Statement, ...]) -> None:
    used = {p.name_of(action) for action in actions_of(policy)}
    for block in statements:
        for entry in block.entries if isinstance(block, nodes.Limits) else ():
            # A reason written beside the limit says that it is meant, for children of the policy.
            if entry.name not in used | p.NO_ACTION and not entry.notes:
                report.warning("LBW403", f"the limit of `{entry.name}` is never used", entry.span,
                               f"no rule does `{entry.name}`; remove it, or say `@why`")  # fmt: skip
