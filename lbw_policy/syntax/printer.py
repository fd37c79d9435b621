"""Statements and clauses -> lines: where a line begins, what lines up, where an empty line stands."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from attrs import define, field
from lark import Token, Tree

from lbw_policy.syntax.comments import Piece
from lbw_policy.syntax.layout import ASIDE, INDENT, Line, Word, commented, remark, width
from lbw_policy.syntax.marks import Marks

SHORT = 100
"""A block, or an alert with its message, that its author wrote on one line stays there up to this width."""

_SIGNS = {"signal": ("EQUAL",), "let": ("EQUAL",), "layers": ("EQUAL",), "param": ("COLON", "EQUAL"),
          "given": ("EQUAL",)}  # fmt: skip
"""Statements and clauses that line up at signs."""
_TABLES = frozenset({"policy", "risk", "limits"})
"""Blocks whose clauses are a keyword and a value, which line up."""


@define
class Printer:
    """Makes the lines of one text."""

    pieces: Sequence[Piece]
    marks: Marks
    found: list[Line] = field(factory=list)
    _index: dict[int, int] = field(factory=dict)
    _end: dict[int, int] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for index, piece in enumerate(self.pieces):
            self._index[piece.start] = index
            self._end.setdefault(piece.start + len(piece.token), index + 1)

    def lines(self, tree: Tree[Token]) -> list[Line]:
        """Return the lines of a whole text."""
        kind, tall = "", False
        for child in _trees(tree):
            following = len(self.found)
            statement = self._noted(child, 0)
            self._statement(statement)
            was_tall, tall = tall, _is_block_end(self.found[-1])
            changes = statement.data != kind or tall or was_tall
            if kind and changes and not self._is_apart(self._first(child)):
                self.found[following].blank = True
            kind = statement.data
        self._remarks(len(self.pieces) - 1, 0)
        return self.found

    def _is_apart(self, at: int) -> bool:
        piece = self.pieces[at]
        return piece.blank or any(comment.blank for comment in piece.above)

    def _first(self, tree: Tree[Token]) -> int:
        return self._index[tree.meta.start_pos]

    def _range(self, tree: Tree[Token]) -> tuple[int, int]:
        return self._first(tree), self._end[tree.meta.end_pos]

    # Lines

    def _add(self, first: int, end: int, indent: int, group: str = "") -> Line:
        """Add a line of the pieces from `first` to `end`, under the comments above it."""
        self._remarks(first, indent)
        words = self.marks.words(self.pieces[first:end])
        line = Line(words, indent, blank=self.pieces[first].blank)
        if group and not commented(words):
            line.group, line.columns = group, self._columns(first, end, group)
        self.found.append(line)
        return line

    def _columns(self, first: int, end: int, group: str) -> tuple[int, ...]:
        kinds = [piece.kind for piece in self.pieces[first:end]]
        if group in _TABLES:
            return (2 if kinds[0] == "ON" else 1,)
        if group == "condition":
            return tuple(i for i in range(end - first) if self.pieces[first + i].start in self.marks.parts)
        return tuple(kinds.index(sign) for sign in _SIGNS.get(group, ()))

    def _remarks(self, at: int, indent: int) -> None:
        self.found.extend(remark(comment, indent) for comment in self.pieces[at].above)

    def _noted(self, tree: Tree[Token], indent: int) -> Tree[Token]:
        """Add the notes of a statement or clause on lines of their own, and return it without them."""
        if tree.data != "noted":
            return tree
        *notes, noted = _trees(tree)
        first, end = self._first(notes[0]), self._range(notes[-1])[1]
        words = self.marks.words(self.pieces[first:end])
        together = indent + width(words) <= SHORT and not commented(words)
        for start, stop in [(first, end)] if together else map(self._range, notes):
            self._add(start, stop, indent).group = ASIDE
        return noted

    # Statements

    def _statement(self, tree: Tree[Token]) -> None:
        first, end = self._range(tree)
        kinds = [piece.kind for piece in self.pieces[first:end]]
        if "LBRACE" in kinds:
            opening = first + kinds.index("LBRACE")
            self._short(tree, opening) if self._is_short(tree, opening) else self._block(tree, opening)
        elif tree.data == "alert" and self._has_message_apart(first, end):
            self._add(first, end - 1, 0)
            self._add(end - 1, end, INDENT)
        else:
            self._add(first, end, 0, tree.data)

    def _has_message_apart(self, first: int, end: int) -> bool:
        words = self.marks.words(self.pieces[first:end])
        return self.pieces[end - 1].fresh or width(words) > SHORT or commented(words)

    def _is_short(self, tree: Tree[Token], opening: int) -> bool:
        first, end = self._range(tree)
        if commented(self.marks.words(self.pieces[first:end])):
            return False
        in_one_line = not any(piece.fresh for piece in self.pieces[opening + 1 : end])
        return end == opening + 2 or (in_one_line and width(self._short_words(tree, opening)) <= SHORT)

    def _short_words(self, tree: Tree[Token], opening: int) -> list[Word]:
        """Return a statement with its block on one line: two blanks between clauses, one between their parts."""
        first, end = self._range(tree)
        words = self.marks.words(self.pieces[first:end])
        starts = {start - first for start in self._clauses(tree, opening)[1:]}
        for at, word in enumerate(words):
            word.gap = 2 if at in starts else min(word.gap, 1)
        return words

    def _short(self, tree: Tree[Token], opening: int) -> None:
        first, end = self._range(tree)
        line = self._add(first, end, 0, tree.data)
        line.words, line.rigid = self._short_words(tree, opening), True
        if tree.data == "reflex":
            line.columns = (opening - first, *(start - first for start in self._clauses(tree, opening)[1:2]))
        elif tree.data in _TABLES:
            line.group, line.columns = "", ()

    def _block(self, tree: Tree[Token], opening: int) -> None:
        first, end = self._range(tree)
        self._add(first, opening + 1, 0, "signal" if tree.data == "signal" else "")
        inner = {self._first(child): child for child in _trees(tree)}
        starts = self._clauses(tree, opening)
        for start, stop in itertools.pairwise([*starts, end - 1]):
            clause = self._noted(inner[start], INDENT) if start in inner else tree
            begin = self._first(clause) if start in inner else start
            self._add(begin, stop, INDENT, _group(tree, clause))
        self._remarks(end - 1, INDENT)
        self.found.append(Line(self.marks.words(self.pieces[end - 1 : end])))

    def _clauses(self, tree: Tree[Token], opening: int) -> list[int]:
        """Return the first piece of each clause of a block."""
        if self.pieces[opening + 1].kind == "RBRACE":
            return []
        inner = (self._first(child) for child in _trees(tree))
        return [opening + 1, *(at for at in inner if at > opening + 1 and self.pieces[at - 1].kind != "WHEN")]


def _is_block_end(line: Line) -> bool:
    return line.words[0].text == "}"


def _trees(tree: Tree[Token]) -> list[Tree[Token]]:
    return [child for child in tree.children if isinstance(child, Tree)]


def _group(block: Tree[Token], clause: Tree[Token]) -> str:
    if block.data in _TABLES:
        return block.data
    return "condition" if clause.data in {"enter", "leave"} else "given" if clause.data == "given" else ""
