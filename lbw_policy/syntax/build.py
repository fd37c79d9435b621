"""Lark's parse tree -> nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from attrs import evolve
from lark import Token, v_args
from lark.tree import Meta

from lbw_policy.syntax import nodes
from lbw_policy.syntax.build_tests import TestBuilder
from lbw_policy.syntax.words import span_of, span_of_rule, unquote, word_of

_CHAIN = 64
"""How many operands one chain such as `a + b + c` may have; keeps trees shallow."""


Build = Callable[["TreeBuilder", Meta, Sequence[Any]], nodes.Setting]


def _setting(name: str) -> Build:
    def build(_self: TreeBuilder, meta: Meta, children: Sequence[Any]) -> nodes.Setting:
        value = children[0] if children else None
        if isinstance(value, Token):
            value = unquote(value) if value.type == "STRING" else word_of(value)
        return nodes.Setting(name, value, span_of_rule(meta))

    return build


@v_args(meta=True)
class TreeBuilder(TestBuilder):
    """Turns each rule of the grammar into its node; reports literals that cannot be read."""

    def start(self, meta: Meta, children: Sequence[Any]) -> nodes.Tree:
        edition = children[0] if children and isinstance(children[0], nodes.Edition) else None
        statements = [child for child in children if isinstance(child, nodes.Statement)]
        return nodes.Tree(edition, tuple(statements))

    def edition(self, meta: Meta, children: Sequence[Any]) -> nodes.Edition:
        return nodes.Edition(self._number(children[0]), span_of_rule(meta))

    # Literals and names

    def _number(self, token: Token, **kind: bool) -> nodes.Number:
        value = float(str(token).rstrip("%").replace("_", ""))
        if math.isinf(value):
            self._report("LBW107", "the number is too large", span_of(token), "write one below 1e308")
            value = 0.0
        return nodes.Number(value, span_of(token), **kind)

    def number(self, meta: Meta, children: Sequence[Token]) -> nodes.Number:
        return self._number(children[0])

    def percent(self, meta: Meta, children: Sequence[Token]) -> nodes.Number:
        number = self._number(children[0])
        return nodes.Number(number.value / 100.0, number.span, percent=True)

    def steps(self, meta: Meta, children: Sequence[Token]) -> nodes.Number:
        return nodes.Number(self._number(children[0]).value, span_of_rule(meta), steps=True)

    def unit(self, meta: Meta, children: Sequence[Token]) -> Token:
        return children[0]

    def reference(self, meta: Meta, children: Sequence[Token]) -> nodes.Reference:
        return nodes.Reference(tuple(word_of(token) for token in children), span_of_rule(meta))

    named_duration = reference

    # Expressions

    def _chain(self, meta: Meta, children: Sequence[Any], op: str | None = None) -> nodes.Expression:
        operands, ops = (children, [op] * len(children)) if op else (children[::2], [str(t) for t in children[1::2]])
        if len(operands) > _CHAIN:
            self._report("LBW104", f"expected at most {_CHAIN} operands in one chain, found {len(operands)}",
                         span_of_rule(meta), "name parts of it with `let`")  # fmt: skip
            return nodes.Broken(span_of_rule(meta))
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
            self._report("LBW105", "comparisons do not chain", span_of_rule(meta), "write `a < b and b < c`")
            return nodes.Broken(span_of_rule(meta))
        return _binary(str(children[1]), children[0], children[2])

    def negative(self, meta: Meta, children: Sequence[Any]) -> nodes.Expression:
        sign, operand = str(children[0]), children[1]
        if sign == "+":
            return cast(nodes.Expression, operand)
        if isinstance(operand, nodes.Number):
            return nodes.Number(-operand.value, span_of_rule(meta), operand.percent, operand.steps)
        return nodes.Unary("-", operand, span_of_rule(meta))

    def inverse(self, meta: Meta, children: Sequence[Any]) -> nodes.Expression:
        return nodes.Unary("not", children[-1], span_of_rule(meta))

    def parenthesis(self, meta: Meta, children: Sequence[nodes.Expression]) -> nodes.Expression:
        return children[0]

    def call(self, meta: Meta, children: Sequence[Any]) -> nodes.Call:
        return nodes.Call(word_of(children[0]), tuple(children[1:]), span_of_rule(meta))

    # Clauses

    doc = _setting("doc")
    extends = _setting("extends")
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
    settles = _setting("settles")
    cooldown = _setting("cooldown")

    def features(self, meta: Meta, children: Sequence[Any]) -> nodes.Features:
        return nodes.Features(tuple(children), span_of_rule(meta))

    def alarm(self, meta: Meta, children: Sequence[Any]) -> nodes.Rate:
        return nodes.Rate(self._number(children[0]), children[1], span_of_rule(meta))

    budget = alarm

    def hold(self, meta: Meta, children: Sequence[Any]) -> nodes.Hold:
        count = self._number(children[0]) if len(children) == 2 else None
        return nodes.Hold(count, children[-1], span_of_rule(meta))

    def enter(self, meta: Meta, children: Sequence[Any]) -> nodes.Condition:
        return nodes.Condition("enter", children[0], children[1] if len(children) > 1 else None, span_of_rule(meta))

    def leave(self, meta: Meta, children: Sequence[Any]) -> nodes.Condition:
        return nodes.Condition("leave", children[0], children[1] if len(children) > 1 else None, span_of_rule(meta))

    def each(self, meta: Meta, children: Sequence[Any]) -> nodes.Each:
        return nodes.Each(children[0], children[1], span_of_rule(meta))

    # Actions

    def do(self, meta: Meta, children: Sequence[nodes.Do]) -> nodes.Do:
        return evolve(children[0], otherwise=tuple(children[1:]))

    def instead(self, meta: Meta, children: Sequence[nodes.Do]) -> nodes.Do:
        return children[0]

    def skip(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("skip", span_of_rule(meta))

    def halt(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("halt", span_of_rule(meta))

    def clip(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("clip", span_of_rule(meta), children[0])

    def clip_layers(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("clip", span_of_rule(meta), children[0], layers=True)

    def rollback(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("rollback", span_of_rule(meta), children[0])

    def scale_lr(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("scale_lr", span_of_rule(meta), children[0], children[1] if len(children) > 1 else None)

    def restore(self, meta: Meta, children: Sequence[nodes.Duration]) -> nodes.Duration:
        return children[0]

    def freeze(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        share, group, by = children
        return nodes.Do("freeze", span_of_rule(meta), share, by=word_of(by), group=group)

    def group(self, meta: Meta, children: Sequence[Token]) -> nodes.Word | None:
        return word_of(children[0]) if children else None

    def reset_moments(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("reset_moments", span_of_rule(meta))

    def checkpoint(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do("checkpoint", span_of_rule(meta))

    def plugin(self, meta: Meta, children: Sequence[Any]) -> nodes.Do:
        return nodes.Do(str(children[0]), span_of_rule(meta), children[1] if len(children) > 1 else None)

    # Limits

    def _limit(self, name: str, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        budget = children[-1] if isinstance(children[-1], nodes.Rate) else None
        values = [self._number(child) if isinstance(child, Token) else child for child in children]
        return nodes.Limit(name, tuple(v for v in values if not isinstance(v, nodes.Rate)), budget, span_of_rule(meta))

    def limit_scale_lr(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("scale_lr", meta, children)

    def limit_skip(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("skip", meta, children)

    def limit_clip(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("clip", meta, children)

    def limit_rollback(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        spacing = children[2] if len(children) > 2 else None
        return evolve(self._limit("rollback", meta, children[:2]), spacing=spacing)

    def spacing(self, meta: Meta, children: Sequence[nodes.Duration]) -> nodes.Duration:
        return children[0]

    def limit_freeze(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("freeze", meta, children)

    def limit_reset_moments(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("reset_moments", meta, children)

    def limit_checkpoint(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("checkpoint", meta, children)

    def limit_plugin(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit(str(children[0]), meta, children[1:])

    def limit_intervene(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("intervene", meta, children)

    def limit_overhead(self, meta: Meta, children: Sequence[Any]) -> nodes.Limit:
        return self._limit("overhead", meta, children)

    # Statements

    def note(self, meta: Meta, children: Sequence[Token]) -> nodes.Note:
        return nodes.Note(word_of(children[-2]), unquote(children[-1]), span_of_rule(meta))

    def noted(self, meta: Meta, children: Sequence[Any]) -> nodes.Statement:
        return cast(nodes.Statement, evolve(children[-1], notes=tuple(children[:-1])))

    def importing(self, meta: Meta, children: Sequence[Token]) -> nodes.Import:
        return nodes.Import(unquote(children[0]), span_of_rule(meta))

    def globs(self, meta: Meta, children: Sequence[Token]) -> tuple[nodes.Word, ...]:
        return tuple(unquote(token) for token in children)

    def excepted(self, meta: Meta, children: Sequence[Any]) -> tuple[nodes.Word, ...]:
        return cast(tuple[nodes.Word, ...], children[0])

    def layers(self, meta: Meta, children: Sequence[Any]) -> nodes.Layers:
        excepted = children[2] if len(children) > 2 else ()
        return nodes.Layers(word_of(children[0]), children[1], excepted, span_of_rule(meta))

    def policy(self, meta: Meta, children: Sequence[Any]) -> nodes.Policy:
        return nodes.Policy(word_of(children[0]), tuple(children[1:]), span_of_rule(meta))

    def param(self, meta: Meta, children: Sequence[Any]) -> nodes.Param:
        name, unit, low, high, value = children
        return nodes.Param(word_of(name), word_of(unit), low, high, value, span_of_rule(meta))

    def signal(self, meta: Meta, children: Sequence[Any]) -> nodes.Signal:
        name, source, *clauses = children
        group = clauses.pop(0) if clauses and isinstance(clauses[0], nodes.Word) else None
        return nodes.Signal(word_of(name), source, tuple(clauses), span_of_rule(meta), group=group)

    def taken_over(self, meta: Meta, children: Sequence[Token]) -> nodes.Word:
        return word_of(children[0])

    def let(self, meta: Meta, children: Sequence[Any]) -> nodes.Let:
        return nodes.Let(word_of(children[0]), children[1], span_of_rule(meta))

    def risk(self, meta: Meta, children: Sequence[Any]) -> nodes.Risk:
        return nodes.Risk(word_of(children[0]), tuple(children[1:]), span_of_rule(meta))

    def reflex(self, meta: Meta, children: Sequence[Any]) -> nodes.Reflex:
        return nodes.Reflex(word_of(children[0]), children[1], tuple(children[2:]), span_of_rule(meta))

    def levels(self, meta: Meta, children: Sequence[Any]) -> nodes.Levels:
        return nodes.Levels(tuple(word_of(token) for token in children), span_of_rule(meta))

    def level(self, meta: Meta, children: Sequence[Any]) -> nodes.Level:
        return nodes.Level(word_of(children[0]), tuple(children[1:]), span_of_rule(meta))

    def limits(self, meta: Meta, children: Sequence[Any]) -> nodes.Limits:
        return nodes.Limits(tuple(children), span_of_rule(meta))

    def require(self, meta: Meta, children: Sequence[Any]) -> nodes.Require:
        hold = children[1] if isinstance(children[1], nodes.Hold) else None
        return nodes.Require(children[0], hold, children[-1], span_of_rule(meta))

    def otherwise_alert(self, meta: Meta, children: Sequence[Token]) -> nodes.Otherwise:
        severity = next((word_of(token) for token in children if token.type == "NAME"), None)
        message = next((unquote(token) for token in children if token.type == "STRING"), None)
        return nodes.Otherwise(severity, message, span_of_rule(meta))

    def alert(self, meta: Meta, children: Sequence[Any]) -> nodes.Alert:
        hold = children[3] if isinstance(children[3], nodes.Hold) else None
        name, severity = word_of(children[0]), word_of(children[1])
        return nodes.Alert(name, severity, children[2], hold, unquote(children[-1]), span_of_rule(meta))


def _binary(op: str, left: nodes.Expression, right: nodes.Expression) -> nodes.Binary:
    return nodes.Binary(op, left, right, left.span.join(right.span))
