"""Holds an expectation against a run: did it come true, and if not, what was found where."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from lbw_policy.semantics import trial as t
from lbw_policy.trials.trace import Moment, Trace

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_MOST_STEPS = 6
"""How many steps a sentence names before it stops counting them."""


@frozen
class Verdict:
    """Whether an expectation came true; if not, what was found, and the ticks to look at."""

    expectation: t.Expectation
    passed: bool
    expected: str = ""
    found: str = ""
    ticks: tuple[int, ...] = ()


def judge(expectation: t.Expectation, trace: Trace) -> Verdict:
    """Return the verdict on one expectation."""
    claim = expectation.claim
    if isinstance(claim, t.Happens):
        return _count(expectation, claim, trace)
    return _during(expectation, claim, trace)


# How often something happens


def _count(expectation: t.Expectation, claim: t.Happens, trace: Trace) -> Verdict:
    ticks = tuple(moment.tick for moment in trace.moments if moment.happens(claim.kind, claim.name))
    enough = claim.least is None or len(ticks) >= claim.least
    if enough and (claim.most is None or len(ticks) <= claim.most):
        return Verdict(expectation, passed=True)
    found = f"{_times(len(ticks))}{_at(ticks)}" if ticks else "never"
    refused = tuple(moment.tick for moment in trace.moments if claim.kind == "action" and moment.refuses(claim.name))
    if refused:
        found += f"; refused {_times(len(refused))}{_at(refused)}"
    expected = f"{_subject(claim)} {_amount(claim)}"
    return Verdict(expectation, False, expected, found, tuple(sorted({*ticks, *(() if enough else refused)})))


def _subject(claim: t.Happens) -> str:
    return f"`{claim.name}`" if claim.kind == "action" else f"{claim.kind} `{claim.name}`"


def _amount(claim: t.Happens) -> str:
    if claim.most == 0:
        return "never"
    if claim.least == claim.most:
        return _times(claim.most or 0)
    return f"at least {_times(claim.least)}" if claim.least is not None else f"at most {_times(claim.most or 0)}"


def _times(count: int) -> str:
    return f"{count} time{'s' * (count != 1)}"


def _at(ticks: Sequence[int]) -> str:
    more = f" and {len(ticks) - _MOST_STEPS} more" if len(ticks) > _MOST_STEPS else ""
    return f", at step{'s' * (len(ticks) != 1)} {', '.join(str(tick) for tick in ticks[:_MOST_STEPS])}{more}"


# Where the run stands, and at what values


def _during(expectation: t.Expectation, claim: t.Stands | t.Compares, trace: Trace) -> Verdict:
    during = claim.during
    moments = trace.moments[during.first : during.last + 1]
    wrong = [moment for moment in moments if not _holds(claim, moment)]
    if moments and (len(wrong) < len(moments) if during.any else not wrong):
        return Verdict(expectation, passed=True)
    expected = _wanted(claim)
    if not moments:
        last = trace.moments[-1].tick
        return Verdict(expectation, False, expected, f"the run had halted at step {last}", (last,))
    return Verdict(expectation, False, expected, _found(claim, wrong), (wrong[0].tick,))


def _holds(claim: t.Stands | t.Compares, moment: Moment) -> bool:
    if isinstance(claim, t.Stands):
        return moment.level == claim.level
    return _COMPARE[claim.op](_value(claim, moment), claim.value)


def _value(claim: t.Compares, moment: Moment) -> float:
    return moment.scale if claim.name == "scale_lr" else float(moment.progress)


def _wanted(claim: t.Stands | t.Compares) -> str:
    what = f"level `{claim.level}`" if isinstance(claim, t.Stands) else f"`{claim.name}` {claim.op} {claim.value:g}"
    first, last = claim.during.first, claim.during.last
    if first == last and not claim.during.any:
        return f"{what} at step {first}"
    return f"{what} {'at some' if claim.during.any else 'at every'} step from {first} to {last}"


def _found(claim: t.Stands | t.Compares, wrong: Sequence[Moment]) -> str:
    """Say what stood at the first miss, and for how long."""
    shown, last = _shown(claim, wrong[0]), wrong[0]
    for moment in wrong[1:]:
        if moment.tick != last.tick + 1 or _shown(claim, moment) != shown:
            break
        last = moment
    place = f"at step {last.tick}" if last is wrong[0] else f"from step {wrong[0].tick} to {last.tick}"
    later = len(wrong) - (last.tick - wrong[0].tick + 1)
    return f"{shown} {place}" + (f", and otherwise at {later} step{'s' * (later != 1)} more" if later else "")


def _shown(claim: t.Stands | t.Compares, moment: Moment) -> str:
    if isinstance(claim, t.Stands):
        return f"level `{moment.level}`"
    return f"`{claim.name}` = {_value(claim, moment):g}"
