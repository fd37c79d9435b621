"""The meaning of levels, requests and limits, written to be read: whole histories, everything own anew each tick.

It follows docs/language.md; conditions and numbers are the reference evaluator's. Nothing is kept but
lists of what happened.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterator, Mapping

from attrs import define, field, frozen

from lbw_policy.machine.readings import RiskValues
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Number, Truth
from lbw_policy.semantics.walk import own
from tests.machine.reference_evaluator import Reference
from tests.machine.reference_limiter import Answer, Ask, Limiting, Moment

NO_INTERVENTION = ("halt", "checkpoint")


@frozen
class Heard:
    """What a tick is told: signals, risks, gradient norms, and the actions that cannot be done now."""

    values: Mapping[str, float | None]
    risks: Mapping[str, RiskValues] = field(factory=dict)
    norm: float | None = None
    layer_norm: float | None = None
    impossible: Collection[str] = ()


@define
class Was:
    """One tick as it was. `level` is the one after the transition, `rose` tells that it was entered with its actions.

    `factors` has what levels multiplied their lr factor by, `began` what levels go on with, each in order.
    """

    previous: int
    level: int
    moved: bool
    rose: bool
    enter: tuple[int | None, ...]
    leave: int | None
    fired: tuple[p.Reflex, ...]
    alerts: tuple[int, ...] = ()
    quarantined: bool = False
    factors: list[tuple[int, float]] = field(factory=list)
    began: list[tuple[int, p.Action]] = field(factory=list)
    requests: tuple[Ask, ...] = ()
    answers: tuple[Answer, ...] = ()
    messages: tuple[str, ...] = ()


class ReferenceSession:
    """Decides like `Session`, from the beginning of the run at every tick.

    If it is `lagged`, levels move by what their triggers said a tick before.
    """

    def __init__(self, policy: p.Policy, *, lagged: bool = False) -> None:
        self.policy = policy
        self.lagged = lagged
        self.said: tuple[tuple[int | None, ...], int | None] = ((None,) * len(policy.levels), None)
        self.expressions = Reference(policy.signals)
        self.limiting = Limiting(policy, lagged)
        self.past: list[Was] = []

    def tick(self, heard: Heard) -> Was:
        """Go through one tick, and return what it decided."""
        numbers = {one.name: self._own(one.source) for one in self.policy.signals if own(one)}
        self.expressions.read(len(self.past), {**heard.values, **numbers}, heard.risks)
        fired = tuple(one for one in self.policy.reflexes if self.expressions.truth(one.condition) >= Truth.UNKNOWN)
        now = self._transition(fired)
        self.past.append(now)
        asking = Asking(self, now)
        asking.everything()
        now.requests = tuple(asking.asked.values())
        now.quarantined = self._quarantined()
        now.alerts = tuple(self.expressions.truth(one.trigger.condition) for one in self.policy.alerts)
        now.messages = tuple(self._messages())
        self.expressions.commit(now.quarantined)
        moment = Moment(len(self.past) - 1, heard.norm, heard.layer_norm, heard.impossible)
        now.answers = self.limiting.answer(moment, now.requests, asking.instead)
        return now

    def finish(self, *, applied: bool) -> None:
        """End the tick, telling whether an update was applied."""
        calm = self._settled(self.past[-1].level, len(self.past) - 1, len(self.past))
        self.limiting.end(self.past[-1].answers, applied=applied, calm=calm)

    # Levels

    def _transition(self, fired: tuple[p.Reflex, ...]) -> Was:
        levels, level = self.policy.levels, self.past[-1].level if self.past else 0
        enter, leave = self.said if self.lagged else self._says(level)
        now = Was(level, level, moved=False, rose=False, enter=enter, leave=leave, fired=fired)
        up = [i for i in range(len(levels)) if self._may_enter(i, level) and self._count(i, enter[i])]
        if up:
            now.level, now.moved, now.rose = up[-1], True, True
        elif level and (self._overstayed(level) or self._released(level, leave)):
            now.level, now.moved = level - 1, True
        self.said = self._says(now.level)
        return now

    def _says(self, level: int) -> tuple[tuple[int | None, ...], int | None]:
        """Return the truth of every `enter`, and of the `leave` of the level the run is in."""
        levels = self.policy.levels
        return tuple(self._truth(one.enter) for one in levels), self._truth(levels[level].leave)

    def _truth(self, trigger: p.Trigger | None) -> int | None:
        return None if trigger is None else self.expressions.truth(trigger.condition)

    def _may_enter(self, index: int, level: int) -> bool:
        """Tell whether a level is above the present one, or is the present one reached from above; and not cooling."""
        if index == level:
            return level > 0 and not self._risen()
        left = [at for at, was in enumerate(self.past) if was.previous == index and was.level < index]
        cooling = bool(left) and len(self.past) - left[-1] < self.policy.levels[index].cooldown
        return index > level and not cooling

    def _risen(self) -> bool:
        """Tell whether the present level was last entered with its actions."""
        moves = [was for was in self.past if was.moved]
        return bool(moves) and moves[-1].rose

    def _count(self, index: int, present: int | None) -> bool:
        """Tell whether a level's `enter` holds often enough, own since it was last reached."""
        trigger = self.policy.levels[index].enter
        if trigger is None or present is None:
            return False
        reached = [at for at, was in enumerate(self.past) if was.moved and was.level == index]
        seen = [was.enter[index] for was in self.past[reached[-1] + 1 if reached else 0 :]]
        held = [truth for truth in [*seen, present][-trigger.window :] if truth is not None and truth >= Truth.UNKNOWN]
        return len(held) >= trigger.count

    def since(self) -> int:
        """Return the ticks since the last transition, the present one included where it has been decided."""
        moves = [at for at, was in enumerate(self.past) if was.moved]
        return len(self.past) - 1 - moves[-1] if moves else len(self.past)

    def _overstayed(self, level: int) -> bool:
        stay = self.policy.levels[level].stay
        return stay is not None and self.since() + 1 >= stay

    def _released(self, level: int, present: int | None) -> bool:
        leave = self.policy.levels[level].leave
        if leave is None:
            return False
        here = [was.leave for was in self.past[len(self.past) - self.since() :]]
        return sum(truth == Truth.TRUE for truth in [*here, present][-leave.window :]) >= leave.count

    # What levels hold

    def risen_at(self, index: int) -> int | None:
        """Return when a level was last entered with its actions, None if the run has been below it since, or never."""
        rises = [at for at, was in enumerate(self.past) if was.rose and was.level == index]
        if not rises or any(was.level < index for was in self.past[rises[-1] :]):
            return None
        return rises[-1]

    def held(self, index: int) -> list[p.Action]:
        """Return what a level goes on with, in the order of the text."""
        rise = self.risen_at(index)
        if rise is None:
            return []
        began = {one for was in self.past[rise:] for level, one in was.began if level == index}
        return [one for one in self._written(index) if one in began]

    def _written(self, index: int) -> list[p.Action]:
        """Return all actions of a level with their fallbacks, each once, in the order of the text."""
        level = self.policy.levels[index]
        first = [*level.actions, *(each.action for each in level.periodic)]
        return list(dict.fromkeys(one for action in first for one in chain(action)))

    def factor(self, index: int) -> float:
        """Return a level's lr factor, from the beginning of the run."""
        factor, regained, held = 1.0, 0.0, False
        for was in self.past:
            factor = min(1.0, factor + regained)
            regained = regained if factor < 1.0 else 0.0
            if held and was.level < index:
                regained, held = self._regain(index, factor), False
            if was.rose and was.level == index:
                factor, regained, held = 1.0, 0.0, True
            for level, by in was.factors:
                if level == index:
                    factor, regained = bounded(factor * bounded(by, 0.01, 1.0), 0.01, 1.0), 0.0
        return factor

    def _regain(self, index: int, factor: float) -> float:
        """Return what a factor regains a tick: equal parts, but never so little that rounding swallows it."""
        ticks = max((one.restore for one in self._written(index) if isinstance(one, p.ScaleLr)), default=1)
        return max((1.0 - factor) / ticks, 2 * ticks * sys.float_info.epsilon) if factor < 1.0 else 0.0

    # The rest of a tick

    def _own(self, source: str) -> float:
        answers = self.past[-1].answers if self.past else ()
        if source == "lr_factor":
            factors = [one.amount for one in answers if one.granted and one.action == "scale_lr"]
            return 1.0 if not factors or factors[0] is None else factors[0]
        began = [one.action for one in answers if one.granted and one.starts]
        kinds = {"skips": "skip", "clips": "clip", "rollbacks": "rollback"}
        return float(sum(one == kinds.get(source) or (source == "interventions" and one not in NO_INTERVENTION)
                         for one in began))  # fmt: skip

    def suspicious(self, at: int) -> bool:
        """Tell whether a reflex fired in a tick, or the level before or after is neither the calm one nor settled."""
        was = self.past[at]
        return bool(was.fired) or not (self._settled(was.previous, at, at) and self._settled(was.level, at, at + 1))

    def _settled(self, level: int, at: int, ticks: int) -> bool:
        """Tell whether a level is the calm one, or by a tick has settled; it was last reached in the first `ticks`."""
        settles = self.policy.levels[level].settles
        moves = [place for place, was in enumerate(self.past[:ticks]) if was.moved]
        return not level or (settles is not None and at - moves[-1] >= settles)

    def _quarantined(self) -> bool:
        suspicious = [self.suspicious(at) for at in range(len(self.past))]
        in_a_row = next((n for n, one in enumerate(reversed(suspicious)) if not one), len(suspicious))
        return 0 < in_a_row <= self.policy.quarantine

    def _messages(self) -> Iterator[str]:
        """Yield each alert that comes to hold: K of the last N now, and not a tick ago."""
        for index, alert in enumerate(self.policy.alerts):
            held = [was.alerts[index] >= Truth.UNKNOWN for was in self.past]
            window, count = alert.trigger.window, alert.trigger.count
            if held[-1] and sum(held[-window:]) >= count > sum(held[:-1][-window:]):
                yield alert.name


