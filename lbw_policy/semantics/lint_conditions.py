"""Advice about single conditions: what they can never be, and what they say twice."""

from __future__ import annotations

from collections.abc import Iterator

from lbw_policy.diagnostics import Span
from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.implication import implies, normal, opposite, small
from lbw_policy.semantics.intervals import ANY, Ranges
from lbw_policy.semantics.report import Report
from lbw_policy.semantics.signals import SIGNALS
from lbw_policy.semantics.sites import Site, names_in, paired
from lbw_policy.semantics.types import COUNT
from lbw_policy.semantics.walk import parts
from lbw_policy.syntax import nodes

_LEAST_SAMPLES = 8
_ESTIMATES = ("zscore", "mean", "std", "quantile", "spread")


def lint_conditions(report: Report, policy: p.Policy, found: list[Site], open_names: frozenset[str]) -> None:
    """Report what is odd in the expressions of a policy, each part of them once.

    What depends on `open_names`, those of params, is not judged by the values they have now.
    """
    ranges = Ranges.of(policy)
    for site in found:
        settled = open_names.isdisjoint(names_in(site.node))
        for node, expression in paired(site):
            if isinstance(node, nodes.Binary):
                fixed = settled or open_names.isdisjoint(names_in(node))
                _binary(report, ranges if fixed else None, node, expression)
                if isinstance(expression, e.Comparison):
                    _measured_equality(report, ranges, node, expression)
            elif isinstance(node, nodes.Call) and isinstance(expression, e.Statistic):
                _short_window(report, node, expression)


def _binary(report: Report, ranges: Ranges | None, node: nodes.Binary, expression: e.Expression) -> None:
    if ranges is None or _same_twice(report, node, expression):
        return
    if isinstance(expression, e.Comparison):
        _decided(report, ranges, node, expression)
    elif isinstance(expression, e.Both | e.Either):
        _joined(report, node, expression)


def _decided(report: Report, ranges: Ranges, node: nodes.Binary, comparison: e.Comparison) -> None:
    outcome = ranges.decide(comparison)
    if outcome is None:
        return
    code, verdict = ("LBW404", "always true") if outcome else ("LBW405", "never true")
    reason = " and ".join(_known(report, ranges, node, comparison)) or "the one is never above the other"
    report.warning(code, f"this is {verdict}: {reason}", node.span, "compare with a value that it can cross")


def _known(report: Report, ranges: Ranges, node: nodes.Binary, comparison: e.Comparison) -> Iterator[str]:
    for side, number in ((node.left, comparison.left), (node.right, comparison.right)):
        known = ranges.find(number)
        if known != ANY and not isinstance(side, nodes.Number):
            yield f"{_words(report, side.span)} is {known}"


def _words(report: Report, span: Span) -> str:
    """Return an expression as written, where it is short enough to be quoted."""
    text = " ".join(report.source.text[span.start : span.end].split())
    return f"`{text}`" if len(text) <= 40 else f"`{text[:37]}...`"


def _same_twice(report: Report, node: nodes.Binary, expression: e.Expression) -> bool:
    """Report `x > x`, `x - x`, `x / x` and `c and c`."""
    if not isinstance(expression, e.Comparison | e.Arithmetic | e.Both | e.Either):
        return False
    if expression.left != expression.right or isinstance(expression.left, e.Constant):
        return False
    if isinstance(expression, e.Arithmetic) and expression.op not in "-/":
        return False
    message = f"the same stands on both sides of `{node.op}`"
    report.warning("LBW407", message, node.span, "one side must be something else")
    return True


def _measured_equality(report: Report, ranges: Ranges, node: nodes.Binary, comparison: e.Comparison) -> None:
    """Report `==` of measured numbers, unless one is a copy of the other or the end of its range."""
    sides = (comparison.left, comparison.right)
    if (
        comparison.left == comparison.right
        or node.op not in ("==", "!=")
        or not any(_measured(ranges, side) for side in sides)
    ):
        return
    if any(_exact(ranges, one, other) for one, other in (sides, sides[::-1])):
        return
    outcome = "true" if node.op == "!=" else "false"
    report.warning("LBW408", f"`{node.op}` of measured numbers is almost always {outcome}", node.span,
                   "give it some room: `abs(x - y) < 0.01`")  # fmt: skip


def _measured(ranges: Ranges, number: e.Number) -> bool:
    return any(isinstance(part, e.RiskReading) or _is_real(ranges, part) for part in parts(number))


def _is_real(ranges: Ranges, part: e.Expression) -> bool:
    signal = ranges.sources.get(part.signal) if isinstance(part, e.Reading) else None
    kind = SIGNALS.get(signal.source) if signal and not signal.observed else None
    return kind is not None and kind.unit != COUNT


def _exact(ranges: Ranges, one: e.Number, other: e.Number) -> bool:
    if isinstance(other, e.Constant):
        return other.value == ranges.find(one).low
    if not isinstance(one, e.Statistic) or one.name not in ("min", "max", "prev"):
        return False
    return one.argument in (other, getattr(other, "argument", None))


def _joined(report: Report, node: nodes.Binary, expression: e.Both | e.Either) -> None:
    """Report two halves that exclude each other, leave nothing out, or of which one is idle."""
    if not small(expression.left, expression.right):
        return
    left, right, both = normal(expression.left), normal(expression.right), isinstance(expression, e.Both)
    if both and implies(left, opposite(right)):
        report.warning("LBW405", "this is never true: the two sides exclude each other", node.span,
                       "did you mean `or`?")  # fmt: skip
    elif not both and implies(opposite(left), right):
        report.warning("LBW404", "this is always true: one side or the other holds", node.span,
                       "did you mean `and`?")  # fmt: skip
    elif implies(left, right) or implies(right, left):
        # INVARIANT: of `and` the weaker side is idle, of `or` the stronger one.
        idle = node.right if implies(left, right) == both else node.left
        report.warning("LBW426", "this part changes nothing: the other one decides", idle.span, "remove it")


def _short_window(report: Report, node: nodes.Call, statistic: e.Statistic) -> None:
    if statistic.name in _ESTIMATES and statistic.samples < _LEAST_SAMPLES and len(node.arguments) > 1:
        message = f"`{statistic.name}` of {statistic.samples} samples is mostly noise"
        report.warning("LBW420", message, node.arguments[1].span,
                       f"give it a window of at least {_LEAST_SAMPLES} samples, better 128")  # fmt: skip
