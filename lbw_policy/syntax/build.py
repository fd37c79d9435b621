"""Lark's parse tree -> nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from lark import Token, Transformer, v_args
from lark.tree import Meta

from lbw_policy.diagnostics import Diagnostic, Source, Span
from lbw_policy.syntax import nodes

_CHAIN = 100
"""How many operands one chain such as `a + b + c` may have; keeps trees shallow."""


def span_of(token: Token) -> Span:
    """Return the characters a token covers."""
    start = token.start_pos or 0
    return Span(start, start + len(token))


def _span(meta: Meta) -> Span:
    return Span(getattr(meta, "start_pos", 0), getattr(meta, "end_pos", 0))


def _word(token: Token) -> nodes.Word:
    return nodes.Word(str(token), span_of(token))


def unquote(token: Token) -> nodes.Word:
    r"""Return a string's text without its quotes; `\"` and `\\` are unescaped."""
    return nodes.Word(re.sub(r"\\(.)", r"\1", str(token)[1:-1]), span_of(token))


Build = Callable[["TreeBuilder", Meta, Sequence[Any]], nodes.Setting]


def _setting(name: str) -> Build:
    def build(_self: TreeBuilder, meta: Meta, children: Sequence[Any]) -> nodes.Setting:
        value = children[0] if children else None
        if isinstance(value, Token):
            value = unquote(value) if value.type == "STRING" else _word(value)
        return nodes.Setting(name, value, _span(meta))

    return build


