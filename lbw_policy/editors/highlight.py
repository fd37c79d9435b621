"""The Pygments lexer of the language; its words are the grammar's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from pygments import token
from pygments.lexer import RegexLexer, bygroups

from lbw_policy.editors.words import ROOTS, words

_WORDS = words()
_NAME = _WORDS.patterns["NAME"]


def _any(some: Iterable[str]) -> str:
    return rf"\b(?:{'|'.join(sorted(map(re.escape, some), key=len, reverse=True))})\b"


def _signs() -> str:
    """Return a pattern of what no other rule reads: brackets, commas, and the like."""
    return "|".join(re.escape(sign) for sign in sorted(_WORDS.signs - {"@"}, key=len, reverse=True))


class LbwLexer(RegexLexer):
    """Highlights policies; knows exactly the keywords, functions and signals of the language."""

    name = "LBW policy"
    url = ""
    aliases: ClassVar[list[str]] = ["lbw"]
    filenames: ClassVar[list[str]] = ["*.lbw"]
    mimetypes: ClassVar[list[str]] = ["text/x-lbw"]
    tokens: ClassVar[dict[str, list[object]]] = {
        "root": [
            (r"\s+", token.Whitespace),
            (_WORDS.patterns["COMMENT"], token.Comment.Single),
            ('"', token.String.Double, "text"),
            (rf"@\s*{_NAME}", token.Name.Decorator),
            (rf"({_any(ROOTS)})(\s*)(\.)(\s*)({_NAME})",
             bygroups(token.Name.Namespace, token.Whitespace, token.Punctuation, token.Whitespace, token.Name.Builtin)),
            (rf"(\.)(\s*)({_NAME})", bygroups(token.Punctuation, token.Whitespace, token.Name.Attribute)),
            (rf"({_any(_WORDS.statements - {'lbw', 'levels', 'limits'})})(\s+)(?!{_any(_WORDS.keywords)})({_NAME})",
             bygroups(token.Keyword.Declaration, token.Whitespace, token.Name.Variable)),
            (rf"{_any(_WORDS.functions)}(?=\s*\()", token.Name.Function),
            (_any(_WORDS.statements), token.Keyword.Declaration),
            (_any(_WORDS.actions), token.Keyword.Pseudo),
            (_any(_WORDS.logic), token.Operator.Word),
            (_any(_WORDS.durations), token.Keyword.Type),
            (_any(_WORDS.constants), token.Keyword.Constant),
            (_any(_WORDS.clauses), token.Keyword),
            (_NAME, token.Name),
            (_WORDS.patterns["PERCENT"], token.Number.Float),
            (_WORDS.patterns["NUMBER"], token.Number),
            ("->", token.Operator),
            ("|".join(_WORDS.patterns[kind] for kind in ("COMPARE", "PLUS", "TIMES")), token.Operator),
            ("=", token.Operator),
            (_signs(), token.Punctuation),
        ],
        "text": [
            (rf"\{{{_NAME}(?:\.{_NAME})?\}}", token.String.Interpol),
            (r"\\.", token.String.Escape),
            (r'[^"\\{\n]+|\{', token.String.Double),
            (r'"|(?=\n)', token.String.Double, "#pop"),
            (r"\\", token.String.Double),
        ],
    }  # fmt: skip

    def analyse_text(text: str) -> float:  # noqa: N805 - Pygments makes it a static method of the text
        """Return how sure it is that a text is a policy."""
        return 1.0 if re.match(r"(?:\s|#[^\n]*)*lbw\s+\d", text) else 0.0
