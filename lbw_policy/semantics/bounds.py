"""The `limits` block: complete, within the package's ceilings, and wide enough for what rules ask."""

from __future__ import annotations

from attrs import evolve

from lbw_policy.semantics import ceilings
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.clauses import once
from lbw_policy.semantics.extensions import check_custom, custom_limit
from lbw_policy.semantics.literals import Literals
from lbw_policy.semantics.report import Report
from lbw_policy.semantics.typing import Typed
from lbw_policy.syntax import nodes

_EXAMPLES = {
    "skip": "skip at most 4 in a row, at most 20 per 1_000 steps",
    "clip": "clip at most 100 per 1_000 steps",
    "scale_lr": "scale_lr within [0.1, 1]",
    "rollback": "rollback at most 50 steps back, at most 3 per 1_000 steps",
    "freeze": "freeze at most 25% of layers, for at most 200 steps",
    "reset_moments": "reset_moments at most 1 per 1_000 steps",
    "checkpoint": "checkpoint at most 3 per 1_000 steps",
}


def read_limits(report: Report, literals: Literals, block: nodes.Limits | None) -> p.Limits:
    """Return the limits of a policy; no block means that nothing is allowed."""
    limits = p.Limits()
    for entry in once(report, block.entries if block else (), "the limits").values():
        limits = _read(report, literals, entry, limits)
    return limits


def _read(report: Report, literals: Literals, entry: nodes.Limit, limits: p.Limits) -> p.Limits:
    budget = _budget(literals, entry.budget) if entry.budget else None
    match entry.name:
        case "scale_lr":
            return evolve(limits, scale_lr=_scale(report, literals, entry))
        case "skip":
            in_a_row = literals.count(_number(entry), ceilings.SKIPS_IN_A_ROW)
            return evolve(limits, skip=p.SkipLimit(in_a_row, budget or p.Budget(1, 1)))
        case "rollback":
            distance = literals.duration(entry.values[0], ceilings.ROLLBACK_DISTANCE)
            spacing = literals.duration(entry.spacing, ceilings.WINDOW) if entry.spacing else 0
            return evolve(limits, rollback=p.RollbackLimit(distance, budget or p.Budget(1, 1), spacing))
        case "freeze":
            share = literals.real(entry.values[0], 0.0, ceilings.FREEZE_SHARE, "a share of layers")
            return evolve(
                limits, freeze=p.FreezeLimit(share, literals.duration(entry.values[1], ceilings.FREEZE_DURATION))
            )
        case "clip":
            return evolve(limits, clip=budget)
        case "reset_moments":
            return evolve(limits, reset_moments=budget)
        case "checkpoint":
            return evolve(limits, checkpoint=budget)
        case "intervene":
            return evolve(limits, intervene=budget)
        case "overhead":
            return evolve(limits, overhead=_overhead(report, entry))
        case _:
            custom = custom_limit(report, literals, entry, budget or p.Budget(1, 1))
            return evolve(limits, custom=(*limits.custom, *custom))


def _number(entry: nodes.Limit) -> nodes.Number:
    value = entry.values[0]
    assert isinstance(value, nodes.Number)
    return value


def _budget(literals: Literals, rate: nodes.Rate) -> p.Budget:
    window = literals.duration(rate.window, ceilings.WINDOW)
    return p.Budget(literals.count(rate.count, max(window, 1)), window)


def _scale(report: Report, literals: Literals, entry: nodes.Limit) -> p.ScaleLimit:
    low = literals.real(entry.values[0], ceilings.SCALE_FLOOR, ceilings.SCALE_CEILING, "an lr factor")
    high = literals.real(entry.values[1], ceilings.SCALE_FLOOR, ceilings.SCALE_CEILING, "an lr factor")
    if low > high:
        report.error("LBW302", f"expected the lower bound first, found [{low:g}, {high:g}]", entry.span,
                     f"write `scale_lr within [{high:g}, {low:g}]`")  # fmt: skip
        return p.ScaleLimit(high, low)
    return p.ScaleLimit(low, high)


def _overhead(report: Report, entry: nodes.Limit) -> float:
    node, low, high = _number(entry), ceilings.OVERHEAD_FLOOR, ceilings.OVERHEAD
    if not node.percent:
        written = f"{node.value:g} steps" if node.steps else f"{node.value:g}"
        meant = 100 * node.value if not node.steps and low <= node.value < high else 2.0
        report.error("LBW312", f"expected a percentage, found `{written}`", node.span,
                     f"it is a share of a step's time: write `overhead at most {meant:g}%`")  # fmt: skip
    elif not low <= node.value <= high:
        message = f"expected an overhead from {100 * low:g}% to {100 * high:g}%, found `{100 * node.value:g}%`"
        report.error("LBW212", message, node.span)
    return min(max(node.value, low), high)


def check_allowed(report: Report, node: nodes.Do, limits: p.Limits) -> None:
    """Report an action that no limit bounds."""
    bounded = {
        "skip": limits.skip,
        "clip": limits.clip or limits.intervene,
        "scale_lr": limits.scale_lr,
        "rollback": limits.rollback,
        "freeze": limits.freeze,
        "reset_moments": limits.reset_moments,
        "checkpoint": limits.checkpoint,
        "halt": True,
    }
    if node.name not in bounded:
        check_custom(report, node, limits)
    elif bounded[node.name] is None:
        report.missing("LBW301", f"`{node.name}` is used without a limit", node.span,
                       f"add to `limits`: {_EXAMPLES[node.name]}")  # fmt: skip


def check_chain(report: Report, node: nodes.Do) -> None:
    """Report fallbacks that are too many, or that name an action of their chain again."""
    seen = {node.name: node.span}
    for fallback in node.otherwise:
        if fallback.name and fallback.name in seen:  # no name: the parser has reported it
            message = f"`{fallback.name}` stands twice in one chain of fallbacks"
            report.again("LBW311", message, fallback.span, seen[fallback.name], "written")
        seen.setdefault(fallback.name, fallback.span)
    if len(node.otherwise) >= ceilings.CHAIN:
        message = f"expected at most {ceilings.CHAIN} actions in one chain, found {len(node.otherwise) + 1}"
        report.error("LBW311", message, node.otherwise[ceilings.CHAIN - 1].span, "leave out the least likely ones")


def check_factor(report: Report, node: nodes.Do, factor: Typed, limits: p.Limits) -> None:
    """Report a constant lr factor that the limits can never grant."""
    value = getattr(factor.expression, "value", None)
    if limits.scale_lr and value is not None and not limits.scale_lr.low <= value <= limits.scale_lr.high:
        bounds = f"[{limits.scale_lr.low:g}, {limits.scale_lr.high:g}]"
        report.error("LBW303", f"`{node.name}` asks for {value:g}, outside of its limit {bounds}", node.span,
                     "ask for less, or widen the limit")  # fmt: skip


def check_most(report: Report, node: nodes.Do, asked: float, most: float | None) -> None:
    """Report an amount beyond its limit."""
    if most is not None and asked > most:
        form = "{:.4g}%".format if node.name == "freeze" else "{} steps".format
        amounts = [form(100 * value if node.name == "freeze" else value) for value in (asked, most)]
        message = f"`{node.name}` asks for {amounts[0]}, beyond its limit of {amounts[1]}"
        report.error("LBW303", message, node.span, "ask for less, or widen the limit")
