"""Text -> tree. Reports every syntax error of a text in one pass and still returns what it could read."""

from __future__ import annotations

import functools
import itertools

from attrs import frozen
from lark import Lark, Token, Tree

from lbw_policy.diagnostics import Diagnostic, Source, Span
from lbw_policy.resources import grammar_path
from lbw_policy.syntax import nodes
from lbw_policy.syntax.build import TreeBuilder, span_of
from lbw_policy.syntax.recovery import STATEMENTS, Driver

MAX_CHARACTERS = 1_000_000
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
    """Read a policy text; never raises on any text."""
    refusal = _refuse(source)
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
    # A basic lexer: the contextual one reads `cooldownx` as `cooldown` and `x` where no name fits.
    grammar = grammar_path().read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="basic", propagate_positions=True, maybe_placeholders=False)


def _refuse(source: Source) -> Diagnostic | None:
    """Return the finding that makes a text not worth parsing at all."""
    text = source.text
    if len(text) > MAX_CHARACTERS:
        message = f"expected a policy of at most {MAX_CHARACTERS:_} characters, found {len(text):_}"
        return Diagnostic("LBW003", message, source, help="split the policy, or check that this is the right file")
    bad = next((i for i, char in enumerate(text) if char < " " and char not in "\t\r\n\f"), None)
    if bad is not None:
        message = f"expected text, found the control character U+{ord(text[bad]):04X}"
        return Diagnostic("LBW004", message, source, Span(bad, bad + 1), "this looks like a binary file")
    if not text.strip():
        message = "expected a policy, found an empty text"
        return Diagnostic("LBW005", message, source, help="start with `lbw 1` and `policy NAME { }`")
    return None


def _too_deep(source: Source, tokens: list[Token]) -> Diagnostic | None:
    depth = 0
    for token in tokens:
        if token.type in {"LPAR", "NOT"} or token == "-":
            depth += 1
        elif token.type in {"RPAR", "RBRACE"} or token.type in STATEMENTS:
            depth = max(0, depth - 1) if token.type == "RPAR" else 0
        if depth > MAX_NESTING:
            message = f"expected at most {MAX_NESTING} nested parentheses and signs, found more"
            return Diagnostic("LBW106", message, source, span_of(token), "name the inner parts with `let`")
    return None


def _tokens(source: Source) -> tuple[list[Token], list[Diagnostic]]:
    """Return the tokens of a text, and a finding for each stretch that is no token."""
    strays: list[Token] = []
    lark = _lark()
    tokens: list[Token] = []
    for token in lark.lex(source.text, dont_ignore=True):
        if token.type in {"STRAY", "UNTERMINATED"}:
            strays.append(token)
            if meant := _MEANT.get(str(token)):
                tokens.append(Token.new_borrow_pos(meant, str(token), token))
        elif token.type not in {"COMMENT", "SPACE"}:
            tokens.append(token)
    return tokens, [_stray(source, token) for token in strays[:_MOST_STRAYS]]


_MOST_STRAYS = 50
_MEANT = {"&&": "AND", "||": "OR", "!": "NOT"}
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


def _stray(source: Source, token: Token) -> Diagnostic:
    if token.type == "UNTERMINATED":
        return Diagnostic("LBW102", "unterminated text", source, span_of(token), 'close it with `"` on the same line')
    message = f"unexpected character `{token}`"
    return Diagnostic("LBW101", message, source, span_of(token), _ADVICE.get(str(token)))


def _declared(tokens: list[Token]) -> frozenset[str]:
    pairs = itertools.pairwise(tokens)
    names = {str(name) for word, name in pairs if word.type in _DECLARING}
    return frozenset(names)
