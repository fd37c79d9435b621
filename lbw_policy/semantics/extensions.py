"""Uses of plugins in a policy: each is typed and limited like what is built in, or reported."""

from __future__ import annotations

from typing import TypeVar

from lbw_policy.diagnostics import Span
from lbw_policy.semantics import plugins, types
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.functions import FUNCTIONS, FunctionKind
from lbw_policy.semantics.literals import Literals
from lbw_policy.semantics.models import RISK_MODELS
from lbw_policy.semantics.plugins import ActionPlugin, Broken, FunctionPlugin, ModelPlugin, SignalPlugin
from lbw_policy.semantics.report import Report, did_you_mean, plain
from lbw_policy.semantics.signals import SIGNALS, SignalKind
from lbw_policy.syntax import nodes

T = TypeVar("T", SignalPlugin, FunctionPlugin, ActionPlugin, ModelPlugin)
ACTIONS = tuple(p.ACTION_NAMES.values())


def _find(report: Report, kind: type[T], name: str, span: Span) -> T | Broken | None:
    """Return a plugin; report one that cannot be used."""
    found = plugins.find(kind, name)
    if isinstance(found, Broken):
        report.error("LBW701", f"the plugin `{name}` cannot be used: {found.reason}", span,
                     f"its entry point is `{found.entry}`")  # fmt: skip
    return found


def function_kind(report: Report, word: nodes.Word) -> FunctionKind | None:
    """Return a plugin's function; report one that does not exist."""
    found = _find(report, FunctionPlugin, word.text, word.span)
    if found is None:
        known = (*FUNCTIONS, *plugins.names(FunctionPlugin))
        report.error("LBW207", f"unknown function `{word.text}`", word.span, did_you_mean(word.text, known))
    if not isinstance(found, FunctionPlugin):
        return None
    return FunctionKind(found.name, False, found.meaning, plugins.unit_of(found.unit) if found.unit else None)


def check_signal(report: Report, word: nodes.Word) -> None:
    """Report a signal that neither is built in nor comes from a plugin that can be used."""
    if word.text not in SIGNALS and _find(report, SignalPlugin, word.text, word.span) is None:
        known = (*SIGNALS, *plugins.names(SignalPlugin))
        report.error("LBW222", f"unknown signal `{word.text}`", word.span, did_you_mean(word.text, known))


def check_grouped(report: Report, node: nodes.Signal, kind: SignalKind | None) -> None:
    """Report a signal that is taken over a group of layers, and cannot be."""
    told = node.source.parts[0].text == "observed"
    if kind is None and not told:  # that there is no such signal has been reported
        return
    if kind is None or not kind.grouped:
        advice = "the loop tells it: let it tell that of the group" if told else _GROUPED
        report.error("LBW230", f"`{node.source.text}` cannot be taken over a group of layers", node.source.span, advice)


_GROUPED = "norms, updates, second moments, outputs and routers can; see the table of signals"


def risk_model(report: Report, word: nodes.Word) -> str:
    """Return the name of a risk model; report one that neither is built in nor comes from a plugin that can be used."""
    # No text: the parser has reported it.
    if word.text and word.text not in RISK_MODELS and _find(report, ModelPlugin, word.text, word.span) is None:
        known = (*RISK_MODELS, *plugins.names(ModelPlugin))
        report.error("LBW214", f"unknown risk model `{word.text}`", word.span, did_you_mean(word.text, known))
    return word.text


# Actions


def _action(report: Report, name: str, span: Span) -> ActionPlugin | None:
    if not name:  # the parser has reported that it is missing
        return None
    found = _find(report, ActionPlugin, name, span)
    if found is None:
        known = (*ACTIONS, *plugins.names(ActionPlugin))
        report.error("LBW225", f"unknown action `{name}`", span, did_you_mean(name, known))
    return found if isinstance(found, ActionPlugin) else None


def custom_limit(report: Report, literals: Literals, entry: nodes.Limit, budget: p.Budget) -> tuple[p.CustomLimit, ...]:
    """Return the limit of a plugin's action; none if there is no such action."""
    plugin = _action(report, entry.name, entry.span)
    if plugin is None:
        return ()
    if (plugin.amount_unit is None) == bool(entry.values):
        needs = "takes no amount: expected no" if entry.values else "takes an amount: expected a"
        report.error("LBW703", f"`{entry.name}` {needs} range in its limit", entry.span, f"write `{_example(plugin)}`")
    low, high = _range(report, literals, plugin, entry) if entry.values and plugin.amount_unit else (None, None)
    return (p.CustomLimit(entry.name, low, high, budget),)


def _range(report: Report, literals: Literals, plugin: ActionPlugin, entry: nodes.Limit) -> tuple[float, float]:
    for value in entry.values:
        if isinstance(value, nodes.Number) and value.steps != (plugin.amount_unit == "steps"):
            report.error("LBW204", f"expected a {types.NAMED.get(plugin.amount_unit or '', types.NUMBER)}", value.span)
    low, high = (literals.constant(value) or 0.0 for value in entry.values)
    if low > high:
        report.error("LBW302", f"expected the lower bound first, found [{plain(low)}, {plain(high)}]", entry.span,
                     f"write `{entry.name} within [{plain(high)}, {plain(low)}]`")  # fmt: skip
    return min(low, high), max(low, high)


def _example(plugin: ActionPlugin) -> str:
    bounds = "within [0 steps, 10 steps]" if plugin.amount_unit == "steps" else "within [0, 1]"
    return f"{plugin.name} {bounds + ', ' if plugin.amount_unit else ''}at most 3 per 1_000 steps"


def check_custom(report: Report, node: nodes.Do, limits: p.Limits) -> None:
    """Report an action that is not built in, unless it is a plugin's and has a limit."""
    plugin = _action(report, node.name, node.span)
    if plugin and all(limit.name != node.name for limit in limits.custom):
        advice = f"add to `limits`: {_example(plugin)}"
        report.missing("LBW301", f"`{node.name}` is used without a limit", node.span, advice)


def check_amount(report: Report, node: nodes.Do, plugin: ActionPlugin, unit: types.Unit | None) -> bool:
    """Tell whether an action is given an amount of its unit, or rightly none; report it if not."""
    if (plugin.amount_unit is None) != (node.value is None):
        takes = "takes no amount" if node.value else "takes an amount"
        form = node.name if node.value else f"{node.name} with 0.5"
        report.error("LBW702", f"`{node.name}` {takes}", node.span, f"write `do {form}`")
        return False
    if unit is None or plugin.amount_unit is None:
        return node.value is None
    expected = plugins.unit_of(plugin.amount_unit)
    if types.meet(unit, expected) is None and not (unit.probability and expected == types.NUMBER):
        report.error("LBW204", f"expected a {expected}, found a {unit}", node.value.span if node.value else node.span)
    return True
