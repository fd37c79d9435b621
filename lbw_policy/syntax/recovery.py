"""Drives the LALR parser token by token: soft keywords, and panic-mode recovery from errors.

A keyword that only options use may also be a name: where the parser cannot take it as a keyword it
is offered as a name. A small mistake is mended (a misspelt word, a wrong sign, one missing word);
after a larger one the parser goes on at the next word that opens a statement. So one mistake neither
hides nor invents another. What is put in where something is missing has the empty text.
"""

from __future__ import annotations

from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedToken
from lark.parsers.lalr_analysis import Shift

from lbw_policy.diagnostics import Diagnostic, Source, Span, nearest
from lbw_policy.syntax.words import span_of

TOP = frozenset(
    {
        "IMPORT",
        "POLICY",
        "PARAM",
        "SIGNAL",
        "LET",
        "RISK",
        "REFLEX",
        "LEVELS",
        "LEVEL",
        "LIMITS",
        "REQUIRE",
        "ALERT",
        "TEST",
    }
)
INNER = frozenset({"ENTER", "LEAVE", "STAY", "COOLDOWN", "DO", "EACH", "GIVEN", "EXPECT"})
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
_SUBSTITUTES = (("=", "COMPARE", "=="), ("=", "COLON", ":"), (":", "EQUAL", "="), ("==", "EQUAL", "="),
                (",", "__ANON_0", "->"), (">", "__ANON_0", "->"), ("most", "LEAST", "least"))  # fmt: skip