@define
class Asking:
    """One tick's requests: by reflexes in order, by the level entered or its `each`, by all levels that hold."""

    session: ReferenceSession
    now: Was
    asked: dict[str, Ask] = field(factory=dict)
    declared: list[tuple[str, str, p.Action, int | None]] = field(factory=list)
    """Refused action, rule, fallback, and the level whose own it is."""
    own: list[tuple[str, float]] = field(factory=list)
    """The lr factors of reflexes."""

    def everything(self) -> None:
        for reflex in self.now.fired:
            for action in reflex.actions:
                self.ask(reflex.rule, action, None)
        self._level()
        for index, level in enumerate(self.session.policy.levels):
            for action in self.session.held(index):
                self._go_on(level.rule, action)
        self._multiply()

    def _level(self) -> None:
        level, since = self.session.policy.levels[self.now.level], self.session.since()
        if self.now.rose:
            for action in level.actions:
                self._do(self.now.level, action)
        elif self.session.risen_at(self.now.level) is not None and self.session._risen() and since:
            for each in level.periodic:
                if since % each.every == 0:
                    self._do(self.now.level, each.action)

    def _do(self, index: int, action: p.Action) -> None:
        """Do what a level does once; what lasts begins to be held."""
        if isinstance(action, p.ScaleLr):
            self.now.factors.append((index, self._number(action.by)))
        if isinstance(action, p.ScaleLr | p.Clip | p.Freeze):
            self.now.began.append((index, action))
        else:
            self.ask(self.session.policy.levels[index].rule, action, index)

    def _go_on(self, rule: str, action: p.Action) -> None:
        if isinstance(action, p.ScaleLr):
            self._declare(rule, action, None)
        else:
            self.ask(rule, action, None)

    def _declare(self, rule: str, action: p.Action, level: int | None) -> None:
        if action.otherwise is not None:
            self.declared.append((p.name_of(action), rule, action.otherwise, level))

    def ask(self, rule: str, action: p.Action, level: int | None) -> None:
        """Ask for an action; of two requests for it the more careful, else the first, counts."""
        self._declare(rule, action, level)
        name = p.name_of(action)
        if isinstance(action, p.ScaleLr):
            self.own.append((rule, self._number(action.by)))
            self._multiply()
            return
        wish = Ask(name, rule, self._amount(action), _by(action), _group(action), _layers(action))
        known = self.asked.get(name)
        if known is None or _preferred(wish, known):
            self.asked[name] = wish

    def _multiply(self) -> None:
        levels = [(level.rule, self.session.factor(i)) for i, level in enumerate(self.session.policy.levels)]
        factors = [*self.own, *((rule, factor) for rule, factor in levels if factor < 1.0)]
        if factors:
            self.asked["scale_lr"] = Ask("scale_lr", factors[0][0], math.prod(factor for _, factor in factors))

    def _amount(self, action: p.Action) -> float | None:
        match action:
            case p.Clip(to):
                return self.session.expressions.number(to)
            case p.Freeze(share):
                return share
            case p.Rollback(at_most):
                return float(at_most)
            case p.Custom(_, amount):
                return None if amount is None else self.session.expressions.number(amount)
        return None

    def _number(self, number: Number) -> float:
        value = self.session.expressions.number(number)
        return math.nan if value is None else value

    def instead(self, refused: str, already: Collection[str]) -> tuple[Ask, ...]:
        """Ask for what every rule declared in place of a refused action; return those requests."""
        names = dict[str, None]()
        turned = [one for one in self.declared if one[0] == refused]
        self.declared = [one for one in self.declared if one[0] != refused]
        for _, rule, fallback, level in turned:
            free = [one for one in chain(fallback) if p.name_of(one) not in already]
            if free:
                self._take_over(rule, free[0], level)
            names[p.name_of(free[0] if free else list(chain(fallback))[-1])] = None
        return tuple(self.asked[name] for name in names)

    def _take_over(self, rule: str, action: p.Action, level: int | None) -> None:
        if level is None or not isinstance(action, p.ScaleLr | p.Clip | p.Freeze):
            self.ask(rule, action, level)
        else:
            self._do(level, action)
            self._go_on(rule, action)
            self._multiply()
        if isinstance(action, p.ScaleLr):
            self.asked.setdefault("scale_lr", Ask("scale_lr", rule, 1.0))


def chain(action: p.Action | None) -> Iterator[p.Action]:
    """Yield an action and its fallbacks, in order."""
    while action is not None:
        yield action
        action = action.otherwise


def bounded(value: float, low: float, high: float) -> float:
    """Return a value held to its range; what is no number is the lower end."""
    if math.isnan(value):
        return low
    return low if value < low else min(value, high)


def _by(action: p.Action) -> str:
    return action.by if isinstance(action, p.Freeze) else ""


def _group(action: p.Action) -> str:
    return action.group if isinstance(action, p.Freeze) else ""


def _layers(action: p.Action) -> bool:
    return isinstance(action, p.Clip) and action.layers


def _preferred(new: Ask, old: Ask) -> bool:
    """Tell whether a second request for an action counts: the least norm, the greatest share, else never."""
    if new.action not in ("clip", "freeze"):
        return False
    if new.layers != old.layers:  # a finite norm of all gradients before all norms of layers
        whole = old if new.layers else new
        finite = whole.amount is not None and math.isfinite(whole.amount)
        return finite != new.layers
    if new.amount is None or math.isnan(new.amount):
        return False
    if old.amount is None or math.isnan(old.amount):
        return True
    return new.amount < old.amount if new.action == "clip" else new.amount > old.amount
