"""Drives the LALR parser token by token: soft keywords, and panic-mode recovery from errors.

A keyword that only options use may also be a name: where the parser cannot take it as a keyword it
is offered as a name. On an error the parser goes on at the next word that opens a statement, so
that one mistake neither hides nor invents another.
"""

from __future__ import annotations

from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedToken
from lark.parsers.lalr_analysis import Shift

from lbw_policy.diagnostics import Diagnostic, Source, Span, nearest
from lbw_policy.syntax.build import span_of

TOP = frozenset(
    {"POLICY", "PARAM", "SIGNAL", "LET", "RISK", "REFLEX", "LEVELS", "LEVEL", "LIMITS", "ALERT"},
)
INNER = frozenset({"ENTER", "LEAVE", "STAY", "COOLDOWN", "DO", "EACH"})
STATEMENTS = TOP | INNER
RESERVED = STATEMENTS | {"WHEN", "AND", "OR", "NOT", "FOR"}
MOST_ERRORS = 50

_PHRASES = {
    "NAME": "a name",
    "NUMBER": "a number",
    "PERCENT": "a percentage",
    "STRING": "a text in double quotes",
    "COMPARE": "a comparison",
    "PLUS": "`+` or `-`",
    "TIMES": "`*` or `/`",
    "EQUAL": "`=`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "DOT": "`.`",
    "$END": "the end of the file",
    "__ANON_0": "`->`",
}
_OPERATORS = frozenset({"COMPARE", "PLUS", "TIMES", "AND", "OR", "DOT"})
_OPERAND = frozenset({"NAME", "NUMBER", "LPAR"})