"""What is often written, the token that is meant, and how it is written."""
_UNITS = frozenset({"STEP", "STEPS"})
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
        words = {kind for word, kind in self._keywords.items() if word.isidentifier()}
        self._soft = frozenset(words - RESERVED)

    def run(self, tokens: list[Token]) -> Tree[Token] | None:
        """Feed all tokens and return the tree, or None where nothing could be made of the text."""
        at = 0
        while at < len(tokens) and len(self.diagnostics) < MOST_ERRORS:
            at = self._take(tokens, at)
        return self._finish(tokens)

    def kinds_after(self, tokens: list[Token]) -> frozenset[str]:
        """Feed the tokens of a text that breaks off and return the kinds of token that may follow."""
        at = 0
        while at < len(tokens) and len(self.diagnostics) < MOST_ERRORS:
            at = self._take(tokens, at)
        return frozenset(self._parser.accepts())

    def _take(self, tokens: list[Token], at: int) -> int:
        """Feed one token, or recover from it; return the index of the next one to feed."""
        token = self._soften(tokens[at])
        if self._accepts(token.type):
            self._feed(token)
            return at + 1
        return self._recover(tokens, at)

    def _soften(self, token: Token) -> Token:
        if token.type in self._soft and not self._accepts(token.type) and self._accepts("NAME"):
            return Token.new_borrow_pos("NAME", str(token), token)
        return token

    def _accepts(self, kind: str) -> bool:
        return self._can_take(self._state.state_stack, kind)

    def _after(self, stack: list[int], kind: str) -> list[int] | None:
        """Return the stack after a token, or None if it is refused.

        Exact, by simulation: a LALR table alone merges contexts and promises too much.
        """
        states = list(stack)
        while kind != "$END" or states[-1] != self._state.parse_conf.end_state:
            action, argument = self._table[states[-1]].get(kind, (None, None))
            if action is None:
                return None
            if action is Shift:
                return [*states, argument]
            del states[len(states) - len(argument.expansion) :]
            states.append(self._table[states[-1]][argument.origin.name][1])
        return states

    def _can_take(self, stack: list[int], kind: str) -> bool:
        return self._after(stack, kind) is not None

    def _leads_to(self, kind: str, token: Token) -> bool:
        """Tell whether the parser takes a token of this kind, and then the given one."""
        states = self._after(self._state.state_stack, kind)
        kinds = (token.type, "NAME") if token.type in self._soft else (token.type,)
        return states is not None and any(self._can_take(states, kind) for kind in kinds)

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
        if (following := self._no_action(tokens, at)) > at:
            return following
        if self._rename(tokens, at) or self._substitute(tokens, at):
            return at + 1
        if token.type in TOP and self._open:
            return self._close(token, at)
        if token.type == "RBRACE" and not self._open:
            return self._surplus(tokens, at)
        if token.type == "NAME" and self._respell(token):
            return at + 1
        if self._insert(tokens, at):
            return at
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
        self._shut(span_of(token).start, token.type)
        return at

    def _shut(self, place: int, following: str) -> None:
        """Close the block that was left open; one that cannot end here is dropped with its statement."""
        self._unwind("RBRACE")
        if self._accepts("RBRACE"):
            self._state.feed_token(Token("RBRACE", "}", start_pos=place, end_pos=place))
        else:
            self._unwind(following)

    def _surplus(self, tokens: list[Token], at: int) -> int:
        """A `}` outside of every block: say so once, however many there are."""
        self._add("LBW100", "`}` closes nothing", span_of(tokens[at]), "remove it, or look for a `{` left out above")
        while at < len(tokens) and tokens[at].type == "RBRACE":
            at += 1
        return at

    def _rename(self, tokens: list[Token], at: int) -> bool:
        """Read a reserved word that stands where a name would fit as that name, and say so."""
        following = tokens[at + 1] if at + 1 < len(tokens) else Token("$END", "")
        if tokens[at].type not in RESERVED or not self._leads_to("NAME", following):
            return False
        self._report(tokens, at)
        return self._feed(Token.new_borrow_pos("NAME", str(tokens[at]), tokens[at]))

    def _substitute(self, tokens: list[Token], at: int) -> bool:
        """Read a sign that is often mistaken for another as the one that fits here, and say so."""
        fitting = ((kind, sign) for found, kind, sign in _SUBSTITUTES if tokens[at] == found and self._accepts(kind))
        kind, sign = next(fitting, ("", ""))
        if not kind:
            return False
        use = " to compare" if kind == "COMPARE" else ""
        self._add("LBW100", f"expected {self._expected()}, found `{tokens[at]}`", span_of(tokens[at]),
                  f"write `{sign}`{use}")  # fmt: skip
        return self._feed(Token.new_borrow_pos(kind, sign, tokens[at]))

    def _no_action(self, tokens: list[Token], at: int) -> int:
        """Pass over `do` or an alert where a fallback should name an action; return the index of the next token."""
        kind = tokens[at].type
        if kind not in {"DO", "ALERT"} or not at or tokens[at - 1].type != "ELSE":
            return at
        advice = "name the action that is done instead: `else halt`"
        if kind == "ALERT":
            advice = "what is done instead of an action acts; an alert stands for itself"
            self._feed(Token("NAME", "", start_pos=tokens[at].start_pos, end_pos=tokens[at].start_pos))
        self._add("LBW100", f"expected an action, found `{tokens[at]}`", span_of(tokens[at]), advice)
        at += 1
        while kind == "ALERT" and at < len(tokens) and tokens[at].type in {"NAME", "STRING"}:
            at += 1
        return at

    def _insert(self, tokens: list[Token], at: int) -> bool:
        """Put in the one thing that is missing, if the parse then goes on at the same token; and say so."""
        token = tokens[at] if at < len(tokens) else Token("$END", "")
        kind = next((kind for kind in self._insertable(tokens, at) if self._leads_to(kind, token)), None)
        if kind is None:
            return False
        self._report_missing(tokens, at, kind)
        end = self._end_before(tokens, at)
        return self._feed(Token(kind, "", start_pos=end, end_pos=end))

    def _insertable(self, tokens: list[Token], at: int) -> list[str]:
        accepted = self._parser.accepts()
        operator = at < len(tokens) and tokens[at].type in _OPERATORS - {"AND", "OR"}
        if at and tokens[at - 1].type == "NUMBER" and not accepted >= {"TIMES"}:
            return [kind for kind in ("STEPS",) if kind in accepted]
        if "NAME" in accepted:
            return [] if operator else ["NAME"]
        return ["RPAR"] if "RPAR" in accepted else list(accepted - {"NUMBER"}) if len(accepted) == 1 else []

    def _respell(self, token: Token) -> bool:
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
            elif kind in TOP or (not depth and (kind in INNER | {"RBRACE"} or _settles(tokens, at))):
                break
            at += 1
        if at < len(tokens) and not (tokens[at].type in TOP and self._open):
            self._unwind(tokens[at].type)
        if at == len(tokens) and not self._open:
            self._unwind("$END")
        return at

    def _unwind(self, kind: str) -> None:
        """Drop unfinished parts until the parser can take the token; keep all if nothing can."""
        states, values = self._state.state_stack, self._state.value_stack
        keep = next((i for i in range(len(states), 0, -1) if self._can_take(states[:i], kind)), None)
        if keep is not None:
            del states[keep:]
            del values[max(0, keep - 1) :]

    # Reports

    def _report(self, tokens: list[Token], at: int, *, missing: bool = False) -> None:
        """Say what was expected; where something is missing at the end of a line, say so there."""
        end = self._end_before(tokens, at)
        found, span = f", found {_quoted(tokens, at)}", Span(end, end)
        if at < len(tokens) and not (missing and "\n" in self.source.text[end : span_of(tokens[at]).start]):
            span = span_of(tokens[at])
        elif at < len(tokens):
            found = f" after `{_short(tokens[at - 1])}`"
        self._add("LBW100", f"expected {self._expected()}{found}", span, self._advice(tokens, at))

    def _report_missing(self, tokens: list[Token], at: int, kind: str) -> None:
        if kind == "STEPS":
            number = tokens[at - 1]
            self._add("LBW100", f"expected a duration, found `{number}`", span_of(number),
                      f"write the unit: `{number} steps`")  # fmt: skip
        elif kind == "RPAR":
            before = _quoted(tokens, at)
            opened = self._unclosed(tokens[:at])
            self._add("LBW103", f"unclosed parenthesis: expected `)` before {before}", opened, "close it with `)`")
        else:
            self._report(tokens, at, missing=True)

    def _unclosed(self, tokens: list[Token]) -> Span:
        depth = 0
        for token in reversed(tokens):
            depth += (token.type == "RPAR") - (token.type == "LPAR")
            if depth < 0:
                return span_of(token)
        return Span(0, 0)

    def _end_before(self, tokens: list[Token], at: int) -> int:
        return span_of(tokens[at - 1]).end if at else self.source.begin

    def _advice(self, tokens: list[Token], at: int) -> str | None:
        token = tokens[at] if at < len(tokens) else Token("$END", "")
        if token.type in RESERVED and self._leads_to("NAME", tokens[at + 1] if at + 1 < len(tokens) else token):
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
            accepted -= _OPERATORS | _UNITS | {"LPAR"}
        if accepted >= TOP:
            phrases.append("a statement")
            accepted -= TOP | {"LAYERS", "$END", "DOT"}
        accepted -= {"STEP"}
        words = {word for word, kind in self._keywords.items() if kind in accepted and word.isidentifier()}
        phrases += ["`at most`" if word == "at" else f"`{word}`" for word in sorted(words)]
        phrases += [_PHRASES[kind] for kind in sorted(accepted) if kind in _PHRASES]
        return _one_of(phrases or ["the end of the file"])

    def _add(self, code: str, message: str, span: Span, advice: str | None) -> None:
        self.diagnostics.append(Diagnostic(code, message, self.source, span, advice))

    # End of the text

    def _finish(self, tokens: list[Token]) -> Tree[Token] | None:
        end = len(self.source.text.rstrip())
        while self._open and len(self.diagnostics) < MOST_ERRORS:
            opened = self._open.pop()
            self._add("LBW103", "unclosed block: expected `}` before the end of the file", span_of(opened),
                      "close the block with `}`")  # fmt: skip
            self._shut(end, "$END")
        while not self._accepts("$END") and len(self.diagnostics) < MOST_ERRORS:
            if not self._insert(tokens, len(tokens)):
                self._report(tokens, len(tokens))
                break
        self._unwind("$END")
        try:
            return self._parser.feed_eof()  # type: ignore[no-any-return]
        except UnexpectedToken:
            return None


def _settles(tokens: list[Token], at: int) -> bool:
    """Tell whether a clause `settles after` begins here; its first word is not reserved, so it may be a name."""
    return [token.type for token in tokens[at : at + 2]] == ["SETTLES", "AFTER"]


def _short(token: Token) -> str:
    return str(token) if len(token) <= _MOST_SHOWN else f"{token[:_MOST_SHOWN]}..."


_MOST_SHOWN = 40


def _quoted(tokens: list[Token], at: int) -> str:
    return f"`{_short(tokens[at])}`" if at < len(tokens) else "the end of the file"


def _one_of(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " or " + phrases[-1]
