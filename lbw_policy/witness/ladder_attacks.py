"""Attacks on promises about levels: how long they last, what lets go of them, how soon they come again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise, product

from attrs import evolve

from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.trials.trace import Moment, Trace
from lbw_policy.witness import goals
from lbw_policy.witness.attack import PATIENCE, Attack, Case, Claims
from lbw_policy.witness.exhibits import Exhibit, at, first, within
from lbw_policy.witness.goals import Rungs
from lbw_policy.witness.readouts import ends_calm, is_torn
from lbw_policy.witness.scripts import GAP, Phase, titles_in, value
from lbw_policy.witness.search import Effort, Shapes, Standing

_MARGIN = 8
_MOST_BLINDFOLDS = 27
_GLANCE = Effort(tries=40, ticks=10_000)
_EMPTY: Shapes = {}
_WILD = 1.0
"""Noise so wide, as a share of the level, that robust statistics take large readings for ordinary ones."""


def dwell(attack: Attack) -> Iterator[Case]:
    """Enter a level and find what keeps it."""
    rungs, span = Rungs.of(attack.policy), attack.bound()
    for level in attack.levels:
        entry = attack.entered(level)
        read = titles_in(level.leave.condition) if level.leave else ()
        goal = goals.holds(level, span, attack.titles)
        end = attack.reach(entry, goal, (entry.shapes, {}, lost(read))) if entry else None
        if end:
            name = f"level {level.name} is left in the end"
            yield end.script.keeping(read), attack.exhibit(name, _held(rungs, level.name, span))


def _held(rungs: Rungs, level: str, span: int) -> Claims:
    def claims(trace: Trace) -> Sequence[t.Claim]:
        entry = first(trace, lambda one: rungs.rises(one, level))
        held = trace.moments[entry.tick : entry.tick + span + 1] if entry else ()
        lasts = len(held) > span and all(moment.level == level for moment in held)
        return (within(rungs.under(level), span, held[0].tick),) if lasts else ()

    return claims


def calm(attack: Attack) -> Iterator[Case]:
    """Enter a level, and let all be well again."""
    rungs, span = Rungs.of(attack.policy), attack.bound()
    for level in reversed(attack.levels):
        entry = attack.entered(level)
        if entry:
            end, factor = attack.search.extend(entry, Phase(span)), attack.claim.about == "lr factor"
            claims = _not_whole(span) if factor else _not_back(rungs, span)
            shown = attack.exhibit(f"{span:_} calm steps lead back", claims)
            yield end.script, evolve(shown, fits=lambda trial: ends_calm(attack.policy, trial, span))


def _not_back(rungs: Rungs, span: int) -> Claims:
    def claims(trace: Trace) -> Sequence[t.Claim]:
        calm = trace.moments[-span - 1 :]
        stuck = len(trace.moments) > span and all(moment.level != rungs.names[0] for moment in calm)
        rising = any(rungs.rises(moment, moment.level) for moment in calm[1:])
        return (within(rungs.names[0], span, calm[0].tick),) if stuck and not rising else ()

    return claims


def _not_whole(span: int) -> Claims:
    def claims(trace: Trace) -> Sequence[t.Claim]:
        last = trace.moments[-1]
        slow = len(trace.moments) > span and last.scale < 1.0
        return (t.Compares("scale_lr", ">=", 1.0, t.During(last.tick, last.tick)),) if slow else ()

    return claims


def conflict(attack: Attack) -> Iterator[Case]:
    """Find readings that count towards `enter` and `leave` of a level, and let them last."""
    for level in attack.levels:
        flapping = goals.repeats(attack.policy, level)
        for start in (attack.begin(), attack.begin(noise=_WILD)):
            torn = attack.reach(start, goals.torn(attack.policy, level))
            end = attack.reach(start, flapping, (torn.shapes,), _GLANCE) if torn else None
            if end:
                yield end.script, _conflict(attack, level)


def _conflict(attack: Attack, level: p.Level) -> Exhibit:
    name = f"level {level.name} is not entered and left on the same readings"
    found = attack.exhibit(name, _flaps(attack.policy, level))
    return evolve(found, fits=lambda trial: is_torn(attack.policy, trial, level.name))


def _flaps(policy: p.Policy, level: p.Level) -> Claims:
    rungs = Rungs.of(policy)

    def claims(trace: Trace) -> Sequence[t.Claim]:
        rises = [moment for moment in trace.moments if rungs.rises(moment, level.name)]
        if len(rises) < 2:
            return ()
        once = _only_once(level, trace)
        left = first(trace, lambda one: rungs.falls(one, level.name), rises[0].tick)
        return (once,) if once else (at(level.name, left.tick),) if left else ()

    return claims


def _only_once(level: p.Level, trace: Trace) -> t.Happens | None:
    """Return the claim that the first action of a level that began repeatedly began once."""
    for action in level.actions:
        name = p.name_of(action)
        if sum(moment.begins(name) for moment in trace.moments) > 1:
            return t.Happens("action", name, None, 1)
    return None


def oscillation(attack: Attack) -> Iterator[Case]:
    """Enter a level again as soon as can be: on the same readings, and by turns."""
    for level in attack.levels:
        flapping = goals.repeats(attack.policy, level)
        yield from _again(attack, level, attack.reach(attack.begin(), flapping, (_EMPTY,), _GLANCE))
        yield from _again(attack, level, _by_turns(attack, level))


def _by_turns(attack: Attack, level: p.Level) -> Standing | None:
    """Enter a level, leave it, and enter it again within the claim's bound, or when its cooldown must be over."""
    into = goals.enters(attack.policy, level)
    entry = attack.reach(attack.begin(), into)
    left = attack.reach(entry, goals.leaves(attack.policy, level)) if entry else None
    if entry is None or left is None:
        return None
    back = evolve(into, ticks=max(into.ticks, attack.bound(level.cooldown + into.ticks)), fixed=True)
    return attack.reach(left, back, (entry.shapes,))


