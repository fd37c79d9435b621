"""Literals that must be known when the policy is checked: whole numbers, shares and durations."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define

from lbw_policy.diagnostics import Span
from lbw_policy.semantics import ceilings
from lbw_policy.semantics.report import Report, did_you_mean, plain
from lbw_policy.semantics.scope import Scope
from lbw_policy.syntax import nodes


@define
class Literals:
    """Reads literals, reporting those that do not fit; a refused one reads as a safe value."""

    report: Report
    scope: Scope
    params: Mapping[str, float]
    """Values of the declared params, by name."""

    def duration(self, node: nodes.Expression, most: int = ceilings.TIMER, least: int = 1) -> int:
        """Return a whole number of steps in [least, most]."""
        if isinstance(node, nodes.Reference):
            return self._named(node, most, least)
        if not isinstance(node, nodes.Number) or not node.steps:
            if not isinstance(node, nodes.Broken):
                self.report.error("LBW209", f"expected a duration, found {_shown(node)}", node.span,
                                  f"write the unit: `{_counted(node)} steps`")  # fmt: skip
            return least
        return self._within(node.value, most, least, node.span)

    def _named(self, node: nodes.Reference, most: int, least: int) -> int:
        found = self.scope.find(node.parts[0])
        if found is None:
            return least
        if not isinstance(found, nodes.Param) or found.unit.text != "steps" or len(node.parts) > 1:
            self.report.error("LBW209", f"expected a duration, found `{node.text}`", node.span,
                              "only a number of `steps` or a param of unit `steps` can stand here")  # fmt: skip
            return least
        return self._within(self.params.get(found.name.text, float(least)), most, least, node.span)

    def _within(self, value: float, most: int, least: int, span: Span) -> int:
        if not least <= value <= most or value != int(value):
            message = f"expected {least} to {most:_} whole steps, found `{plain(value)}`"
            self.report.error("LBW209", message, span)
            return least
        return int(value)

    def count(self, node: nodes.Number, most: int, least: int = 1) -> int:
        """Return a whole number in [least, most]."""
        if node.steps or node.percent or not least <= node.value <= most or node.value % 1:
            self.report.error("LBW211", f"expected a whole number from {least} to {most:_}, found {_shown(node)}",
                              node.span)  # fmt: skip
            return least
        return int(node.value)

    def real(self, node: nodes.Expression, low: float, high: float, what: str) -> float:
        """Return a number in [low, high], as `0.3` or `30%`."""
        value = self.constant(node)
        if value is None:
            return low
        if not low <= value <= high:
            message = f"expected {what} from {plain(low)} to {plain(high)}, found {_shown(node)}"
            share = low == 0 and high <= 1 < value <= 100
            percent = share and isinstance(node, nodes.Number) and not node.percent
            self.report.error("LBW212", message, node.span, f"write a percentage: `{value:g}%`" if percent else None)
        return min(max(value, low), high)

    def constant(self, node: nodes.Expression) -> float | None:
        """Return the value of a literal or a param; report anything else."""
        if isinstance(node, nodes.Number):
            return node.value
        if isinstance(node, nodes.Reference) and len(node.parts) == 1:
            found = self.scope.find(node.parts[0])
            if isinstance(found, nodes.Param):
                return self.params.get(found.name.text)
            if found is None:
                return None
        if not isinstance(node, nodes.Broken):
            self.report.error("LBW213", "expected a number known beforehand, found an expression", node.span,
                              "write a literal, or declare a `param`")  # fmt: skip
        return None

    def word(self, node: nodes.Word, choices: tuple[str, ...], what: str) -> str:
        """Return one of the words allowed here."""
        if node.text and node.text not in choices:  # no text: the parser has reported it
            self.report.error("LBW214", f"unknown {what} `{node.text}`", node.span, did_you_mean(node.text, choices))
        return node.text


def _counted(node: nodes.Expression) -> str:
    """Return how many steps a number without its unit most likely counts."""
    return plain(node.value) if isinstance(node, nodes.Number) and not node.percent else "20"


def _shown(node: nodes.Expression) -> str:
    if isinstance(node, nodes.Number):
        if node.percent:
            return f"`{node.value * 100:g}%`"
        return f"`{plain(node.value)} steps`" if node.steps else f"`{plain(node.value)}`"
    return f"`{node.text}`" if isinstance(node, nodes.Reference) else "an expression"
