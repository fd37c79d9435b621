"""A policy text as an editor has it open, broken or not: its tokens, its tree, its findings, its names."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import attrs
from attrs import frozen

from lbw_policy.diagnostics import Source, Span
from lbw_policy.semantics import Checked, check_source
from lbw_policy.semantics.linking import link
from lbw_policy.syntax import Parsed, nodes, parse
from lbw_policy.syntax.parser import lexemes

VALUES = frozenset({"param", "signal", "let", "risk"})
"""The declarations that expressions name; groups of layers have names of their own."""
_TEXTS = frozenset({"STRING", "UNTERMINATED"})
_BLANK = frozenset({"SPACE", "COMMENT"})
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)")


@frozen
class Lexeme:
    """A token with its place; `kind` is the name of its terminal."""

    kind: str
    text: str
    span: Span


@frozen
class Declaration:
    """A named statement: what kind it is, its name's place and its own, both in the file it stands in."""

    kind: str
    name: str
    span: Span
    whole: Span
    home: Source

    @property
    def text(self) -> str:
        """The statement as written."""
        return self.home.text[self.whole.start : self.whole.end]


@frozen
class Spot:
    """The word under the cursor; `role` says what it is read as.

    Roles: `part` (after a dot; `owner` stands before it), `function`, `value`, `level`, `reflex`, `alert`,
    `layers` (a group of them), `unit`, `keyword`, `path` (text after `import` or `extends`), `word` (anything else).
    """

    text: str
    span: Span
    role: str
    owner: str = ""


@frozen
class Document:
    """One text; everything is worked out when first asked for, and nothing raises on any text.

    What it imports and extends is looked for from the folder of `path`.
    """

    source: Source
    path: Path | None = None

    @functools.cached_property
    def lexemes(self) -> tuple[Lexeme, ...]:
        """Every token but blanks and comments."""
        found = []
        for token in lexemes(self.source.text):
            start = token.start_pos or 0
            found.append(Lexeme(token.type, str(token), Span(start, start + len(token))))
        return tuple(lexeme for lexeme in found if lexeme.kind not in _BLANK)

    @functools.cached_property
    def parsed(self) -> Parsed:
        """The tree, as far as the text can be read."""
        return parse(self.source)

    @functools.cached_property
    def checked(self) -> Checked:
        """Every finding."""
        return check_source(self.source, path=self.path)

    @functools.cached_property
    def declarations(self) -> tuple[Declaration, ...]:
        """The named statements in order, then levels without a statement, then what is imported and inherited."""
        own = list(_declarations(self.parsed.tree, self.source))
        linked = link(self.source, self.path)
        others = _declarations(linked.heir.tree, linked.source) if linked.source.parts else ()
        return (*own, *(d for d in map(_at_home, others) if d.home != self.source))

    def find(self, name: str, kinds: frozenset[str] = VALUES) -> Declaration | None:
        """Return the first declaration of a name."""
        return next((d for d in self.declarations if d.name == name and d.kind in kinds), None)

    def text(self, span: Span) -> str:
        """Return the text of a span."""
        return self.source.text[span.start : span.end]

    def index_at(self, offset: int) -> int | None:
        """Return the index of the token an offset lies in or just after; a word goes before a sign."""
        near = [i for i, lexeme in enumerate(self.lexemes) if lexeme.span.start <= offset <= lexeme.span.end]
        inside = [i for i in near if offset < self.lexemes[i].span.end]
        wordy = [i for i in near if self.lexemes[i].text.isidentifier()]
        return next(iter([*(i for i in inside if i in wordy), *wordy, *inside, *near]), None)

    def spot(self, offset: int) -> Spot | None:
        """Return the word at an offset, and what it is read as."""
        index = self.index_at(offset)
        if index is None:
            return None
        lexeme = self.lexemes[index]
        before = self.lexemes[index - 1] if index else None
        if lexeme.kind in _TEXTS:
            return _in_text(lexeme, before, offset)
        if not lexeme.text.isidentifier():
            return None
        if before is not None and before.kind == "DOT" and index > 1:
            return Spot(lexeme.text, lexeme.span, "part", self.lexemes[index - 2].text)
        return Spot(lexeme.text, lexeme.span, self._role(index))

    def _role(self, index: int) -> str:
        lexeme = self.lexemes[index]
        role = role_of(path_to(self.parsed.tree, lexeme.span), lexeme)
        if role:
            return role
        if index + 1 < len(self.lexemes) and self.lexemes[index + 1].kind == "LPAR":
            return "function"
        return "value" if lexeme.kind == "NAME" else "keyword"


