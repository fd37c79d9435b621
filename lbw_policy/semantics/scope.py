"""Names to declarations: finds what is declared twice, undefined, or unused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from attrs import define, field

from lbw_policy.diagnostics import Span
from lbw_policy.semantics.functions import FUNCTIONS
from lbw_policy.semantics.report import Report, did_you_mean
from lbw_policy.syntax import nodes

Declaration = nodes.Param | nodes.Signal | nodes.Let | nodes.Risk
Named = Declaration | nodes.Layers | nodes.Reflex | nodes.Level | nodes.Alert
_BUILT_IN = frozenset({"telemetry", "observed", "standard", *FUNCTIONS})
_WORDS: Mapping[type, str] = {
    nodes.Param: "param",
    nodes.Signal: "signal",
    nodes.Let: "let",
    nodes.Risk: "risk",
    nodes.Layers: "layers",
    nodes.Reflex: "reflex",
    nodes.Level: "level",
    nodes.Alert: "alert",
}


@define
class Scope:
    """The names of one policy; expressions see params, signals, lets and risks in one space.

    `broken` has names whose declaration the parser could not read: uses of them are not reported.
    """

    report: Report
    broken: frozenset[str]
    names: dict[str, Declaration] = field(factory=dict)
    used: set[str] = field(factory=set)
    groups: dict[str, nodes.Layers] = field(factory=dict)
    used_groups: set[str] = field(factory=set)

    def declare(self, statements: tuple[nodes.Statement, ...]) -> None:
        """Enter every declaration; report names declared twice and names of built-ins."""
        for node in statements:
            if isinstance(node, Declaration):
                self._declare(node)
            elif isinstance(node, nodes.Layers):
                self._declare_group(node)
        self._distinct([node for node in statements if isinstance(node, nodes.Reflex)])
        self._distinct([node for node in statements if isinstance(node, nodes.Level)])
        self._distinct([node for node in statements if isinstance(node, nodes.Alert)])

    def _declare(self, node: Declaration) -> None:
        name = node.name.text
        if not name:  # the parser has reported it
            return
        if name in _BUILT_IN:
            self.report.error("LBW203", f"`{name}` is built in and cannot be declared", node.name.span,
                              "choose another name")  # fmt: skip
        elif name in self.names:
            self._twice(node, self.names[name])
        else:
            self.names[name] = node

    def _declare_group(self, node: nodes.Layers) -> None:
        if node.name.text in self.groups:
            self._twice(node, self.groups[node.name.text])
        self.groups.setdefault(node.name.text, node)

    def _distinct(self, group: Sequence[nodes.Reflex | nodes.Level | nodes.Alert]) -> None:
        seen: dict[str, nodes.Reflex | nodes.Level | nodes.Alert] = {}
        for node in group:
            if node.name.text and node.name.text in seen:
                self._twice(node, seen[node.name.text])
            seen.setdefault(node.name.text, node)

    def _twice(self, node: Named, first: Named) -> None:
        message = f"{_WORDS[type(node)]} `{node.name.text}` is declared twice"
        self.report.again("LBW202", message, node.name.span, first.name.span, "declared")

    def find(self, word: nodes.Word) -> Declaration | None:
        """Return what a name stands for and mark it used; report an undefined one."""
        found = self.names.get(word.text)
        self.used.add(word.text)
        if found is None and word.text and word.text not in self.broken:
            self.undefined(word.text, word.span)
        return found

    def group(self, word: nodes.Word) -> str:
        """Return the name of a layer group and mark it used; report an undeclared one."""
        self.used_groups.add(word.text)
        hidden = self.report.torn and word.text in self.broken
        if word.text and word.text not in self.groups and not hidden:
            advice = did_you_mean(word.text, tuple(self.groups)) or 'declare `layers NAME = "GLOB"`'
            self.report.error("LBW201", f"undefined layer group `{word.text}`", word.span, advice)
        return word.text

    def undefined(self, name: str, span: Span) -> None:
        """Report a name that nothing declares."""
        if name in FUNCTIONS:
            advice = f"`{name}` is a function: write `{FUNCTIONS[name].example}`"
        else:
            advice = (not self.report.full and did_you_mean(name, tuple(self.names))) or ""
        self.report.error("LBW201", f"undefined name `{name}`", span, advice or None)

    def unused(self) -> Iterator[Declaration | nodes.Layers]:
        """Yield declarations that nothing reads."""
        values = (node for name, node in self.names.items() if name not in self.used)
        return itertools.chain(values, (node for name, node in self.groups.items() if name not in self.used_groups))
