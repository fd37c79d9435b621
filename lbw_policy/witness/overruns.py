"""What a run has done beyond a limit, as a claim that does not hold of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from lbw_policy.claims import Claim
from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.walk import chain, first_actions
from lbw_policy.trials.trace import Trace

Claims = Callable[[Trace], Sequence[t.Claim]]
DEFAULT_WINDOW = 1_000
_FREE = ("halt", "checkpoint")


def window_of(claim: Claim) -> int:
    """Return the number of steps that a claim's unit speaks of."""
    found = re.search(r"([0-9][0-9_]*) steps?", claim.unit)
    return int(found[1].replace("_", "")) if found else DEFAULT_WINDOW


def beyond(claim: Claim) -> Claims | None:
    """Return what finds a run beyond the limit a claim is about; None where no test has words for it."""
    bound = claim.bound if claim.bound is not None else math.inf
    special = {"skip in a row": _in_a_row, "rollback distance": _distance, "scale_lr": _factor}.get(claim.about)
    if special is not None:
        return lambda trace: list(special(trace, bound))
    if claim.about == "rollback spacing":
        return lambda trace: list(_count(trace, "rollback", 1, int(bound)))
    if claim.about == "intervene":
        return lambda trace: list(_any_count(trace, int(bound), window_of(claim)))
    budgeted = claim.unit.startswith("per ")
    return (lambda trace: list(_count(trace, claim.about, int(bound), window_of(claim)))) if budgeted else None


def _count(trace: Trace, action: str, count: int, window: int) -> Iterator[t.Claim]:
    ticks = [moment.tick for moment in trace.moments if moment.begins(action)]
    allowed = count * math.ceil(len(trace.moments) / window)
    if len(ticks) > allowed:
        yield t.Happens("action", action, None, allowed)


def _any_count(trace: Trace, count: int, window: int) -> Iterator[t.Claim]:
    """Claim a count of the one action that alone goes beyond the budget of all."""
    asked = {grant.request.action for moment in trace.moments for grant in moment.grants}
    for action in sorted(asked - {*_FREE}):
        yield from _count(trace, action, count, window)


def _in_a_row(trace: Trace, most: float) -> Iterator[t.Claim]:
    row = 0
    for before, moment in zip(trace.moments, trace.moments[1:], strict=False):
        row = row + 1 if moment.begins("skip") else row if moment.progress <= before.progress else 0
        if row > most:
            yield _reaches(moment.progress + 1, moment.tick)
            return


def _distance(trace: Trace, most: float) -> Iterator[t.Claim]:
    top = 0
    for moment in trace.moments:
        top = max(top, moment.progress)
        if moment.progress < top - most:
            yield _reaches(top - int(most), moment.tick)
            return


def _factor(trace: Trace, low: float) -> Iterator[t.Claim]:
    if any(moment.scale < low for moment in trace.moments):
        yield t.Compares("scale_lr", ">=", low, t.During(0, len(trace.moments) - 1))


def gains_less(span: int, gain: int) -> Claims:
    """Return what finds `span` ticks of a run over which progress grows by less than `gain`."""

    def claims(trace: Trace) -> Sequence[t.Claim]:
        for start, end in zip(trace.moments, trace.moments[span:], strict=False):
            if end.progress - start.progress < gain:
                return (_reaches(start.progress + gain, end.tick),)
        return ()

    return claims


def stalled(span: int) -> Claims:
    """Return what finds `span` ticks in a row of a run that all end without an accepted update."""

    def claims(trace: Trace) -> Sequence[t.Claim]:
        since = 0
        for before, moment in zip(trace.moments, trace.moments[1:], strict=False):
            since = since if moment.progress <= before.progress else moment.tick
            if moment.tick - since >= span:
                return (_reaches(moment.progress + 1, moment.tick),)
        return ()

    return claims


def _reaches(progress: int, tick: int) -> t.Compares:
    return t.Compares("progress", ">=", float(progress), t.During(tick, tick))


def asking(policy: p.Policy, actions: Sequence[str]) -> list[p.Reflex | p.Level]:
    """Return the rules of a policy that may ask for one of some actions; for none, all that ask for any."""
    rules: tuple[p.Reflex | p.Level, ...] = (*policy.reflexes, *policy.levels)
    done = {rule.rule: {p.name_of(one) for action in first_actions(rule) for one in chain(action)} for rule in rules}
    return [rule for rule in rules if (done[rule.rule] & {*actions} if actions else done[rule.rule])]
