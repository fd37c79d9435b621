"""Judges of a hostile run, one for each kind of claim: they count again, from what was granted alone.

A monitor returns what broke the claim, or None. It shares no code with the limiter and none with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from attrs import frozen

from lbw_policy.claims import Claim
from lbw_policy.semantics import policy as p
from lbw_policy.verify.hostile import Run, Seen
from lbw_policy.verify.refining import allowed, budgets

_FREE = frozenset({"checkpoint", "halt"})
"""What is no intervention."""


@frozen
class Watched:
    """A run under a policy, and the claim it is held against."""

    policy: p.Policy
    claim: Claim
    run: Run

    @property
    def bound(self) -> float:
        """The number the claim speaks of."""
        return self.claim.bound or 0

    @property
    def place(self) -> int:
        """The place, in the order of levels, of the level the claim is about."""
        levels = enumerate(self.policy.levels)
        return next(at for at, level in levels if self.claim.about == f"level {level.name}")

    def levels(self) -> Iterator[tuple[int, int, int]]:
        """Yield tick, level before and level after, by their places in the order."""
        places = {level.name: place for place, level in enumerate(self.policy.levels)}
        for one in self.run.seen:
            if one.decision:
                yield one.tick, places[one.decision.previous], places[one.decision.level]


Monitor = Callable[[Watched], str | None]


def monitor_of(claim: Claim) -> Monitor | None:
    """Return the monitor of a claim; None where nothing of it shows in a run."""
    if claim.promise == "limits_hold":
        return _OF_LIMITS.get(claim.about) or (_amount if claim.about.startswith("amount of ") else _budget)
    return _OF_PROMISES.get((claim.promise, bool(claim.about)))


# Limits


def _budget(watched: Watched) -> str | None:
    return _crowded(watched.run, watched.claim.about, budgets(watched.policy.limits)[watched.claim.about])


def _crowded(run: Run, name: str, budget: p.Budget) -> str | None:
    ticks = list(_begun(run.seen, name))
    for first, last in zip(ticks, ticks[budget.count :], strict=False):
        if last - first < budget.window:
            return f"{budget.count + 1} of `{name}` in ticks {first} to {last}"
    return None


def _begun(seen: Sequence[Seen], name: str) -> Iterator[int]:
    """Yield the tick of everything that began and counts."""
    for one in seen:
        for grant in one.allowed:
            action = grant.request.action
            if grant.starts and (action not in _FREE if name == "intervene" else action == name):
                yield one.tick


def _row(watched: Watched) -> str | None:
    count = 0
    for one in watched.run.seen:
        count = 0 if one.applied else count + (one.granted("skip") is not None)
        if count > watched.bound:
            return f"{count} skips in a row at tick {one.tick}"
    return None


def _distance(watched: Watched) -> str | None:
    top = 0
    for one, progress in zip(watched.run.seen, _progress(watched.run), strict=True):
        top = max(top, progress)
        if top - progress > watched.bound:
            return f"{top - progress} below the top at tick {one.tick}"
    return None


def _progress(run: Run) -> Iterator[int]:
    """Yield the progress after each tick."""
    progress = 0
    for one in run.seen:
        back = one.granted("rollback")
        progress = (int(back.amount or 0) if back else progress) + one.applied
        yield progress


def _spacing(watched: Watched) -> str | None:
    return _crowded(watched.run, "rollback", p.Budget(1, int(watched.bound)))


def _freezes(run: Run) -> Iterator[tuple[int, int]]:
    """Yield each freeze as its first tick and the number of ticks it was granted for."""
    first, length = 0, 0
    for one in run.seen:
        if one.granted("freeze"):
            first, length = (first if length else one.tick), length + 1
        elif length:
            yield first, length
            length = 0
    if length:
        yield first, length


def _duration(watched: Watched) -> str | None:
    long = [(first, length) for first, length in _freezes(watched.run) if length > watched.bound]
    return f"a freeze of {long[0][1]} ticks at tick {long[0][0]}" if long else None


def _pause(watched: Watched) -> str | None:
    for (first, length), (again, _) in pairwise(_freezes(watched.run)):
        if again < first + 2 * length:
            return f"a freeze at tick {again}, after one of {length} ticks at tick {first}"
    return None


def _between(run: Run, action: str, low: float, high: float) -> str | None:
    for one in run.seen:
        grant = one.granted(action)
        if grant and not (grant.amount is not None and low <= grant.amount <= high):
            return f"{grant.amount!r} granted at tick {one.tick}"
    return None


def _share(watched: Watched) -> str | None:
    return _between(watched.run, "freeze", 0.0, watched.bound)


def _factor(watched: Watched) -> str | None:
    limit = watched.policy.limits.scale_lr
    return _between(watched.run, "scale_lr", limit.low, limit.high) if limit else None


def _clip(watched: Watched) -> str | None:
    return _between(watched.run, "clip", 0.0, 1.0)


def _amount(watched: Watched) -> str | None:
    name = watched.claim.about.removeprefix("amount of ")
    limit = next(one for one in watched.policy.limits.custom if one.name == name)
    return None if limit.low is None or limit.high is None else _between(watched.run, name, limit.low, limit.high)


def _nothing_else(watched: Watched) -> str | None:
    known = allowed(watched.policy.limits)
    wrong = [(one.tick, grant.request.action) for one in watched.run.seen for grant in one.allowed]
    found = next(((tick, action) for tick, action in wrong if action not in known), None)
    return f"`{found[1]}` granted at tick {found[0]}" if found else None


# What the limits mean together


def _gain(watched: Watched) -> str | None:
    """Judge every window of as many ticks as the claim says."""
    span, found = _span(watched.claim), [0, *_progress(watched.run)]
    for tick, (before, after) in enumerate(zip(found, found[span:], strict=False)):
        if watched.run.plain and after - before < watched.bound:
            return f"a gain of {after - before} in the {span} steps from tick {tick}"
    return None


def _span(claim: Claim) -> int:
    return next(int(word) for word in claim.unit.split() if word.replace("_", "").isdigit())


def _stall(watched: Watched) -> str | None:
    length = 0
    for one in watched.run.seen if watched.run.plain else ():
        length = 0 if one.applied or one.granted("halt") else length + 1
        if length > watched.bound:
            return f"{length} steps without an accepted update up to tick {one.tick}"
    return None


def _kept(watched: Watched) -> str | None:
    length = 0
    for one in watched.run.seen:
        length = length + 1 if one.decision and one.decision.quarantined else 0
        if length > watched.bound:
            return f"{length} ticks kept from the baselines up to tick {one.tick}"
    return None


def _same(watched: Watched) -> str | None:
    return watched.run.resumed or None


# Levels


def _cooldown(watched: Watched) -> str | None:
    place, left = watched.place, None
    for tick, before, after in watched.levels():
        if before < place == after and left is not None and tick - left < watched.bound:
            return f"entered at tick {tick}, left at tick {left}"
        left = tick if after < place == before else left
    return None


def _dwell(watched: Watched) -> str | None:
    place, length = watched.place, 0
    for tick, _, after in watched.levels():
        length = length + 1 if after == place else 0
        if watched.claim.bound is not None and length > watched.bound:
            return f"{length} ticks in a row up to tick {tick}"
    return None


def _entries(watched: Watched) -> str | None:
    place = watched.place
    ticks = [tick for tick, before, after in watched.levels() if before < place == after]
    near = [(one, two) for one, two in pairwise(ticks) if watched.claim.bound is None or two - one < watched.bound]
    return f"entered at ticks {near[0][0]} and {near[0][1]}" if near else None


_OF_LIMITS: Mapping[str, Monitor] = {
    "skip in a row": _row,
    "rollback distance": _distance,
    "rollback spacing": _spacing,
    "freeze share": _share,
    "freeze duration": _duration,
    "freeze pause": _pause,
    "scale_lr": _factor,
    "clip never loosens": _clip,
    "all else": _nothing_else,
}
_OF_PROMISES: Mapping[tuple[str, bool], Monitor] = {
    ("progress_guaranteed", False): _gain,
    ("skip_cannot_livelock", False): _stall,
    ("skip_cannot_livelock", True): _kept,
    ("survives_resume", False): _same,
    ("cooldown_respected", True): _cooldown,
    ("dwell_bounded", True): _dwell,
    ("oscillation_bounded", True): _entries,
}
"""By promise, and whether the claim is about a part of the policy."""
