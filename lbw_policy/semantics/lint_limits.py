"""Advice about limits and params: bounds that are never reached, or that are missing."""

from __future__ import annotations

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.report import Report, plain
from lbw_policy.semantics.walk import actions_of
from lbw_policy.syntax import nodes

_ONCE_A_TICK = ("skip", "rollback", "clip", "reset_moments", "checkpoint")
_SHARED = ("skip", "rollback", "clip")
"""Actions of which each one that is done also costs the budget of `intervene`."""


def lint_limits(report: Report, policy: p.Policy, statements: tuple[nodes.Statement, ...]) -> None:
    """Report budgets that never bind, and a policy that acts in several ways without a common budget."""
    for block in statements:
        for entry in block.entries if isinstance(block, nodes.Limits) else ():
            _never_reached(report, policy, entry)
            _spacing(report, policy, entry)
            _above_intervene(report, policy, entry)
        if isinstance(block, nodes.Limits):
            _no_common_budget(report, policy, block)


def _budget_of(policy: p.Policy, name: str) -> p.Budget | None:
    limit = getattr(policy.limits, name, None)
    budget = getattr(limit, "budget", limit)
    return budget if isinstance(budget, p.Budget) else None


def _never_reached(report: Report, policy: p.Policy, entry: nodes.Limit) -> None:
    budget, skip = _budget_of(policy, entry.name), policy.limits.skip if entry.name == "skip" else None
    if budget is None or entry.budget is None or entry.name not in _ONCE_A_TICK:
        return
    if skip and skip.in_a_row > budget.count:
        message = f"{plain(skip.in_a_row)} in a row is never reached: the budget ends after {plain(budget.count)}"
        report.warning("LBW416", message, entry.values[0].span, "write a smaller number, or a larger budget")
    elif budget.count >= _most(budget.window, skip):
        message = f"never reached: no {plain(budget.window)} steps can hold more than {plain(budget.count)}"
        report.warning("LBW416", message, entry.budget.span, "write a smaller budget")
    if skip and skip.in_a_row >= policy.quarantine:
        message = f"{plain(skip.in_a_row)} skips in a row outlast the quarantine of {plain(policy.quarantine)} steps"
        report.warning("LBW423", message, entry.values[0].span,
                       "allow fewer in a row, or write a longer `quarantine`")  # fmt: skip


def _spacing(report: Report, policy: p.Policy, entry: nodes.Limit) -> None:
    """Report a spacing of rollbacks that leaves nothing for their budget to do, or that follows from it."""
    limit = policy.limits.rollback
    if entry.name != "rollback" or not limit or not entry.spacing or not entry.budget:
        return
    most, budget = -(-limit.budget.window // limit.spacing), limit.budget
    if budget.count > most:
        message = f"never reached: {plain(limit.spacing)} steps apart, {plain(budget.window)} steps hold {plain(most)}"
        report.warning("LBW416", message, entry.budget.span, "write a smaller budget, or less between two rollbacks")
    elif budget.count == 1 and budget.window >= limit.spacing:
        message = f"never reached: the budget keeps rollbacks {plain(budget.window)} steps apart"
        report.warning("LBW416", message, entry.spacing.span, "remove it, or write a larger budget")


def _most(window: int, skip: p.SkipLimit | None) -> int:
    """Return how often an action can happen in a window at most: each tick, or with a pause after skips in a row."""
    return window - window // (skip.in_a_row + 1) if skip else window


def _above_intervene(report: Report, policy: p.Policy, entry: nodes.Limit) -> None:
    budget, total = _budget_of(policy, entry.name), policy.limits.intervene
    if entry.name not in _SHARED or not budget or not total or not entry.budget:
        return
    if budget.count > total.count and budget.window <= total.window:
        message = f"never reached: `intervene` allows {plain(total.count)} per {plain(total.window)} steps"
        report.warning("LBW417", message, entry.budget.span, "write a smaller budget, or raise `intervene`")


def _no_common_budget(report: Report, policy: p.Policy, block: nodes.Limits) -> None:
    harmless = ("halt", "checkpoint", "reset_moments")
    kinds = {p.name_of(action) for action in actions_of(policy)} - set(harmless)
    if policy.limits.intervene is None and len(kinds) > 1 and block.entries:
        report.warning("LBW424", f"nothing bounds all {plain(len(kinds))} kinds of interventions together",
                       block.entries[-1].span, "add `intervene at most 100 per 1_000 steps`")  # fmt: skip


def lint_params(report: Report, policy: p.Policy, statements: tuple[nodes.Statement, ...]) -> None:
    """Report params that can have one value only."""
    ends = {param.name: param for param in policy.params}
    for node in (node for node in statements if isinstance(node, nodes.Param)):
        param = ends.get(node.name.text)
        if param is not None and param.low == param.high:
            report.warning("LBW422", f"param `{param.name}` can only be {plain(param.low)}",
                           node.low.span.join(node.high.span), "widen its range, or write a `let`")  # fmt: skip
