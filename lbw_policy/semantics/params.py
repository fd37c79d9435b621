"""Params: their ranges, their values, and what a caller sets instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lbw_policy.semantics import policy as p
from lbw_policy.semantics import types
from lbw_policy.semantics.literals import Literals
from lbw_policy.semantics.report import Report, did_you_mean, plain
from lbw_policy.syntax import nodes


def read_params(
    report: Report, literals: Literals, declared: Sequence[nodes.Param], given: Mapping[str, float]
) -> tuple[p.Param, ...]:
    """Return every declared param with its value: the given one, else the policy's own."""
    known = tuple(node.name.text for node in declared)
    for name in given:
        if name not in known:
            advice = did_you_mean(str(name), known) or "the policy has no params"
            report.error("LBW221", f"unknown param `{name}`", None, advice)
    return tuple(_read(report, literals, node, given) for node in declared)


def _read(report: Report, literals: Literals, node: nodes.Param, given: Mapping[str, float]) -> p.Param:
    unit = literals.word(node.unit, tuple(types.NAMED), "unit")
    low, high, value = (literals.constant(part) or 0.0 for part in (node.low, node.high, node.value))
    if unit in types.NAMED and _sound(report, node, low, high) and not low <= value <= high:
        message = f"expected a value in [{plain(low)}, {plain(high)}], found `{plain(value)}`"
        report.error("LBW212", message, node.value.span)
    name = node.name.text
    if name in given:
        value = _given(report, node, (low, high), given[name])
    return p.Param(name, low, high, value)


def _sound(report: Report, node: nodes.Param, low: float, high: float) -> bool:
    """Tell whether the range is one; report it if not."""
    before = report.failures
    steps = node.unit.text == "steps"
    for part in (node.low, node.high, node.value):
        if isinstance(part, nodes.Number) and part.steps != steps:
            advice = f"write `{plain(part.value)} steps`" if steps else "only a param of unit `steps` counts steps"
            kind = "number of steps" if steps else node.unit.text
            report.error("LBW204", f"expected a {kind}", part.span, advice)
    if low > high:
        report.error("LBW302", f"expected the lower bound first, found [{plain(low)}, {plain(high)}]",
                     node.low.span.join(node.high.span), f"write `[{plain(high)}, {plain(low)}]`")  # fmt: skip
    elif node.unit.text == "probability" and not 0 <= low <= high <= 1:
        worst = node.low if low < 0 else node.high
        report.error("LBW210", "expected a probability from 0 to 1", worst.span, "write a percentage, such as `30%`")
    return report.failures == before


def _given(report: Report, node: nodes.Param, bounds: tuple[float, float], asked: object) -> float:
    low, high = bounds
    if isinstance(asked, int | float) and not isinstance(asked, bool) and low <= asked <= high:
        return float(asked)
    shown = f"{asked!r:.40}"
    message = f"param `{node.name.text}` must lie in [{plain(low)}, {plain(high)}], found `{shown}`"
    report.error("LBW212", message, node.name.span)
    return low