@v_args(meta=True)
class TreeBuilder(Transformer[Token, Any]):
    """Turns each rule of the grammar into its node; reports literals that cannot be read."""

    def __init__(self, source: Source) -> None:
        super().__init__(visit_tokens=False)
        self.source = source
        self.diagnostics: list[Diagnostic] = []

    def _report(self, code: str, message: str, span: Span, advice: str) -> None:
        self.diagnostics.append(Diagnostic(code, message, self.source, span, advice))

    def start(self, meta: Meta, children: Sequence[Any]) -> nodes.Tree:
        edition = children[0] if children and isinstance(children[0], nodes.Edition) else None
        statements = [child for child in children if isinstance(child, nodes.Statement)]
        return nodes.Tree(edition, tuple(statements))

    def edition(self, meta: Meta, children: Sequence[Any]) -> nodes.Edition:
        return nodes.Edition(self._number(children[0]), _span(meta))

    # Literals and names

    def _number(self, token: Token, **kind: bool) -> nodes.Number:
        return nodes.Number(float(str(token).rstrip("%").replace("_", "")), span_of(token), **kind)

    def number(self, meta: Meta, children: Sequence[Token]) -> nodes.Number:
        return self._number(children[0])

    def percent(self, meta: Meta, children: Sequence[Token]) -> nodes.Number:
        number = self._number(children[0])
        return nodes.Number(number.value / 100.0, number.span, percent=True)

    def steps(self, meta: Meta, children: Sequence[Token]) -> nodes.Number:
        return nodes.Number(self._number(children[0]).value, _span(meta), steps=True)

    def unit(self, meta: Meta, children: Sequence[Token]) -> Token:
        return children[0]

    def reference(self, meta: Meta, children: Sequence[Token]) -> nodes.Reference:
        return nodes.Reference(tuple(_word(token) for token in children), _span(meta))

    named_duration = reference

    # Expressions

    def _chain(self, meta: Meta, children: Sequence[Any], op: str | None = None) -> nodes.Expression:
        operands, ops = (children, [op] * len(children)) if op else (children[::2], [str(t) for t in children[1::2]])
        if len(operands) > _CHAIN:
            self._report("LBW104", f"expected at most {_CHAIN} operands in one chain, found {len(operands)}",
                         _span(meta), "name parts of it with `let`")  # fmt: skip
            return nodes.Broken(_span(meta))
        found = cast(nodes.Expression, operands[0])
        for sign, operand in zip(ops, operands[1:], strict=False):
            found = _binary(sign or "", found, operand)
        return found

    def either(self, meta: Meta, children: Sequence[Any]) -> nodes.Expression:
        return self._chain(meta, children, "or")

    def both(self, meta: Meta, children: Sequence[Any]) -> nodes.Expression:
        return self._chain(meta, children, "and")

    expression = either
    conjunction = both

    def addition(self, meta: Meta, children: Sequence[Any]) -> nodes.Expression:
        return self._chain(meta, children)

    product = addition

    def comparison(self, meta: Meta, children: Sequence[Any]) -> nodes.Expression:
        if len(children) > 3:
            self._report("LBW105", "comparisons do not chain", _span(meta), "write `a < b and b < c`")
            return nodes.Broken(_span(meta))
        return _binary(str(children[1]), children[0], children[2])

    def negative(self, meta: Meta, children: Sequence[Any]) -> nodes.Expression:
        sign, operand = str(children[0]), children[1]
        if sign == "+":
            return cast(nodes.Expression, operand)
        if isinstance(operand, nodes.Number):
            return nodes.Number(-operand.value, _span(meta), operand.percent, operand.steps)
        return nodes.Unary("-", operand, _span(meta))

    def inverse(self, meta: Meta, children: Sequence[Any]) -> nodes.Expression:
        return nodes.Unary("not", children[-1], _span(meta))

    def group(self, meta: Meta, children: Sequence[nodes.Expression]) -> nodes.Expression:
        return children[0]

    def call(self, meta: Meta, children: Sequence[Any]) -> nodes.Call:
        return nodes.Call(_word(children[0]), tuple(children[1:]), _span(meta))

    # Clauses

    doc = _setting("doc")
    quarantine = _setting("quarantine")
    snapshot = _setting("snapshot")
    on_failure = _setting("on_failure")
    every = _setting("every")
    missing_hold = _setting("hold")
    missing_skip = _setting("skip")
    missing_unsafe = _setting("unsafe")
    horizon = _setting("horizon")
    model = _setting("model")
    trust = _setting("trust")
    fallback = _setting("fallback")
    stay = _setting("stay")
    cooldown = _setting("cooldown")

    def features(self, meta: Meta, children: Sequence[Any]) -> nodes.Features:
        return nodes.Features(tuple(children), _span(meta))

    def alarm(self, meta: Meta, children: Sequence[Any]) -> nodes.Rate:
        return nodes.Rate(self._number(children[0]), children[1], _span(meta))

    budget = alarm

    def hold(self, meta: Meta, children: Sequence[Any]) -> nodes.Hold:
        count = self._number(children[0]) if len(children) == 2 else None
        return nodes.Hold(count, children[-1], _span(meta))

    def enter(self, meta: Meta, children: Sequence[Any]) -> nodes.Condition:
        return nodes.Condition("enter", children[0], children[1] if len(children) > 1 else None, _span(meta))

    def leave(self, meta: Meta, children: Sequence[Any]) -> nodes.Condition:
        return nodes.Condition("leave", children[0], children[1] if len(children) > 1 else None, _span(meta))

    def each(self, meta: Meta, children: Sequence[Any]) -> nodes.Each:
        return nodes.Each(children[0], children[1], _span(meta))

    # Actions

    def do(self, meta: Meta, children: Sequence[nodes.Do]) -> nodes.Do:
        return children[0]

    def skip(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("skip", _span(meta))

    def halt(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("halt", _span(meta))

    def clip(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("clip", _span(meta), children[0])

    def rollback(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("rollback", _span(meta), children[0])

    def scale_lr(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("scale_lr", _span(meta), children[0], children[1] if len(children) > 1 else None)

    def restore(self, meta: Meta, children: Sequence[nodes.Duration]) -> nodes.Duration:
        return children[0]

    def freeze(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("freeze", _span(meta), children[0], by=_word(children[1]))

    # Limits

    def _limit(self, name: str, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        budget = children[-1] if isinstance(children[-1], nodes.Rate) else None
        values = [self._number(child) if isinstance(child, Token) else child for child in children]
        return nodes.Limit(name, tuple(v for v in values if not isinstance(v, nodes.Rate)), budget, _span(meta))

    def limit_scale_lr(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("scale_lr", meta, children)

    def limit_skip(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("skip", meta, children)

    def limit_clip(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("clip", meta, children)

    def limit_rollback(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("rollback", meta, children)

    def limit_freeze(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("freeze", meta, children)

    def limit_intervene(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("intervene", meta, children)

    # Statements

    def policy(self, meta: Meta, children: Sequence[Any]) -> nodes.Policy:
        return nodes.Policy(_word(children[0]), tuple(children[1:]), _span(meta))

    def param(self, meta: Meta, children: Sequence[Any]) -> nodes.Param:
        name, unit, low, high, value = children
        return nodes.Param(_word(name), _word(unit), low, high, value, _span(meta))

    def signal(self, meta: Meta, children: Sequence[Any]) -> nodes.Signal:
        return nodes.Signal(_word(children[0]), children[1], tuple(children[2:]), _span(meta))

    def let(self, meta: Meta, children: Sequence[Any]) -> nodes.Let:
        return nodes.Let(_word(children[0]), children[1], _span(meta))

    def risk(self, meta: Meta, children: Sequence[Any]) -> nodes.Risk:
        return nodes.Risk(_word(children[0]), tuple(children[1:]), _span(meta))

    def reflex(self, meta: Meta, children: Sequence[Any]) -> nodes.Reflex:
        return nodes.Reflex(_word(children[0]), children[1], tuple(children[2:]), _span(meta))

    def levels(self, meta: Meta, children: Sequence[Any]) -> nodes.Levels:
        return nodes.Levels(tuple(_word(token) for token in children), _span(meta))

    def level(self, meta: Meta, children: Sequence[Any]) -> nodes.Level:
        return nodes.Level(_word(children[0]), tuple(children[1:]), _span(meta))

    def limits(self, meta: Meta, children: Sequence[Any]) -> nodes.Limits:
        return nodes.Limits(tuple(children), _span(meta))

    def alert(self, meta: Meta, children: Sequence[Any]) -> nodes.Alert:
        hold = children[3] if isinstance(children[3], nodes.Hold) else None
        name, severity = _word(children[0]), _word(children[1])
        return nodes.Alert(name, severity, children[2], hold, unquote(children[-1]), _span(meta))


def _binary(op: str, left: nodes.Expression, right: nodes.Expression) -> nodes.Binary:
    return nodes.Binary(op, left, right, left.span.join(right.span))
