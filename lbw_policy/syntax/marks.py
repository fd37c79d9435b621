"""What the parse tree tells about the tokens: where they belong together, and how units are written."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from attrs import field, frozen
from lark import Token, Tree

from lbw_policy.syntax.comments import Piece
from lbw_policy.syntax.layout import AND, ARROW, COMPARE, INSTEAD, ITEM, OR, PART, PRODUCT, SUM, Word

_UNITS = {"unit": ("step", "steps"), "times": ("time", "times")}
_RANKS = {"OR": OR, "AND": AND, "COMPARE": COMPARE, "PLUS": SUM, "TIMES": PRODUCT, "NOTE": ITEM}


@frozen
class Marks:
    """Offsets of tokens whose print depends on their place in the tree."""

    signs: set[int] = field(factory=set)
    """Signs of one operand, which they touch."""
    functions: set[int] = field(factory=set)
    """Names that touch the parenthesis after them."""
    parts: set[int] = field(factory=set)
    """First words of a hold, of `restore`, `except`, `else` and an alert's message."""
    insteads: set[int] = field(factory=set)
    """The `else` before each fallback of an action."""
    units: dict[int, str] = field(factory=dict)
    """Units, as they are written after their number."""

    @classmethod
    def of(cls, tree: Tree[Token], pieces: Sequence[Piece]) -> Marks:
        """Return the marks of a text that parses."""
        marks = cls()
        before = {following.start: piece.start for piece, following in itertools.pairwise(pieces)}
        for node in tree.iter_subtrees():
            marks._place(node, before)
            marks._units_of(node)
        return marks

    def _place(self, node: Tree[Token], before: dict[int, int]) -> None:
        match node.data:
            case "negative" | "signed_inf":
                self.signs.add(node.meta.start_pos)
            case "call" | "ramp" | "noise":
                self.functions.add(node.meta.start_pos)
            case "note":
                self.functions.add(_start(node.children[1]))
            case "hold" | "restore" | "excepted":
                self.parts.add(node.meta.start_pos)
            case "instead":
                self.insteads.add(node.meta.start_pos)
            case "require":
                self.parts.add(before[_start(node.children[-1])])
            case "alert":
                self.parts.add(_start(node.children[-1]))

    def _units_of(self, node: Tree[Token]) -> None:
        for number, unit in itertools.pairwise(node.children):
            if isinstance(unit, Tree) and unit.data in _UNITS and isinstance(number, Token):
                many = float(number.replace("_", "")) != 1
                self.units[unit.meta.start_pos] = _UNITS[unit.data][many]

    def words(self, pieces: Sequence[Piece]) -> list[Word]:
        """Return the pieces of one line as words, with the blanks between them and the ties they have."""
        words: list[Word] = []
        depth = 0
        for index, piece in enumerate(pieces):
            depth -= piece.kind in {"RPAR", "RSQB"}
            text = self.units.get(piece.start, str(piece.token))
            before = pieces[index - 1] if index else None
            gap, rank = self._gap(piece, before), self._rank(piece, before)
            words.append(Word(text, gap, depth, rank, piece.above, piece.beside))
            depth += piece.kind in {"LPAR", "LSQB"}
        return words

    def _gap(self, piece: Piece, before: Piece | None) -> int:
        if before is None or before.kind in {"LPAR", "LSQB", "DOT", "NOTE"} or before.start in self.signs:
            return 0
        if piece.kind in {"COMMA", "RPAR", "RSQB", "DOT"}:
            return 0
        if piece.kind == "LPAR" and before.start in self.functions:
            return 0
        return 2 if piece.start in self.parts or piece.start in self.insteads else 1

    def _rank(self, piece: Piece, before: Piece | None) -> int | None:
        if piece.start in self.parts:
            return PART
        if piece.start in self.insteads:
            return INSTEAD
        if piece.start in self.signs or before is None:
            return None
        if before.kind == "COMMA":
            return ITEM
        return ARROW if piece.token == "->" else _RANKS.get(piece.kind)


def _start(node: Tree[Token] | Token) -> int:
    return (node.start_pos if isinstance(node, Token) else node.meta.start_pos) or 0