class Driver:
    """One parse of one text; `diagnostics` has its findings."""

    def __init__(self, lark: Lark, source: Source) -> None:
        self.source = source
        self.diagnostics: list[Diagnostic] = []
        self._parser: Any = lark.parse_interactive("")
        self._state: Any = self._parser.parser_state
        self._table: Any = self._state.parse_conf.states
        self._open: list[Token] = []
        self._keywords = {t.pattern.value: t.name for t in lark.terminals if t.pattern.type == "str"}

    def run(self, tokens: list[Token]) -> Tree[Token] | None:
        """Feed all tokens and return the tree, or None where nothing could be made of the text."""
        at = 0
        while at < len(tokens) and len(self.diagnostics) < MOST_ERRORS:
            at = self._take(tokens, at)
        return self._finish()

    def _take(self, tokens: list[Token], at: int) -> int:
        """Feed one token, or recover from it; return the index of the next one to feed."""
        token = self._soften(tokens[at])
        if self._accepts(token.type):
            self._feed(token)
            return at + 1
        return self._recover(tokens, at)

    def _soften(self, token: Token) -> Token:
        soft = token.type in self._keywords.values() and str(token).isidentifier() and token.type not in RESERVED
        if soft and not self._accepts(token.type) and self._accepts("NAME"):
            return Token.new_borrow_pos("NAME", str(token), token)
        return token

    def _accepts(self, kind: str) -> bool:
        return self._can_take(self._state.state_stack, kind)

    def _can_take(self, stack: list[int], kind: str) -> bool:
        """Tell exactly, by simulation: a LALR table alone merges contexts and promises too much."""
        states = list(stack)
        while kind != "$END" or states[-1] != self._state.parse_conf.end_state:
            action, argument = self._table[states[-1]].get(kind, (None, None))
            if action is None:
                return False
            if action is Shift:
                return True
            del states[len(states) - len(argument.expansion) :]
            states.append(self._table[states[-1]][argument.origin.name][1])
        return True

    def _feed(self, token: Token) -> bool:
        if token.type == "LBRACE":
            self._open.append(token)
        elif token.type == "RBRACE" and self._open:
            self._open.pop()
        self._state.feed_token(token)
        return True

    # Recovery

    def _recover(self, tokens: list[Token], at: int) -> int:
        token = tokens[at]
        if token.type in TOP and self._open:
            return self._close(token, at)
        if token.type == "NAME" and self._mend(token):
            return at + 1
        self._report(tokens, at)
        following = self._synchronise(tokens, at + (token.type not in STATEMENTS | {"RBRACE"}))
        # A token that nothing on the stack can take would be met again for ever.
        return following if following > at or self._fits(tokens, at) else at + 1

    def _fits(self, tokens: list[Token], at: int) -> bool:
        return at < len(tokens) and self._accepts(tokens[at].type)

    def _close(self, token: Token, at: int) -> int:
        """A top-level word inside a block: the block was never closed."""
        opened = self._open.pop()
        line = self.source.position(span_of(token).start)[0]
        message = f"unclosed block: expected `}}` before `{token}` on line {line}"
        self._add("LBW103", message, span_of(opened), "close the block with `}`")
        self._unwind("RBRACE")
        self._state.feed_token(Token("RBRACE", "}", start_pos=token.start_pos, end_pos=token.start_pos))
        return at

    def _mend(self, token: Token) -> bool:
        """Read a misspelt keyword as the one that fits here, and say so."""
        words = {word: kind for word, kind in self._keywords.items() if word.isidentifier()}
        fitting = [word for word, kind in words.items() if self._accepts(kind)]
        meant = nearest(str(token), fitting)
        if meant is None:
            return False
        self._add("LBW100", f"unexpected `{token}`", span_of(token), f"did you mean `{meant}`?")
        return self._feed(Token.new_borrow_pos(words[meant], meant, token))

    def _synchronise(self, tokens: list[Token], at: int) -> int:
        """Skip to a word that opens a statement or closes a block, and make room for it."""
        depth = 0
        while at < len(tokens):
            kind = tokens[at].type
            depth += kind == "LBRACE"
            if depth and kind == "RBRACE":
                depth -= 1
            elif kind in TOP or (not depth and kind in INNER | {"RBRACE"}):
                break
            at += 1
        if at < len(tokens) and not (tokens[at].type in TOP and self._open):
            self._unwind(tokens[at].type)
        return at

    def _unwind(self, kind: str) -> None:
        """Drop unfinished parts until the parser can take the token; keep all if nothing can."""
        states, values = self._state.state_stack, self._state.value_stack
        keep = next((i for i in range(len(states), 0, -1) if self._can_take(states[:i], kind)), None)
        if keep is not None:
            del states[keep:]
            del values[max(0, keep - 1) :]

    # Reports

    def _report(self, tokens: list[Token], at: int) -> None:
        token = tokens[at]
        self._add("LBW100", f"expected {self._expected()}, found `{token}`", span_of(token), self._advice(tokens, at))

    def _advice(self, tokens: list[Token], at: int) -> str | None:
        token = tokens[at]
        if token == "=" and self._accepts("COMPARE"):
            return "write `==` to compare"
        if token.type in RESERVED and self._accepts("NAME"):
            return f"`{token}` is a word of the language and cannot be a name"
        if token.type == "NAME" and at and tokens[at - 1].type == "NUMBER":
            return "a number may carry `%` or `steps`"
        return None

    def _expected(self) -> str:
        accepted = {kind for kind in self._parser.accepts() if not kind.startswith("UNTERMINATED")}
        phrases: list[str] = []
        if accepted >= _OPERAND:
            phrases.append("an expression")
            accepted -= _OPERAND | {"NOT", "PLUS", "PERCENT"}
        elif accepted >= {"TIMES"}:
            phrases.append("an operator")
            accepted -= _OPERATORS
        if accepted >= TOP:
            phrases.append("a statement such as `signal` or `level`")
            accepted -= TOP
        words = {word for word, kind in self._keywords.items() if kind in accepted and word.isidentifier()}
        phrases += [f"`{word}`" for word in sorted(words)]
        phrases += [_PHRASES[kind] for kind in sorted(accepted) if kind in _PHRASES]
        return _one_of(phrases or ["the end of the file"])

    def _add(self, code: str, message: str, span: Span, advice: str | None) -> None:
        self.diagnostics.append(Diagnostic(code, message, self.source, span, advice))

    # End of the text

    def _finish(self) -> Tree[Token] | None:
        end = len(self.source.text.rstrip())
        while self._open and len(self.diagnostics) < MOST_ERRORS:
            opened = self._open.pop()
            self._add("LBW103", "unclosed block: expected `}` before the end of the file", span_of(opened),
                      "close the block with `}`")  # fmt: skip
            self._unwind("RBRACE")
            self._feed(Token("RBRACE", "}", start_pos=end, end_pos=end))
        if not self._accepts("$END") and len(self.diagnostics) < MOST_ERRORS:
            message = f"expected {self._expected()}, found the end of the file"
            self._add("LBW100", message, Span(max(0, end - 1), end), None)
        self._unwind("$END")
        try:
            return self._parser.feed_eof()  # type: ignore[no-any-return]
        except UnexpectedToken:
            return None


def _one_of(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " or " + phrases[-1]
