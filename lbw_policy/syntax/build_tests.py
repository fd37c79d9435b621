"""Lark's parse tree -> the nodes of `test` blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lark import Token, v_args
from lark.tree import Meta
from lark.visitors import Transformer_NonRecursive

from lbw_policy.diagnostics import Diagnostic, Source, Span
from lbw_policy.syntax import nodes
from lbw_policy.syntax.words import span_of, span_of_rule, unquote, word_of

_MOST_TICKS = 1_000_000


@v_args(meta=True)
class TestBuilder(Transformer_NonRecursive[Token, Any]):
    """Builds series and expectations; the rest of the language is `TreeBuilder`'s."""

    def __init__(self, source: Source) -> None:
        super().__init__(visit_tokens=False)
        self.source = source
        self.diagnostics: list[Diagnostic] = []

    def _report(self, code: str, message: str, span: Span, advice: str) -> None:
        self.diagnostics.append(Diagnostic(code, message, self.source, span, advice))

    def _whole(self, token: Token) -> int:
        """Return a whole number of ticks or times; report any other."""
        value = float(str(token).replace("_", "") or "0")
        if value % 1 or value > _MOST_TICKS:
            self._report("LBW108", f"expected a whole number up to {_MOST_TICKS:_}, found `{token}`", span_of(token),
                         "ticks and times are counted")  # fmt: skip
            return 1
        return int(value)

    def test(self, meta: Meta, children: Sequence[Any]) -> nodes.Test:
        return nodes.Test(unquote(children[0]), tuple(children[1:]), span_of_rule(meta))

    # Series

    def given(self, meta: Meta, children: Sequence[Any]) -> nodes.Given:
        return nodes.Given(children[0], tuple(children[1:]), span_of_rule(meta))

    def series(self, meta: Meta, children: Sequence[Any]) -> nodes.Sample:
        sample, span = children[0], span_of_rule(meta)
        repeat = self._whole(children[1]) if len(children) > 1 else 1
        if isinstance(sample, nodes.Number):
            return nodes.Sample("value", (sample.value,), repeat, span)
        kind, values, seed = sample
        return nodes.Sample(kind, values, repeat, span, seed)

    def nan(self, meta: Meta, children: Sequence[Any]) -> nodes.Number:
        return nodes.Number(math.nan, span_of_rule(meta))

    def inf(self, meta: Meta, children: Sequence[Any]) -> nodes.Number:
        return nodes.Number(math.inf, span_of_rule(meta))

    def signed_inf(self, meta: Meta, children: Sequence[Token]) -> nodes.Number:
        return nodes.Number(math.inf if children[0] == "+" else -math.inf, span_of_rule(meta))

    def gap(self, meta: Meta, children: Sequence[Any]) -> tuple[str, tuple[float, ...], int]:
        return "missing", (), 0

    def ramp(self, meta: Meta, children: Sequence[nodes.Number]) -> tuple[str, tuple[float, ...], int]:
        return "ramp", tuple(number.value for number in children), 0

    def noise(self, meta: Meta, children: Sequence[Any]) -> tuple[str, tuple[float, ...], int]:
        seed = self._whole(children[2]) if len(children) > 2 else 0
        return "noise", (children[0].value, children[1].value), seed

    # Expectations

    def expect(self, meta: Meta, children: Sequence[nodes.Expect]) -> nodes.Expect:
        return children[0]

    def expect_none(self, meta: Meta, children: Sequence[nodes.Subject]) -> nodes.Expect:
        return nodes.Expect("count", span_of_rule(meta), children[0], 0, 0)

    def expect_count(self, meta: Meta, children: Sequence[Any]) -> nodes.Expect:
        subject, (least, most) = children
        return nodes.Expect("count", span_of_rule(meta), subject, least, most)

    def expect_level(self, meta: Meta, children: Sequence[Any]) -> nodes.Expect:
        return nodes.Expect("level", span_of_rule(meta), word=word_of(children[0]), moment=children[1])

    def expect_value(self, meta: Meta, children: Sequence[Any]) -> nodes.Expect:
        name, op, bound, moment = children
        return nodes.Expect(
            "value", span_of_rule(meta), word=word_of(name), op=str(op), value=bound.value, moment=moment
        )

    def subject(self, meta: Meta, children: Sequence[Token]) -> nodes.Subject:
        return nodes.Subject("action", word_of(children[0]), span_of_rule(meta))

    def reflex_subject(self, meta: Meta, children: Sequence[Token]) -> nodes.Subject:
        return nodes.Subject("reflex", word_of(children[0]), span_of_rule(meta))

    def alert_subject(self, meta: Meta, children: Sequence[Token]) -> nodes.Subject:
        return nodes.Subject("alert", word_of(children[0]), span_of_rule(meta))

    def exactly(self, meta: Meta, children: Sequence[Token]) -> tuple[int, int]:
        return self._whole(children[0]), self._whole(children[0])

    def at_most(self, meta: Meta, children: Sequence[Token]) -> tuple[int | None, int | None]:
        return None, self._whole(children[0])

    def at_least(self, meta: Meta, children: Sequence[Token]) -> tuple[int | None, int | None]:
        return self._whole(children[0]), None

    def times(self, meta: Meta, children: Sequence[Token]) -> Token:
        return children[0]

    def throughout(self, meta: Meta, children: Sequence[Any]) -> nodes.Moment:
        return nodes.Moment("throughout", span_of_rule(meta))

    def at_step(self, meta: Meta, children: Sequence[Token]) -> nodes.Moment:
        return nodes.Moment("at", span_of_rule(meta), self._whole(children[0]))

    def within(self, meta: Meta, children: Sequence[Any]) -> nodes.Moment:
        after = self._whole(children[1]) if len(children) > 1 else 0
        return nodes.Moment("within", span_of_rule(meta), after, children[0])
