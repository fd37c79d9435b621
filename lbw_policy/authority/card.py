"""The authority card: the most a policy can ever do to a run, and how far that is known. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import evolve, field, frozen

from lbw_policy.authority import visits
from lbw_policy.authority.allowance import Allowance
from lbw_policy.authority.memory import memory
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.spelling import amount, share, steps

PROVED, TESTED, UNBOUNDED = "proved", "tested", "not bounded"
WINDOW = 1_000
"""The steps in a row that counts on the card speak of."""
Proved = Mapping[str, float | None]
"""The bounds of promises that are proved, by `PROMISE: PART`, or by `PROMISE` where all parts of one are."""
_WIDTH = 42
"""The widest a bound in words may be; with the other columns a line then has at most 80 characters."""


@frozen
class Line:
    """One bound: its value in `unit`, None where there is none; and the same in words.

    `rests_on` names the promises it follows from by arithmetic. An `idle` line tells of something that
    the policy cannot do at all; people read that in the last line.
    """

    what: str
    value: float | bool | tuple[str, ...] | None
    unit: str
    words: str
    rests_on: tuple[str, ...] = ()
    idle: bool = False
    status: str = field(default=TESTED, kw_only=True)

    def as_dict(self) -> dict[str, Any]:
        """Return the line as plain data."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"what": self.what, "value": value, "unit": self.unit, "status": self.status}


@frozen
class Card:
    """What a policy can do to a run at most."""

    policy: str
    lines: tuple[Line, ...]

    def as_list(self) -> list[dict[str, Any]]:
        """Return every line as plain data, those too that are idle."""
        return [line.as_dict() for line in self.lines]

    def as_text(self) -> str:
        """Return the card for people, aligned, without the idle lines."""
        shown = [line for line in self.lines if not line.idle]
        wide, reach = max(len(line.what) for line in shown), max(len(line.words) for line in shown)
        rows = [row for line in shown for row in _rows(line, wide, min(_WIDTH, reach))]
        return "\n".join([f"authority of `{self.policy}`: the most it can ever do to a run", *rows])


def _rows(line: Line, wide: int, reach: int) -> Iterator[str]:
    first, *more = textwrap.wrap(line.words, _WIDTH)
    yield f"  {line.what:<{wide}}  {first:<{reach}}  {line.status}"
    yield from (" " * (wide + 4) + rest for rest in more)


def card(policy: p.Policy, proved: Proved | None = None, window: int = WINDOW) -> Card:
    """Return a policy's card; a line is proved where all promises it rests on are, and else tested."""
    sure, allowed = proved or {}, Allowance.of(policy)
    found = [*_updates(allowed, window), *_others(allowed, window), *_levels(policy.levels, sure)]
    return Card(policy.name, tuple(_judged(line, sure) for line in [*found, *_rest(policy, allowed)]))


def _judged(line: Line, proved: Proved) -> Line:
    if line.value is None:
        return evolve(line, status=UNBOUNDED)
    sure = line.rests_on and all(one in proved for one in line.rests_on)
    return evolve(line, status=PROVED) if sure else line


def _weaker(value: int | None, proved: Proved, promise: str, pick: Callable[[float, float], float] = max) -> int | None:
    """Return the bound that may be called proved: the weaker one of what arithmetic says and what is proved."""
    known = proved.get(promise)
    return value if value is None or known is None else int(pick(value, known))


# Updates and the lr factor


def _updates(allowed: Allowance, window: int) -> Iterator[Line]:
    skip, back, limits = allowed.allows("skip"), allowed.allows("rollback"), allowed.limits
    skipping = _limits(allowed, "skip in a row", "skip") if skip else ()
    rolling = _limits(allowed, "rollback", *_spacing(limits)) if back else ()
    far = ("limits_hold: rollback distance",) if back else ()
    low = limits.scale_lr.low if limits.scale_lr and allowed.allows("scale_lr") else 1.0
    yield Line("lowest lr factor", low, "", amount(low), ("limits_hold: scale_lr",), low == 1.0)
    row = allowed.skips_in_a_row()
    yield Line("skipped in a row", row, "steps", steps(row), skipping, not row)
    yield _count("updates skipped", allowed.skips(window), window, skipping)
    yield _count("rollbacks", allowed.rollbacks(window), window, rolling)
    distance = limits.rollback.distance if limits.rollback and back else 0
    yield Line("farthest rollback", distance, "steps", steps(distance), far, not back)
    yield from _progress(allowed, window, (*skipping, *rolling, *far, "progress_guaranteed"))
    pause, rests_on = allowed.longest_pause(), (*skipping, *rolling, "skip_cannot_livelock")
    yield Line("longest pause", pause, "steps", _bound(pause, "without an update"), rests_on, pause == 0)


def _progress(allowed: Allowance, window: int, rests_on: tuple[str, ...]) -> Iterator[Line]:
    lost = allowed.lost(window)
    kept = max(0, window - lost) / window
    yield _count("steps lost in all", lost, window, rests_on)
    words = f"{100 * kept:.4g}% of any {steps(window)} at least" if kept else "none is promised"
    yield Line("progress kept", kept, "share", words, rests_on, not lost)


