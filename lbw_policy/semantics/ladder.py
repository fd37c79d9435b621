"""The order of escalation: every rung declared once, in the order of `levels`."""

from __future__ import annotations

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.report import Report, did_you_mean
from lbw_policy.syntax import nodes

NORMAL = p.Level("normal")


def order_levels(
    report: Report, order: nodes.Levels | None, blocks: list[nodes.Level], levels: tuple[p.Level, ...]
) -> tuple[p.Level, ...]:
    """Return the levels in the order of escalation, the calm one first."""
    if order is None:
        for block in blocks:
            report.missing("LBW307", f"level `{block.name.text}` has no place in the order of escalation",
                         block.name.span, f"add `levels normal -> {block.name.text}`")  # fmt: skip
        return (NORMAL,)
    found = {level.name: level for level in levels}
    names = tuple(word.text for word in order.names)
    _check_blocks(report, blocks, names, frozenset(names))
    _check_order(report, order, found)
    return tuple(found.get(name, p.Level(name)) for name in dict.fromkeys(names))


def _check_blocks(report: Report, blocks: list[nodes.Level], names: tuple[str, ...], known: frozenset[str]) -> None:
    for block in blocks:
        if block.name.text not in known:
            report.missing("LBW307", f"level `{block.name.text}` is not in the order of escalation", block.name.span,
                           did_you_mean(block.name.text, names))  # fmt: skip
        elif block.name.text == names[0]:
            report.error("LBW309", f"`{names[0]}` is the calm level and takes no clauses", block.name.span,
                         "a run starts at the first of `levels`; put a calm level before it")  # fmt: skip
        elif not any(isinstance(c, nodes.Condition) and c.name == "enter" for c in block.clauses):
            report.missing("LBW306", f"level `{block.name.text}` can never be entered", block.name.span,
                           "add `enter when CONDITION`")  # fmt: skip


def _check_order(report: Report, order: nodes.Levels, found: dict[str, p.Level]) -> None:
    seen: set[str] = set()
    for word in order.names:
        if word.text in seen:
            report.error("LBW202", f"`{word.text}` stands twice in the order of escalation", word.span)
        elif word.text not in found and seen:
            report.missing("LBW308", f"level `{word.text}` is not declared", word.span,
                           f"add `level {word.text} {{ enter when ... }}`")  # fmt: skip
        seen.add(word.text)
