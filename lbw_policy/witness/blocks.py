"""A checked test -> the text of it, as it would stand in a policy file."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lbw_policy.semantics import trial as t
from lbw_policy.semantics.policy import Place
from lbw_policy.semantics.spelling import amount, share, steps
from lbw_policy.syntax.formatter import format_text

_HEAD = "lbw 1\n\npolicy p { }\n\n"
NOWHERE = Place("", 0)
"""Where a test stands that no file has."""


def block(trial: t.Trial) -> str:
    """Return a test as a `test` block in canonical layout.

    Appended to the policy's text it parses back to the same test, places apart, and so gives the same outcome.
    Raises ValueError where the language has no words for a claim: a count with two different bounds, a stretch of
    steps at each of which something must hold.
    """
    return format_text(_HEAD + "\n".join(_lines(trial))).removeprefix(_HEAD)


def expectation(claim: t.Claim, ticks: int) -> t.Expectation:
    """Return an expectation of a run of `ticks` ticks that no file has; raises ValueError as `block` does."""
    return t.Expectation(claim, sentence(claim, ticks), NOWHERE)


def sentence(claim: t.Claim, ticks: int) -> str:
    """Return a claim on a run of `ticks` ticks as a test writes it after `expect`."""
    match claim:
        case t.Happens(kind, name):
            return _counted(name if kind == "action" else f"{kind} {name}", claim)
        case t.Stands(level, during):
            return f"level {level} {_moment(during, ticks)}"
        case t.Compares(name, op, value, during):
            return f"{name} {op} {_number(value)} {_moment(during, ticks)}"


def _lines(trial: t.Trial) -> Iterator[str]:
    yield f"test {_quoted(trial.name)} {{"
    yield from (f"given {series.title} = {', '.join(_stretches(series))}" for series in trial.given)
    yield from (f"expect {sentence(one.claim, trial.ticks)}" for one in trial.expectations)
    yield "}\n"


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


# Series


def _stretches(series: t.Series) -> Iterator[str]:
    for stretch in series.stretches:
        text = _sample(stretch, series.part)
        yield text if stretch.ticks == 1 else f"{text} x {stretch.ticks:_}"


def _sample(stretch: t.Stretch, part: str) -> str:
    numbers = [_number(value, part) for value in stretch.values]
    match stretch.kind:
        case "missing":
            return "missing"
        case "value":
            return numbers[0]
        case "noise" if stretch.seed:
            return f"noise({', '.join(numbers)}, seed {stretch.seed:_})"
        case kind:
            return f"{kind}({', '.join(numbers)})"


def _number(value: float, part: str = "") -> str:
    if value == 0 and math.copysign(1.0, value) < 0:
        return "-0.0"
    return share(value) if part == t.PROBABILITY and math.isfinite(value) else amount(value)


# Claims


def _counted(subject: str, claim: t.Happens) -> str:
    if claim.least == claim.most == 0:
        return f"no {subject}"
    if claim.least == claim.most and claim.most is not None:
        return f"{subject} {_times(claim.most)}"
    if claim.most is None and claim.least is not None:
        return f"{subject} at least {_times(claim.least)}"
    if claim.least is None and claim.most is not None:
        return f"{subject} at most {_times(claim.most)}"
    raise ValueError(f"expected a count or one bound of it, found {claim.least} to {claim.most}")


def _times(count: int) -> str:
    return f"{count:_} time{'s' * (count != 1)}"


def _moment(during: t.During, ticks: int) -> str:
    if during.any and (during.last > during.first or during.last == ticks - 1):
        return f"within {steps(max(1, during.last - during.first))} after step {during.first:_}"
    if during.first == during.last:
        return f"at step {during.first:_}"
    if (during.first, during.last, during.any) == (0, ticks - 1, False):
        return "throughout"
    raise ValueError(f"expected one step, the whole run or some step of several, found {during}")