def _limits(allowed: Allowance, *parts: str) -> tuple[str, ...]:
    """Return the promises that an action's own limits hold, and that of all interventions."""
    every = (*parts, "intervene") if allowed.limits.intervene else parts
    return tuple(f"limits_hold: {part}" for part in every)


def _spacing(limits: p.Limits) -> tuple[str, ...]:
    return ("rollback spacing",) if limits.rollback and limits.rollback.spacing else ()


def _count(what: str, count: int, window: int, rests_on: tuple[str, ...]) -> Line:
    return Line(what, count, f"per {steps(window)}", f"{count:_} in any {steps(window)}", rests_on, not count)


# Other actions


def _others(allowed: Allowance, window: int) -> Iterator[Line]:
    freeze = allowed.limits.freeze if allowed.allows("freeze") else None
    part, long = (freeze.share, freeze.duration) if freeze else (0.0, 0)
    yield Line("layers frozen", part, "share", f"{share(part)} at once", ("limits_hold: freeze share",), not freeze)
    words = f"{steps(long)} at a time"
    yield Line("frozen for", long, "steps", words, ("limits_hold: freeze duration",), not freeze)
    for action, what in (("clip", "clips"), ("reset_moments", "moments reset"), ("checkpoint", "checkpoints")):
        yield _count(what, allowed.counted(action, window), window, _spent(allowed, action))
    yield from (_plugin(allowed, limit, window) for limit in allowed.limits.custom)
    rests_on = ("limits_hold: intervene",) if allowed.limits.intervene else ()
    yield _count("interventions in all", allowed.interventions(window), window, rests_on)


def _spent(allowed: Allowance, action: str) -> tuple[str, ...]:
    if action == "checkpoint":
        return (f"limits_hold: {action}",)
    return _limits(allowed, *((action,) if getattr(allowed.limits, action) else ()))


def _plugin(allowed: Allowance, limit: p.CustomLimit, window: int) -> Line:
    name, count = limit.name, allowed.counted(limit.name, window)
    if limit.low is None or limit.high is None:
        return _count(f"plugin `{name}`", count, window, _limits(allowed, name))
    line = _count(f"plugin `{name}`", count, window, _limits(allowed, name, f"amount of {name}"))
    return evolve(line, words=f"{line.words}, with {amount(limit.low)} to {amount(limit.high)}")


# Levels


def _levels(levels: tuple[p.Level, ...], proved: Proved) -> Iterator[Line]:
    calm, idle = f"`{levels[0].name}`", not any(level.enter for level in levels)
    stay = _weaker(visits.longest_stay(levels), proved, "dwell_bounded")
    yield Line("in one level", stay, "steps", _bound(stay, "in a row"), ("dwell_bounded",), idle)
    visit, both = visits.longest_visit(levels), ("dwell_bounded", "cooldown_respected")
    yield Line(f"away from {calm}", visit, "steps", _bound(visit, "in a row"), both, idle)
    back = _weaker(visits.calm_return(levels), proved, "calm_returns")
    yield Line(f"back to {calm}", back, "steps", _bound(back, "after all is calm"), ("calm_returns",), idle)
    whole = _weaker(visits.calm_restore(levels), proved, "calm_returns: lr factor")
    words = _bound(whole, "after all is calm")
    yield Line("lr whole again", whole, "steps", words, ("calm_returns: lr factor",), idle or whole == 0)
    soonest = _weaker(visits.fastest_again(levels) or 0, proved, "oscillation_bounded", min)
    words = f"{steps(soonest)} later at the soonest" if soonest else "never"
    yield Line("same level again", soonest, "steps", words, ("oscillation_bounded",), idle)


def _bound(value: int | None, more: str) -> str:
    return "no bound" if value is None else f"{steps(value)} {more}"


# The rest


def _rest(policy: p.Policy, allowed: Allowance) -> Iterator[Line]:
    halts, fails = allowed.allows("halt"), policy.on_failure == "halt"
    words = "if a rule says so" if halts else "if the guard itself fails"
    yield Line("stops the run", halts or fails, "", words, (), not (halts or fails))
    most = policy.limits.overhead
    words = "no limit" if most is None else f"{share(most)} of a step, or it says that it cannot"
    yield Line("overhead", most, "share", words, (), most is None)
    held = memory(policy)
    size = f"{held.samples:_} sample{'s' * (held.samples != 1)}, {held.bytes / 1000:_.0f} kB"
    yield Line("samples in windows", held.samples, "samples", size, (), True)
    yield Line("memory of windows", held.bytes, "bytes", size, (), not held.samples)
    never = [verb for action, verb in _VERBS.items() if not allowed.allows(action)]
    never += [] if halts or fails else ["stops the run"]
    all_ = len(never) == len(_VERBS) + 1 and not allowed.interventions(1)
    words = "changes anything in the run" if all_ else " or ".join(filter(None, (", ".join(never[:-1]), *never[-1:])))
    yield Line("never", tuple(never), "", words, (), not never)


_VERBS = {
    "skip": "skips an update",
    "scale_lr": "lowers the lr",
    "clip": "clips gradients",
    "rollback": "rolls back",
    "freeze": "freezes layers",
    "reset_moments": "resets moments",
}
