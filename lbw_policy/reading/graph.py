"""The ladder of a policy as a diagram: Mermaid `stateDiagram-v2`, or dot for Graphviz."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from attrs import frozen

from lbw_policy.diagnostics import printable
from lbw_policy.reading.acts import written
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.spelling import Vocabulary, spell, steps
from lbw_policy.semantics.walk import chain, first_actions

_WIDTH = 44


@frozen
class Edge:
    """One way from a level to another, by their places in the order of escalation.

    `kind` is `up` (to the next level), `jump` (over some), `again` (into the level it is in, after
    it came down to it), `down`, or `halt` (the run ends; `target` is the level itself).
    """

    source: int
    target: int
    kind: str
    label: str


def edges(policy: p.Policy) -> tuple[Edge, ...]:
    """Return every transition the policy's levels allow."""
    words = Vocabulary.of(policy)
    found: list[Edge] = []
    for index, level in enumerate(policy.levels):
        found += _into(policy, index, words)
        if index and (level.leave or level.stay):
            found.append(Edge(index, index - 1, "down", _departure(level, words)))
        if any(isinstance(action, p.Halt) for action in _all_actions(level)):
            found.append(Edge(index, index, "halt", "halt"))
    return tuple(found)


def _into(policy: p.Policy, index: int, words: Vocabulary) -> Iterator[Edge]:
    level = policy.levels[index]
    if not index or level.enter is None:
        return
    label = _trigger(level.enter, words)
    yield Edge(index - 1, index, "up", label)
    for source in range(index - 2, -1, -1):
        yield Edge(source, index, "jump", f"as {policy.levels[index - 1].name} to {level.name}")
    if index + 1 < len(policy.levels):
        yield Edge(index, index, "again", "again, after coming down")


def _all_actions(level: p.Level) -> list[p.Action]:
    return [one for action in first_actions(level) for one in chain(action)]


def _trigger(trigger: p.Trigger, words: Vocabulary) -> str:
    hold = f"{trigger.count} of {steps(trigger.window)}" if trigger.count < trigger.window else steps(trigger.window)
    return spell(trigger.condition, words) + (f" for {hold}" if trigger.window > 1 else "")


def _departure(level: p.Level, words: Vocabulary) -> str:
    ways = [_trigger(level.leave, words)] if level.leave else []
    return ", or ".join([*ways, *([f"after {steps(level.stay)}"] if level.stay else [])])


def _does(level: p.Level, words: Vocabulary) -> list[str]:
    """Return what a level does, a line an action."""
    lines = [f"do {written(action, words)}" for action in level.actions]
    lines += [f"each {steps(each.every)} do {written(each.action, words)}" for each in level.periodic]
    lines += [f"settles after {steps(level.settles)}"] if level.settles else []
    return [*lines, f"cooldown {steps(level.cooldown)}"] if level.cooldown else lines


def _reflexes(policy: p.Policy, words: Vocabulary) -> list[str]:
    found = ["At every level:"] if policy.reflexes else []
    for reflex in policy.reflexes:
        acts = " ".join(f"do {written(action, words)}" for action in reflex.actions)
        found.append(f"reflex {reflex.name} when {spell(reflex.condition, words)} {acts}")
    return found


def _alerts(policy: p.Policy, words: Vocabulary) -> list[str]:
    return [f"alert {one.name} {one.severity} when {_trigger(one.trigger, words)}" for one in policy.alerts]


def _wrapped(text: str) -> list[str]:
    """Return a text in short lines; operands stay with their operator."""
    tied = re.sub(r" ([<>=!]=?|[-+*/]) (?=\S)", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
    lines = textwrap.wrap(tied, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines] or [""]


# Mermaid


def to_mermaid(policy: p.Policy) -> str:
    """Return the policy's ladder as a Mermaid `stateDiagram-v2`; reflexes and alerts are notes."""
    words = Vocabulary.of(policy)
    lines = ["stateDiagram-v2", "    direction TB"]
    for index, level in enumerate(policy.levels):
        lines.append(f'    state "{_entities(level.name)}" as L{index}')
        lines += [f"    L{index} : {_rows(text)}" for text in _does(level, words)]
    lines.append("    [*] --> L0")
    lines += [_mermaid_edge(edge) for edge in edges(policy)]
    lines += _mermaid_note([*_reflexes(policy, words), *_alerts(policy, words)])
    return "\n".join(lines) + "\n"


def _mermaid_edge(edge: Edge) -> str:
    target = "[*]" if edge.kind == "halt" else f"L{edge.target}"
    return f"    L{edge.source} --> {target} : {_rows(edge.label)}"


def _mermaid_note(texts: list[str]) -> list[str]:
    """Return the one note that a state may have."""
    lines = [f"        {_entities(line)}" for text in texts for line in _wrapped(text)]
    return ["    note right of L0", *lines, "    end note"] if lines else []


def _rows(text: str) -> str:
    return "<br/>".join(_entities(line) for line in _wrapped(text))


_NAMED = {"<": "#lt;", ">": "#gt;", '"': "#quot;"}
_UNSAFE = re.compile(r"[^A-Za-z0-9_ .,()/*+=]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=\bend) (?=note)", re.IGNORECASE)


def _entities(text: str) -> str:
    """Return a text without a character that Mermaid reads: colons, semicolons, dashes, marks of emphasis."""
    return _UNSAFE.sub(lambda match: _NAMED.get(match[0], f"#{ord(match[0])};"), printable(text))


# Graphviz


def to_dot(policy: p.Policy) -> str:
    """Return the policy's ladder as a dot digraph; reflexes and alerts are notes."""
    words = Vocabulary.of(policy)
    lines = [f"digraph {_quoted([policy.name])} {{", '    node [shape=box style=rounded fontname="sans-serif"];']
    lines += ['    edge [fontname="sans-serif" fontsize=11];', "    start [shape=point];", "    start -> L0;"]
    for index, level in enumerate(policy.levels):
        lines.append(f"    L{index} [label={_quoted([level.name, *_does(level, words)])}];")
    halts = [edge for edge in edges(policy) if edge.kind == "halt"]
    lines += ['    halted [shape=doublecircle label="" width=0.15];'] if halts else []
    lines += [_dot_edge(edge) for edge in edges(policy)]
    for name, texts in (("reflexes", _reflexes(policy, words)), ("alerts", _alerts(policy, words))):
        if texts:
            lines += [f"    {name} [shape=note style=solid fontsize=11 label={_quoted(texts, align='l')}];"]
            lines += [f"    {name} -> L0 [style=dotted arrowhead=none];"]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_edge(edge: Edge) -> str:
    target = "halted" if edge.kind == "halt" else f"L{edge.target}"
    style = " style=dashed" if edge.kind in ("jump", "again") else ""
    style += "" if edge.kind == "up" else " constraint=false"
    return f"    L{edge.source} -> {target} [label={_quoted([edge.label])}{style}];"


def _quoted(texts: list[str], align: str = "n") -> str:
    """Return lines as one dot string: quotes and backslashes escaped, `&` not read as an entity."""
    lines = [line for text in texts for line in _wrapped(text)]
    escaped = [printable(line).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    end = f"\\{align}"
    return '"' + end.join(escaped) + (end if align == "l" else "") + '"'
