"""Adversaries: telemetry made to cost a run as much as a policy allows, or to pass beneath it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence

from attrs import evolve, field, frozen

from lbw_policy.machine import RiskValues, Session
from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.walk import conditions_of, own
from lbw_policy.witness import goals
from lbw_policy.witness.healthy import healthy
from lbw_policy.witness.scripts import ready_after
from lbw_policy.witness.search import Effort, Search

WINDOW = 1_000
"""The steps in a row in which the toll is taken, as on the authority card."""
_FINDING = Effort(tries=40, ticks=2_000)
_LENGTHS = (1, 2, 4, 8, 12, 16, 25, 40, 60, 100, 200)
_SPREAD = 0.02
_NOTICED = 4
"""Steps from trouble to a rollback, roughly."""


# What is told


@frozen
class Lie:
    """What one tick tells in place of the truth: readings by title, `loss` or `divergence.alarm`."""

    name: str
    told: Mapping[str, float]


def lies(policy: p.Policy) -> tuple[Lie, ...]:
    """Return the truth; NaN in each signal, and in all; every risk alarmed; and what makes each rule act by numbers.

    A comparison with NaN is unknown, which enters levels and fires reflexes: NaN is the lie that fits most rules.
    """
    signals = [one.name for one in policy.signals if not own(one)]
    broken = [Lie(f"NaN in {name}", {name: math.nan}) for name in signals]
    everything = Lie("NaN in all", dict.fromkeys(signals, math.nan))
    alarms = {f"{one.name}{part}": 1.0 for one in policy.risks for part in ("", f".{t.ALARM}", f".{t.TRUSTED}")}
    alarmed = [Lie("all alarms", alarms)] if alarms else []
    return (Lie("the truth", {}), *broken, everything, *alarmed, *_by_numbers(policy))


def _by_numbers(policy: p.Policy) -> Iterator[Lie]:
    """Yield readings, found by search on the real session, at which each rule acts without NaN."""
    search = Search(policy, _FINDING)
    warm = max(8, ready_after(policy, conditions_of(policy)))
    start = search.begin([one.title for one in search.channels], warm)
    for rule in (*policy.reflexes, *(level for level in policy.levels if level.enter)):
        found = search.reach(start, goals.acts(policy, rule))
        shapes = {} if found is None else found.shapes
        told = {title: shape.values[-1] for title, shape in shapes.items() if shape.values}
        if told and all(map(math.isfinite, told.values())):
            yield Lie(rule.name, told)


# What it costs


@frozen
class Toll:
    """What a run lost, tick by tick: progress after each, the lr factor of each update, and what began."""

    progress: tuple[int, ...]
    factors: tuple[float, ...]
    skips: tuple[int, ...]
    rollbacks: tuple[int, ...]
    begun: tuple[int, ...]
    halted: bool = False

    def lost(self, window: int = WINDOW) -> int:
        """Return the most updates that so many ticks in a row are short of gaining one each."""
        return lost(self.progress, window)

    def most(self, counts: Sequence[int], window: int = WINDOW) -> int:
        """Return the greatest sum of so many ticks in a row."""
        return max(_sums(counts, window))

    def slowest(self, window: int = WINDOW) -> float:
        """Return the least mean lr factor of so many ticks in a row; an update left out counts as 0."""
        return min(_sums(self.factors, window)) / min(window, len(self.factors))

    @property
    def longest_pause(self) -> int:
        """Return the most ticks in a row without an accepted update."""
        most = row = 0
        for factor in self.factors:
            row = 0 if factor else row + 1
            most = max(most, row)
        return most


def lost(progress: Sequence[int], window: int = WINDOW) -> int:
    """Return the most updates that so many ticks in a row are short of gaining one each, by the progress after each."""
    known, last = (0, *progress), len(progress)
    starts = range(max(1, last - window + 1))
    return max(min(window, last) - known[min(at + window, last)] + known[at] for at in starts)


def _sums(counts: Sequence[float], window: int) -> list[float]:
    total = [0.0]
    for count in counts:
        total.append(total[-1] + count)
    last = len(total) - 1
    return [total[min(at + window, last)] - total[at] for at in range(max(1, last - window + 1))]


# The flood: whoever tells the readings and sees what the guard makes of them


@frozen
class Phase:
    """One lie for at most so many ticks; it ends at once when what it waits for has come, if it waits."""

    lie: Lie
    ticks: int
    until: str = ""


WAITS = ("", "", "healthy", "late", "rollback", "refused")
"""What an adversary that sees the guard can wait for: a snapshot to go back to, one about to get out of reach, ..."""
Attack = tuple[Phase, ...]
"""Phases, over and over again."""


def play(policy: p.Policy, attack: Attack, ticks: int, warm: int = 0) -> Toll:
    """Return what a run loses whose telemetry is the truth for `warm` ticks, then follows the attack."""
    session, calm = Session(policy), {one.title: one.level for one in healthy(policy)}
    draw = random.Random(policy.name)  # noqa: S311 - made telemetry, not a secret
    toll: list[tuple[int, float, int, int, int]] = []
    place = spent = 0
    for tick in range(ticks):
        phase = attack[place] if tick >= warm else Phase(_TRUTH, 1)
        told = {title: level * (1 + _SPREAD * draw.uniform(-1, 1)) for title, level in calm.items()} | phase.lie.told
        seen = _tick(session, told)
        toll.append(seen[0])
        if "halt" in seen[1]:
            return Toll(*zip(*toll, strict=True), halted=True)
        spent += tick >= warm
        if tick >= warm and (spent >= phase.ticks or waited_for(phase.until, session, seen[1])):
            place, spent = (place + 1) % len(attack), 0
    return Toll(*zip(*toll, strict=True))


_TRUTH = Lie("the truth", {})


def _tick(session: Session, told: Mapping[str, float]) -> tuple[tuple[int, float, int, int, int], set[str]]:
    """Take a session through one tick; return what it cost, and which actions began or (as `refused`) did not."""
    policy = session.policy
    session.begin(
        {one.name: told[one.name] for one in policy.signals if one.name in told and not session.tick % one.every}
    )
    norms = [told[one.name] for one in policy.signals if one.key == "grad_norm" and one.name in told]
    turn = session.decide(
        {one.name: _says(one, told) for one in policy.risks}, norms[0] if norms else 1.0, layer_norm=1.0
    )
    factor = session.limiter.scale if turn.updates else 0.0
    session.finish(applied=turn.updates)
    began = [one.request.action for one in turn.granted if one.starts]
    refused = {"refused"} if len(turn.granted) < len(turn.grants) else set()
    harm = sum(action not in ("halt", "checkpoint") for action in began)
    return (session.progress, factor, began.count("skip"), began.count("rollback"), harm), {*began, *refused}


def _says(risk: p.Risk, told: Mapping[str, float]) -> RiskValues:
    alarm = told.get(f"{risk.name}.{t.ALARM}", 0.0) == 1.0
    return RiskValues(told.get(risk.name, risk.fallback), alarm=alarm, trusted=True)


def waited_for(wait: str, session: Session, seen: set[str]) -> bool:
    """Tell whether what an adversary waits for has come; `seen` is what the last tick began or refused."""
    healthy = session.schedule.healthy() if session.schedule else ()
    if wait == "late":
        limit, ahead = session.policy.limits.rollback, session.progress + _NOTICED
        return bool(healthy and limit and max(ahead, session.limiter.high_water) - max(healthy) >= limit.distance)
    return bool(healthy) if wait == "healthy" else wait in seen


@frozen
class Flood:
    """The worst attack that a search found, and what it cost."""

    attack: Attack
    toll: Toll


@frozen
class Flooder:
    """Climbs from attack to attack by what they cost: `steps lost` or `lr held low`; repeatable by seed."""

    policy: p.Policy
    aim: str = "steps lost"
    tries: int = 60
    ticks: int = 1_500
    warm: int = 300
    window: int = WINDOW
    seed: int = 0
    known: tuple[Lie, ...] = field(init=False)

    @known.default
    def _lies(self) -> tuple[Lie, ...]:
        return lies(self.policy)

    def worst(self) -> Flood:
        """Return the worst attack found."""
        draw = random.Random(self.seed)  # noqa: S311 - a search to be repeated, not a secret
        single = [self._flood((Phase(lie, self.ticks),)) for lie in self.known[1:]]
        best = max([*single, *map(self._flood, self._late(single))], key=self._cost)
        for _ in range(self.tries):
            other = self._flood(self._changed(best.attack, draw))
            best = max(best, other, key=self._cost)
        return best

    def _flood(self, attack: Attack) -> Flood:
        return Flood(attack, play(self.policy, attack, self.ticks, self.warm))

    def _cost(self, flood: Flood) -> float:
        toll = flood.toll
        return toll.lost(self.window) if self.aim == "steps lost" else -toll.slowest(self.window)

    def _late(self, single: Sequence[Flood]) -> Iterator[Attack]:
        """Yield attacks that roll back as late as can be: a stir keeps newer snapshots away, then a lie goes back."""
        limit = self.policy.limits.rollback
        for back in (flood.attack[0].lie for flood in single if limit and any(flood.toll.rollbacks)):
            for stir in self.known[1:]:
                distance = limit.distance if limit else 1
                wait = Phase(self.known[0], distance, "healthy")
                yield wait, Phase(stir, 2 * distance, "late"), Phase(back, 12, "rollback")

    def _changed(self, attack: Attack, draw: random.Random) -> Attack:
        """Return the attack with one or two of its phases changed, doubled, dropped or put in."""
        phases = list(attack)
        for _ in range(draw.choice((1, 1, 2, 3))):
            at = draw.randrange(len(phases))
            match draw.choice(("lie", "length", "length", "wait", "more", "fewer")):
                case "lie":
                    phases[at] = evolve(phases[at], lie=draw.choice(self.known))
                case "length":
                    other = draw.choice((*_LENGTHS, phases[at].ticks + 1, max(1, phases[at].ticks - 1)))
                    phases[at] = evolve(phases[at], ticks=other)
                case "wait":
                    phases[at] = evolve(phases[at], until=draw.choice(WAITS))
                case "more":
                    phases.insert(at, Phase(draw.choice(self.known), draw.choice(_LENGTHS), draw.choice(WAITS)))
                case _ if len(phases) > 1:
                    del phases[at]
        return tuple(phases)
