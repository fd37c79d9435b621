"""Names to declarations: finds what is declared twice, undefined, or unused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import define, field

from lbw_policy.diagnostics import Span
from lbw_policy.semantics.functions import FUNCTIONS
from lbw_policy.semantics.report import Report, did_you_mean
from lbw_policy.syntax import nodes

Declaration = nodes.Param | nodes.Signal | nodes.Let | nodes.Risk
_BUILT_IN = frozenset({"telemetry", "observed", "standard", *FUNCTIONS})
_WORDS: Mapping[type, str] = {
    nodes.Param: "param",
    nodes.Signal: "signal",
    nodes.Let: "let",
    nodes.Risk: "risk",
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

    def declare(self, statements: tuple[nodes.Statement, ...]) -> None:
        """Enter every declaration; report names declared twice and names of built-ins."""
        for node in statements:
            if isinstance(node, Declaration):
                self._declare(node)
        self._distinct([node for node in statements if isinstance(node, nodes.Reflex)])
        self._distinct([node for node in statements if isinstance(node, nodes.Level)])
        self._distinct([node for node in statements if isinstance(node, nodes.Alert)])

    def _declare(self, node: Declaration) -> None:
        name = node.name.text
        if name in _BUILT_IN:
            self.report.error("LBW203", f"`{name}` is built in and cannot be declared", node.name.span,
                              "choose another name")  # fmt: skip
        elif name in self.names:
            self._twice(node, self.names[name])
        else:
            self.names[name] = node

    def _distinct(self, group: Sequence[nodes.Reflex | nodes.Level | nodes.Alert]) -> None:
        seen: dict[str, nodes.Reflex | nodes.Level | nodes.Alert] = {}
        for node in group:
            if node.name.text in seen:
                self._twice(node, seen[node.name.text])
            seen.setdefault(node.name.text, node)

    def _twice(self, node: nodes.Statement, first: nodes.Statement) -> None:
        assert not isinstance(node, nodes.Levels | nodes.Limits)
        line = self.report.source.position(first.span.start)[0]
        message = f"{_WORDS[type(node)]} `{node.name.text}` is declared twice"
        self.report.error("LBW202", message, node.name.span, f"first declared on line {line}")

    def find(self, word: nodes.Word) -> Declaration | None:
        """Return what a name stands for and mark it used; report an undefined one."""
        found = self.names.get(word.text)
        self.used.add(word.text)
        if found is None and word.text not in self.broken:
            self.undefined(word.text, word.span)
        return found

    def undefined(self, name: str, span: Span) -> None:
        """Report a name that nothing declares."""
        advice = did_you_mean(name, (*self.names, *FUNCTIONS))
        self.report.error("LBW201", f"undefined name `{name}`", span, advice)

    def unused(self) -> Iterator[Declaration]:
        """Yield declarations that nothing reads."""
        return (node for name, node in self.names.items() if name not in self.used)