def _again(attack: Attack, level: p.Level, end: Standing | None) -> Iterator[Case]:
    rungs, bound = Rungs.of(attack.policy), attack.claim.bound

    def claims(trace: Trace) -> Sequence[t.Claim]:
        rises = [moment for moment in trace.moments if rungs.rises(moment, level.name)]
        for one, other in pairwise(rises):
            if bound is None or other.tick - one.tick < bound:
                once = _only_once(level, trace) if len(rises) == 2 else None
                return (once or at(other.decision.previous, other.tick),)
        return ()

    if end:
        yield end.script, attack.exhibit(f"level {level.name} is not entered again so soon", claims)


def cooldown(attack: Attack) -> Iterator[Case]:
    """Enter a level, leave it, and enter it again before its cooldown is over."""
    for level in attack.levels:
        back = _by_turns(attack, level)
        if back:
            name = f"level {level.name} stays shut while it cools down"
            yield back.script, attack.exhibit(name, _too_soon(attack.policy, level, attack.bound(level.cooldown)))


def _too_soon(policy: p.Policy, level: p.Level, cooldown: int) -> Claims:
    rungs = Rungs.of(policy)

    def claims(trace: Trace) -> Sequence[t.Claim]:
        left: int | None = None
        for moment in trace.moments:
            if rungs.falls(moment, level.name):
                left = moment.tick
            elif left is not None and rungs.rises(moment, level.name) and moment.tick - left < cooldown:
                return (at(moment.decision.previous, moment.tick),)
        return ()

    return claims


def unknown(attack: Attack) -> Iterator[Case]:
    """Enter a level and lose the readings of its `leave`: all of them, then its signals alone."""
    rungs, told = Rungs.of(attack.policy), {risk.name for risk in attack.policy.risks}
    for level in attack.levels:
        entry = attack.entered(level) if level.leave else None
        read = titles_in(level.leave.condition) if level.leave else ()
        signals = tuple(title for title in read if title.partition(".")[0] not in told)
        if entry is None:
            continue
        for gone, shapes in _blindfolds(read, signals):
            end = attack.search.extend(entry, Phase(_patience(level), shapes))
            if any(rungs.falls(moment, level.name) for moment in end.last):
                name = f"level {level.name} is not left on what is not known"
                yield end.script, attack.exhibit(name, _left_blind(rungs, level, gone))


def lost(titles: Sequence[str]) -> Shapes:
    """Return the shapes of channels of which nothing is known: NaN, or no reading of what is true or false."""
    told = (f".{t.ALARM}", f".{t.TRUSTED}")
    return {title: GAP if title.endswith(told) else value(math.nan) for title in titles}


def _blindfolds(read: Sequence[str], signals: Sequence[str]) -> Iterator[tuple[Sequence[str], Shapes]]:
    """Yield what to lose, and how: NaN first, then infinities among it."""
    endless = (value(math.nan), value(math.inf), value(-math.inf))
    for gone in dict.fromkeys((tuple(read), tuple(signals))):
        for found in islice(product(endless, repeat=len(signals)), _MOST_BLINDFOLDS):
            yield gone, {**lost(gone), **dict(zip(signals, found, strict=True))}


def _patience(level: p.Level) -> int:
    """Return how long to wait for `leave`: less than `stay` does."""
    window = level.leave.window if level.leave else 0
    return max(1, min(window + _MARGIN, (level.stay or PATIENCE) - 1))


def _left_blind(rungs: Rungs, level: p.Level, gone: Sequence[str]) -> Claims:
    def claims(trace: Trace) -> Sequence[t.Claim]:
        moment = first(trace, lambda one: rungs.falls(one, level.name))
        return (at(level.name, moment.tick),) if moment and not any(_known(moment, one) for one in gone) else ()

    return claims


def _known(moment: Moment, title: str) -> bool:
    """Tell whether a tick has a finite reading of a signal, or knows what a risk says."""
    name, _, part = title.partition(".")
    risk = moment.risks.get(name)
    found = getattr(risk, part or t.PROBABILITY) if risk else moment.values.get(name)
    return found is not None and math.isfinite(found)
