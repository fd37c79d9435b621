"""What a plugin says of itself: name, unit, need, meaning."""

from __future__ import annotations

import re

from lbw_policy.conformance.findings import Findings
from lbw_policy.diagnostics import Source
from lbw_policy.semantics.plugins import ActionPlugin, FunctionPlugin, ModelPlugin, Plugin, SignalPlugin, fault
from lbw_policy.syntax.parser import parse

MOST_CHARACTERS = 100


def check_declaration(plugin: Plugin, findings: Findings) -> None:
    """Find what a policy, or its reader, could not use."""
    if not all(isinstance(text, str | None) for text in _words(plugin)):
        findings.add("declares what is no text", f"expected texts, found {_words(plugin)!r:.100}")
        return
    _check_name(plugin, findings)
    reason = fault(type(plugin), plugin.name, plugin)
    if reason:
        findings.add("cannot be used by a policy", reason)
    _check_meaning(plugin.meaning, findings)


def _words(plugin: Plugin) -> tuple[object, ...]:
    match plugin:
        case SignalPlugin():
            return plugin.name, plugin.meaning, plugin.unit, plugin.need
        case FunctionPlugin():
            return plugin.name, plugin.meaning, plugin.unit
        case ModelPlugin():
            return plugin.name, plugin.meaning
        case _:
            return plugin.name, plugin.meaning, plugin.amount_unit


def _check_name(plugin: Plugin, findings: Findings) -> None:
    name = plugin.name
    if not isinstance(name, str) or not re.fullmatch("[A-Za-z_][A-Za-z_0-9]*", name):
        findings.add("has a name that is no name", f"expected letters, digits and `_`, no digit first, found `{name}`")
    elif parse(Source("name", _policy(plugin))).diagnostics:
        findings.add("has a reserved name", f"`{name}` is a word of the language")


def _policy(plugin: Plugin) -> str:
    """Return a policy that uses the name."""
    name = plugin.name
    match plugin:
        case SignalPlugin():
            use = f"signal x = telemetry.{name}"
        case FunctionPlugin():
            use = f"let x = {name}(1)"
        case ModelPlugin():
            use = f"risk x {{ horizon 9 steps  features standard  model {name}  trust after 9 steps }}"
        case ActionPlugin():
            use = f"reflex x {{ when 1 > 2 do {name} }}\nlimits {{ {name} at most 1 per 9 steps }}"
    return f"lbw 1\npolicy p {{ }}\n{use}\n"


def _check_meaning(meaning: str, findings: Findings) -> None:
    if not meaning or not meaning.strip():
        findings.add("has no meaning", "expected a short text that editors and `lbw explain` can show")
    elif len(meaning) > MOST_CHARACTERS or len(meaning.splitlines()) > 1:
        findings.add("has a long meaning", f"expected one line of at most {MOST_CHARACTERS} characters, "
                     f"found {len(meaning)} in {len(meaning.splitlines())}")  # fmt: skip
