"""Text -> tree. Reports every syntax error of a text in one pass and still returns what it could read."""

from __future__ import annotations

import copy
import functools
import itertools
import re

from attrs import frozen
from lark import Lark, Token, Tree
from lark.lexer import BasicLexer

from lbw_policy.diagnostics import Diagnostic, Source, Span
from lbw_policy.syntax import grammar, nodes
from lbw_policy.syntax.build import TreeBuilder
from lbw_policy.syntax.recovery import STATEMENTS, Driver
from lbw_policy.syntax.words import span_of

MAX_CHARACTERS = 256_000
MAX_NESTING = 50
_DECLARING = frozenset({"PARAM", "SIGNAL", "LET", "RISK", "REFLEX", "LEVEL", "ALERT"})


@frozen
class Parsed:
    """What a text holds: its tree, its findings, and every name it sets out to declare.

    `declared` has the names of broken statements too, so that a syntax error in a declaration
    does not make each use of the name an error.
    """

    tree: nodes.Tree
    diagnostics: tuple[Diagnostic, ...]
    declared: frozenset[str]


def parse(source: Source) -> Parsed:
    """Read a policy text, of several files the last one; never raises on any text."""
    refusal = _refuse(source.part_at(source.begin)[1])
    tokens, strays = ([], []) if refusal else _tokens(source)
    refusal = refusal or _too_deep(source, tokens)
    if refusal:
        return Parsed(nodes.Tree(None, ()), (refusal,), frozenset())
    driver = Driver(_lark(), source)
    raw = _with_plain_tree(driver.run(tokens))
    builder = TreeBuilder(source)
    tree = builder.transform(raw)
    found = [*strays, *driver.diagnostics, *builder.diagnostics]
    return Parsed(tree, tuple(sorted(found, key=Diagnostic.sort_key)), _declared(tokens))


def _with_plain_tree(raw: Tree[Token] | None) -> Tree[Token]:
    return raw if raw is not None else Tree("start", [])


@functools.cache
def _lark() -> Lark:
    lark = grammar.parser()
    whole = copy.copy(lark.lexer_conf)
    whole.ignore, whole.skip_validation = (), True
    lark.lexer = BasicLexer(whole)  # gives comments and strays too; lark itself would make one for each text
    return lark


def _refuse(source: Source) -> Diagnostic | None:
    """Return the finding that makes a text not worth parsing at all."""
    text = source.text
    if len(text) > MAX_CHARACTERS:
        message = f"expected a policy of at most {MAX_CHARACTERS:_} characters, found {len(text):_}"
        return Diagnostic("LBW003", message, source, help="split the policy, or check that this is the right file")
    bad = _CONTROL.search(text)
    if bad:
        message = f"expected text, found the control character U+{ord(bad[0]):04X}"
        span = Span(bad.start(), bad.end())
        return Diagnostic("LBW004", message, source, span, "remove it, or check that this is a text file")
    if not text.strip():
        message = "expected a policy, found an empty text"
        return Diagnostic("LBW005", message, source, help="start with `lbw 1` and `policy NAME { }`")
    return None


def _too_deep(source: Source, tokens: list[Token]) -> Diagnostic | None:
    outer: list[int] = []
    depth = 0
    for token, following in itertools.pairwise([*tokens, Token("$END", "")]):
        if token.type == "LPAR":
            outer.append(depth)
            depth += 1
        elif token.type in {"NOT", "PLUS"}:
            depth += 1
        elif token.type in STATEMENTS:
            outer.clear()
            depth = 0
        elif token.type == "RPAR" or following.type != "LPAR":  # an operand ends the signs before it
            del outer[len(outer) - (token.type == "RPAR" and bool(outer)) :]
            depth = outer[-1] + 1 if outer else 0
        if depth > MAX_NESTING:
            message = f"expected at most {MAX_NESTING} nested parentheses and signs, found more"
            return Diagnostic("LBW106", message, source, span_of(token), "name the inner parts with `let`")
    return None


def _tokens(source: Source) -> tuple[list[Token], list[Diagnostic]]:
    """Return the tokens of a text, and a finding for each stretch that is no token."""
    strays: list[Token] = []
    tokens: list[Token] = []
    for token in _lark().lex(source.part_at(source.begin)[1].text):
        _shift(token, source.begin)
        if token.type in {"STRAY", "SLASHES", "UNTERMINATED"}:
            strays.append(token)
            if meant := _meant(token):
                tokens.append(Token.new_borrow_pos(meant, str(token), token))
        elif token.type not in {"COMMENT", "SPACE"}:
            tokens.append(token)
    return tokens, [_stray(source, token) for token in strays[:_MOST_STRAYS]]


_MOST_STRAYS = 50
# What a reader does not see, or sees in another place than the parser: a policy must read as it runs.
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]|\r(?!\n)")
_MEANT = {"&&": "AND", "||": "OR", "!": "NOT"}


def _meant(token: Token) -> str | None:
    """Return what a stretch that is no token most likely stands for, so that reading can go on."""
    if token.type == "UNTERMINATED" or (token[0] == "'" and len(token) > 1):
        return "STRING"
    return _MEANT.get(str(token))


_ADVICE = {
    "&&": "write `and`",
    "||": "write `or`",
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`, or `!=` to compare",
    "'": 'write text in double quotes: "..."',
    ";": "statements need no separator",
    "%": "write a percentage without a space: `10%`",
}


def _shift(token: Token, by: int) -> None:
    """Count a token's place from the start of the joined text."""
    if by:
        token.start_pos, token.end_pos = ((at or 0) + by for at in (token.start_pos, token.end_pos))


def _stray(source: Source, token: Token) -> Diagnostic:
    if token.type == "UNTERMINATED":
        return Diagnostic("LBW102", "unterminated text", source, span_of(token), 'close it with `"` on the same line')
    if token.type == "SLASHES":
        return Diagnostic("LBW101", "unexpected `//`", source, span_of(token), "a comment begins with `#`")
    if len(token) > 1 and token[0] == "'":
        message, advice = "expected text in double quotes, found single ones", _ADVICE["'"]
        return Diagnostic("LBW101", message, source, span_of(token), advice)
    shown = f"`{token}`" if token.isprintable() else f"U+{ord(token[0]):04X}"
    return Diagnostic("LBW101", f"unexpected character {shown}", source, span_of(token), _ADVICE.get(str(token)))


def _declared(tokens: list[Token]) -> frozenset[str]:
    pairs = itertools.pairwise(tokens)
    return frozenset(str(name) for word, name in pairs if word.type in _DECLARING or _opens_group(word, name))


def _opens_group(word: Token, name: Token) -> bool:
    """Tell whether a group of layers is declared; the word also stands in `clip layers to` and `of layers by`."""
    return word.type == "LAYERS" and name.type == "NAME"


# What an editor asks


def built() -> Lark:
    """Return the built parser, whose terminals and rules are the words of the language."""
    return _lark()


def lexemes(text: str) -> list[Token]:
    """Return every token of a text, comments, blanks and strays too; none of a text too long to read."""
    return list(_lark().lex(text)) if len(text) <= MAX_CHARACTERS else []


def kinds_after(text: str) -> frozenset[str]:
    """Return the kinds of token that may follow a text that breaks off."""
    source = Source("<text>", text)
    if len(text) > MAX_CHARACTERS:
        return frozenset()
    return Driver(_lark(), source).kinds_after(_tokens(source)[0])
