"""The doors: a plugin in, findings out."""

from __future__ import annotations

import math

from lbw_policy.conformance.actions import Amounts, check_acting
from lbw_policy.conformance.declarations import check_declaration
from lbw_policy.conformance.findings import Finding, Findings
from lbw_policy.conformance.functions import check_values
from lbw_policy.conformance.models import check_model as check_living
from lbw_policy.conformance.signals import check_measuring
from lbw_policy.semantics.plugins import ActionPlugin, FunctionPlugin, ModelPlugin, SignalPlugin


def check_signal(plugin: SignalPlugin) -> tuple[Finding, ...]:
    """Return how a signal breaks its contract, empty if it conforms; see `docs/plugins.md`."""
    findings = Findings()
    check_declaration(plugin, findings)
    if callable(plugin.measure):
        check_measuring(plugin, findings)
    return findings.all()


def check_function(plugin: FunctionPlugin) -> tuple[Finding, ...]:
    """Return how a function breaks its contract, empty if it conforms; see `docs/plugins.md`."""
    findings = Findings()
    check_declaration(plugin, findings)
    if callable(plugin.evaluate):
        check_values(plugin, findings)
    return findings.all()


def check_action(plugin: ActionPlugin, amounts: Amounts | None = None) -> tuple[Finding, ...]:
    """Return how an action breaks its contract, empty if it conforms; see `docs/plugins.md`.

    `amounts` are the two ends of the range it is meant for, [0, 1] if not given ([0, 10] for steps).
    Raises ValueError for a range that no policy could have.
    """
    _check_range(amounts)
    findings = Findings()
    check_declaration(plugin, findings)
    if callable(plugin.apply):
        check_acting(plugin, amounts, findings)
    return findings.all()


def check_model(plugin: ModelPlugin) -> tuple[Finding, ...]:
    """Return how a risk model breaks its contract, empty if it conforms; see `docs/plugins.md`."""
    findings = Findings()
    check_declaration(plugin, findings)
    if callable(plugin.make):
        check_living(plugin, findings)
    return findings.all()


def check(plugin: object, amounts: Amounts | None = None) -> tuple[Finding, ...]:
    """Return how a plugin of any kind breaks its contract; `amounts` are for actions."""
    match plugin:
        case SignalPlugin():
            return check_signal(plugin)
        case FunctionPlugin():
            return check_function(plugin)
        case ActionPlugin():
            return check_action(plugin, amounts)
        case ModelPlugin():
            return check_model(plugin)
        case _:
            kinds = "a `SignalPlugin`, a `FunctionPlugin`, an `ActionPlugin` or a `ModelPlugin`"
            return (Finding("is no plugin", f"expected {kinds}, found a `{type(plugin).__name__}`"),)


def assert_conforms(plugin: object, amounts: Amounts | None = None) -> None:
    """Do nothing if a plugin conforms; else raise AssertionError with all findings."""
    found = check(plugin, amounts)
    if found:
        name = getattr(plugin, "name", plugin)
        raise AssertionError("\n  ".join([f"the plugin `{name!s:.40}` does not conform", *map(str, found)]))


def _check_range(amounts: Amounts | None) -> None:
    if amounts is None:
        return
    low, high = amounts
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"expected two finite amounts, the lower first, found {low} and {high}")