def _in_text(lexeme: Lexeme, before: Lexeme | None, offset: int) -> Spot | None:
    if before is not None and before.kind in {"IMPORT", "EXTENDS"}:
        return Spot(lexeme.text.strip('"'), lexeme.span, "path")
    for found in _PLACEHOLDER.finditer(lexeme.text):
        span = Span(lexeme.span.start + found.start(1), lexeme.span.start + found.end(1))
        if span.start <= offset <= span.end:
            return Spot(found[1], span, "value")
    return None


def _declarations(tree: nodes.Tree, home: Source) -> Iterator[Declaration]:
    for node in tree.statements:
        name = getattr(node, "name", None)
        if isinstance(name, nodes.Word) and name.text:
            yield Declaration(type(node).__name__.lower(), name.text, name.span, node.span, home)
    # The calm level, and a level whose block is not written yet, are declared by their place in the order.
    blocks = {node.name.text for node in tree.statements if isinstance(node, nodes.Level)}
    for order in tree.statements:
        for word in order.names if isinstance(order, nodes.Levels) else ():
            if word.text and word.text not in blocks:
                yield Declaration("level", word.text, word.span, order.span, home)


def _at_home(found: Declaration) -> Declaration:
    """Return a declaration of a joined text with its places in the one file it stands in."""
    begin, home = found.home.part_at(found.span.start)
    span, whole = (Span(each.start - begin, each.end - begin) for each in (found.span, found.whole))
    return attrs.evolve(found, span=span, whole=whole, home=home)


# Where a word stands in the tree


def path_to(tree: nodes.Tree, span: Span) -> list[tuple[str, object]]:
    """Return the nodes around a span, outermost first, each with the field of its parent it stands in."""
    found: list[tuple[str, object]] = [("", tree)]
    while True:
        inner = next((child for child in _children(found[-1][1]) if _covers(child[1], span)), None)
        if inner is None:
            return found
        found.append(inner)


def _children(node: object) -> Iterator[tuple[str, object]]:
    for field in attrs.fields(cast("type[attrs.AttrsInstance]", type(node))) if attrs.has(type(node)) else ():
        value = getattr(node, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            yield field.name, item


def _covers(node: object, span: Span) -> bool:
    own = getattr(node, "whole", None) or getattr(node, "span", None)
    return isinstance(own, Span) and own.start <= span.start and span.end <= own.end


def role_of(path: list[tuple[str, object]], lexeme: Lexeme) -> str:
    """Return the role of a word by its place in the tree; empty where the tree has no such word."""
    field, word = path[-1]
    if not isinstance(word, nodes.Word) or word.span != lexeme.span:
        return ""
    parent = path[-2][1] if len(path) > 1 else None
    match parent:
        case nodes.Call():
            return "function"
        case nodes.Reference():
            return "value"
        case nodes.Levels() | nodes.Level():
            return "level"
        case nodes.Reflex() | nodes.Alert() if field == "name":
            return type(parent).__name__.lower()
        case nodes.Param() if field == "unit":
            return "unit"
        case nodes.Signal() if field == "group":
            return "layers"
        case nodes.Param() | nodes.Signal() | nodes.Let() | nodes.Risk():
            return "value"
        case nodes.Setting() if parent.name == "extends":
            return "path"
    return _other_role(parent, field)


def _other_role(parent: object, field: str) -> str:
    kind = getattr(parent, "kind", "")
    if kind in {"reflex", "alert", "level"}:
        return str(kind)
    if field == "group" or (isinstance(parent, nodes.Layers) and field == "name"):
        return "layers"
    return "value" if kind == "value" else "word"
