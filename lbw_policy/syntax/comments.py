"""Text -> tokens that carry the comments around them, so that no layout can lose one."""

from __future__ import annotations

from attrs import evolve, frozen
from lark import Token

from lbw_policy.syntax.parser import lexemes

END = "$END"


@frozen
class Comment:
    """A comment on a line of its own; `blank` tells whether an empty line was above it."""

    text: str
    blank: bool


@frozen
class Piece:
    """A token with what the author wrote around it.

    `above` has the comments on lines of their own before it, `beside` the comment that ends its line.
    `fresh` tells whether it began a line, `blank` whether an empty line was right above it.
    """

    token: Token
    above: tuple[Comment, ...]
    fresh: bool
    blank: bool
    beside: str = ""

    @property
    def kind(self) -> str:
        """The token's terminal, as the lexer reads it without knowing its place."""
        return self.token.type

    @property
    def start(self) -> int:
        """The offset of the token in the text."""
        return self.token.start_pos or 0


def pieces(text: str) -> list[Piece]:
    """Return the tokens of a text that parses; the last one is its end, which carries the last comments."""
    found: list[Piece] = []
    above: list[Comment] = []
    newlines, fresh = 0, True
    for token in [*lexemes(text), Token(END, "", start_pos=len(text))]:
        if token.type == "SPACE":
            newlines += token.count("\n")
            fresh = fresh or newlines > 0
        elif token.type != "COMMENT":
            found.append(Piece(token, tuple(above), fresh, newlines > 1))
            above, newlines, fresh = [], 0, False
        elif fresh:
            above.append(Comment(token.rstrip(), newlines > 1))
            newlines = 0
        else:
            found[-1] = evolve(found[-1], beside=token.rstrip())
    return found
