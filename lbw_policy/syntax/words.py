"""Tokens -> words and spans."""

from __future__ import annotations

import re

from lark import Token
from lark.tree import Meta

from lbw_policy.diagnostics import Span
from lbw_policy.syntax import nodes


def span_of(token: Token) -> Span:
    """Return the characters a token covers."""
    start = token.start_pos or 0
    return Span(start, start + len(token))


def span_of_rule(meta: Meta) -> Span:
    """Return the characters a rule covers."""
    return Span(getattr(meta, "start_pos", 0), getattr(meta, "end_pos", 0))


def word_of(token: Token) -> nodes.Word:
    """Return a token as a word."""
    return nodes.Word(str(token), span_of(token))


def unquote(token: Token) -> nodes.Word:
    r"""Return a string's text without its quotes; `\"` and `\\` are unescaped."""
    return nodes.Word(re.sub(r"\\(.)", r"\1", str(token)[1:-1]), span_of(token))
