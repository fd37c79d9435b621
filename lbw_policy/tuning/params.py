"""The params that may be tuned: their ranges, how their values are written, and the policy with other values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from attrs import frozen

from lbw_policy.diagnostics import Source, Span, nearest
from lbw_policy.errors import TuneError
from lbw_policy.semantics.policy import Param, Policy
from lbw_policy.syntax import nodes, parse
from lbw_policy.syntax.formatter import format_text
from lbw_policy.tuning.subject import Subject

Setting = Mapping[str, float]
"""A value for each tunable param, by name."""
DIGITS = 3
"""Significant digits of a chosen value: more would be precision that no recorded run can give."""
_WHOLE = frozenset({"steps", "count"})
_DECADE = 10.0
_LEAST = -400
"""A decimal place that no float reaches."""


@frozen
class Tunable:
    """A param whose value stands in the policy's own file as a literal, at `span`.

    `low` and `high` are its range, whole numbers where `whole`; `value` is what it has now. `percent` and `steps`
    tell how its values are written.
    """

    name: str
    low: float
    high: float
    value: float
    span: Span
    whole: bool = False
    percent: bool = False
    steps: bool = False

    @property
    def logarithmic(self) -> bool:
        """Whether the range spans a decade or more, so that equal factors are equally far apart in it."""
        return self.low > 0 and self.high >= _DECADE * self.low

    def snapped(self, value: float) -> float:
        """Return the value nearby that is written in few digits and lies in the range."""
        if self.whole:
            return min(max(float(round(value)), self.low), self.high)
        for rounding in (ROUND_HALF_EVEN, ROUND_CEILING, ROUND_FLOOR):
            found = self._number(self._rounded(value, rounding))
            if self.low <= found <= self.high:
                return found
        return min(max(value, self.low), self.high)

    def literal(self, value: float) -> str:
        """Return a value as a policy writes it; read back, it is the same number."""
        if self.steps:
            return f"{int(value):_} step{'s' * (value != 1)}"
        texts = (self._rounded(value, ROUND_HALF_EVEN), _plain(self._shown(value)))
        exact = (text + "%" * self.percent for text in texts if self._number(text) == value)
        return next(exact, _plain(Decimal(repr(value))))  # not every number is a percentage, read back

    def distance(self, value: float) -> float:
        """Return how far a value is from the present one, as a share of the range."""
        return abs(self._place(value) - self._place(self.value))

    def moved(self, share: float) -> float:
        """Return the value that lies a share of the range from the present one, or the end of the range."""
        low, high = self._ends()
        at = low + min(max(self._place(self.value) + share, 0.0), 1.0) * (high - low)
        return self.snapped(min(max(math.exp(at) if self.logarithmic else at, self.low), self.high))

    def _place(self, value: float) -> float:
        low, high = self._ends()
        return ((math.log(value) if self.logarithmic else value) - low) / (high - low)

    def _ends(self) -> tuple[float, float]:
        return (math.log(self.low), math.log(self.high)) if self.logarithmic else (self.low, self.high)

    def _shown(self, value: float) -> Decimal:
        return Decimal(repr(value)) * (100 if self.percent else 1)

    def _rounded(self, value: float, rounding: str) -> str:
        exact = self._shown(value)
        place = max(exact.adjusted() - DIGITS + 1, self._finest())
        return _plain(exact.quantize(Decimal(1).scaleb(place), rounding) if exact else exact)

    def _finest(self) -> int:
        """Return the finest decimal place that matters: near zero, a linear range has more than significant digits."""
        return _LEAST if self.logarithmic else self._shown(self.high - self.low).adjusted() - DIGITS - 1

    def _number(self, text: str) -> float:
        return float(text) / (100.0 if self.percent else 1.0)


def _plain(number: Decimal) -> str:
    """Return a number without an exponent, its thousands apart."""
    whole, dot, rest = f"{number.copy_abs():f}".partition(".")
    sign = "-" if number < 0 else ""
    return (sign + f"{int(whole):_}" + dot + rest).rstrip("0").rstrip(".") if dot else f"{sign}{int(whole):_}"


@frozen
class Space:
    """The params to tune, in the order of the policy, and those left alone with the reason."""

    params: tuple[Tunable, ...]
    left: Mapping[str, str]

    @property
    def present(self) -> Setting:
        """The values that the policy has now."""
        return {one.name: one.value for one in self.params}

    def distance(self, setting: Setting) -> float:
        """Return how far a setting is from the present one: the root of the sum of squared shares of the ranges."""
        return math.hypot(*(one.distance(setting[one.name]) for one in self.params))


def space(subject: Subject, only: Sequence[str] = ()) -> Space:
    """Return what of a policy can be tuned; with `only`, these params alone.

    Raises TuneError where there is nothing to tune, or `only` names what the policy does not have or cannot be tuned.
    """
    policy = subject.policy
    found = {one.name: one for one in _tunables(policy, subject.source)}
    left = {param.name: _why(found.get(param.name)) for param in policy.params}
    left = {name: reason for name, reason in left.items() if reason}
    wrong = [_wrong(name, policy, left) for name in only]
    if any(wrong):
        raise TuneError("\n".join(line for line in wrong if line))
    chosen = tuple(one for name, one in found.items() if name not in left and (not only or name in only))
    if not chosen:
        reasons = "; ".join(f"`{name}` {reason}" for name, reason in left.items()) or "it declares none"
        raise TuneError(f"policy `{policy.name}` has no param to tune: {reasons}")
    return Space(chosen, left | {name: "was not asked for" for name in found if only and name not in only})


def _tunables(policy: Policy, source: Source) -> Iterator[Tunable]:
    params = {param.name: param for param in policy.params}
    for node in parse(source).tree.statements:
        if isinstance(node, nodes.Param) and isinstance(node.value, nodes.Number) and node.name.text in params:
            yield _tunable(params[node.name.text], node, node.value)


def _tunable(param: Param, node: nodes.Param, value: nodes.Number) -> Tunable:
    whole = node.unit.text in _WHOLE
    low, high = (math.ceil(param.low), math.floor(param.high)) if whole else (param.low, param.high)
    return Tunable(param.name, low, high, param.value, value.span, whole, value.percent, value.steps)


def _why(found: Tunable | None) -> str:
    """Return why a param is left alone; empty where it is not."""
    if found is None:
        return "is declared in another file"
    return "" if found.low < found.high else "has one possible value"


def _wrong(name: str, policy: Policy, left: Mapping[str, str]) -> str:
    known = [param.name for param in policy.params]
    if name in left:
        return f"param `{name}` cannot be tuned: it {left[name]}"
    if name in known:
        return ""
    near = nearest(name, known)
    advice = f"did you mean `{near}`?" if near else f"the policy has {', '.join(f'`{one}`' for one in known) or 'none'}"
    return f"unknown param `{name}`; {advice}"


def rewritten(subject: Subject, tuned: Space, setting: Setting) -> str:
    """Return the policy's text in canonical layout with these values as defaults; nothing else of it changes."""
    text = subject.source.text
    # INVARIANT: spans are of the text as it was, so that the last one is replaced first.
    for one in sorted(tuned.params, key=lambda each: each.span.start, reverse=True):
        if setting[one.name] != one.value:
            text = text[: one.span.start] + one.literal(setting[one.name]) + text[one.span.end :]
    return format_text(text, subject.source.name)
