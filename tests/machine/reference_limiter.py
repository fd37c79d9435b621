"""The meaning of limits, written to be read: every budget counted over the whole list of what was spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

from attrs import define, evolve, field, frozen

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.walk import actions_of

FIRST = ("halt", "checkpoint", "rollback", "skip", "reset_moments")
LAST = ("freeze", "clip", "scale_lr")
BUILT_IN = (*FIRST, *LAST)


@frozen
class Ask:
    """A request."""

    action: str
    rule: str
    amount: float | None = None
    by: str = ""
    group: str = ""
    layers: bool = False


@frozen
class Answer:
    """What became of a request: `granted`, `reduced` or `refused`, the amount, and whether an intervention began."""

    action: str
    rule: str
    outcome: str
    amount: float | None = None
    starts: bool = True
    fallback: str = ""

    @property
    def granted(self) -> bool:
        """Whether anything may be done."""
        return self.outcome != "refused"


@frozen
class Moment:
    """What the answers of a tick depend on besides what was spent."""

    tick: int
    norm: float | None
    layer_norm: float | None
    impossible: Collection[str]


@define
class Shot:
    """A snapshot, with the calm ticks it has seen until it was proved."""

    progress: int
    calm: int = 0


@define
class Limiting:
    """Every answer and everything spent, from the beginning."""

    policy: p.Policy
    lagged: bool = False
    answers: list[tuple[Answer, ...]] = field(factory=list)
    applied: list[bool] = field(factory=list)
    calm: list[bool] = field(factory=list)
    spent: list[tuple[str, int]] = field(factory=list)

    def answer(
        self, moment: Moment, asked: Collection[Ask], instead: Callable[[str, Collection[str]], tuple[Ask, ...]]
    ) -> tuple[Answer, ...]:
        """Answer every request in the order of actions; where one is refused, its fallback waits for its own turn."""
        waiting, found = {one.action: one for one in asked}, list[Answer]()
        while waiting:
            wish = waiting.pop(min(waiting, key=_turn))
            if _pointless(wish.action, found):
                continue
            found.append(self._one(moment, wish))
            if not found[-1].granted:
                others = instead(wish.action, {one.action for one in found if not one.granted})
                found[-1] = evolve(found[-1], fallback=", ".join(one.action for one in others))
                known = {one.action for one in found}
                waiting |= {one.action: one for one in others if one.action not in known}
        if any(one.action == "halt" for one in found):
            found = [one for one in found if one.action in ("halt", "checkpoint") or not one.granted]
        return tuple(found)

    def end(self, answers: tuple[Answer, ...], *, applied: bool, calm: bool) -> None:
        """End the tick: what was answered, whether an update was applied, whether its level is calm or settled."""
        self.answers.append(answers)
        self.applied.append(applied)
        self.calm.append(calm)

    # What happened, from the beginning

    def progress(self) -> tuple[int, int]:
        """Return the accepted updates in the present history of the weights, and their highest number ever."""
        progress = highest = 0
        for answers, applied in zip(self.answers, self.applied, strict=True):
            back = _find(answers, "rollback")
            progress = (int(back.amount or 0) if back else progress) + applied
            highest = max(highest, progress)
        return progress, highest

    def _skipped_in_a_row(self) -> int:
        since = len(self.applied) - next((n for n, one in enumerate(reversed(self.applied)) if one), len(self.applied))
        return sum(_find(answers, "skip") is not None for answers in self.answers[since:])

    def _frozen(self) -> list[bool]:
        return [_find(answers, "freeze") is not None for answers in self.answers]

    def _frozen_for(self) -> int:
        return _run(self._frozen())

    def _resting_until(self) -> int:
        """Return the tick until which layers rest: after a freeze as long as it lasted."""
        frozen = self._frozen()
        ends = [at for at in range(1, len(frozen)) if frozen[at - 1] and not frozen[at]]
        return ends[-1] + _run(frozen[: ends[-1]]) if ends else 0

    def _factor_before(self) -> float:
        last = _find(self.answers[-1], "scale_lr") if self.answers else None
        return 1.0 if last is None or last.amount is None else last.amount

    def _healthy(self) -> list[int]:
        """Return the progress of every snapshot that may be restored: taken and proved in calm ticks, two at most."""
        limit = self.policy.limits.rollback
        if limit is None or not any(isinstance(action, p.Rollback) for action in actions_of(self.policy)):
            return []
        every = self.policy.snapshot_every or max(1, limit.distance // 2)
        proof, shots, progress = max(1, min(every, limit.distance // 4)), list[Shot](), 0
        was_calm = True
        for answers, applied, in_calm in zip(self.answers, self.applied, self.calm, strict=True):
            foreseen = was_calm and (not shots or (progress - shots[-1].progress >= every and shots[-1].calm >= proof))
            was_calm, back = in_calm, _find(answers, "rollback")
            progress = (int(back.amount or 0) if back else progress) + applied
            shots = [shot for shot in shots if not back or shot.progress <= progress - applied]
            calm = in_calm and back is None
            shots = [shot for shot in shots if calm or shot.calm >= proof]
            for shot in shots:
                shot.calm += calm
            due = not shots or (progress - shots[-1].progress >= every and shots[-1].calm >= proof)
            if calm and applied and (foreseen if self.lagged else due):
                shots = [*(shot for shot in shots if shot.progress != progress), Shot(progress)][-2:]
        return [shot.progress for shot in shots if shot.calm >= proof]

    # One answer

    def _one(self, moment: Moment, wish: Ask) -> Answer:
        limits = self.policy.limits
        if wish.action in moment.impossible:
            return _refused(wish)
        if wish.action == "halt":
            return Answer("halt", wish.rule, "granted")
        custom = {limit.name: limit for limit in limits.custom}
        limit = getattr(limits, wish.action) if wish.action in BUILT_IN else custom.get(wish.action)
        if limit is None and not (wish.action == "clip" and limits.intervene):
            return _refused(wish)
        match wish.action:
            case "rollback" | "skip" | "freeze" | "clip" | "scale_lr":
                return getattr(self, f"_{wish.action}")(moment, wish, limit)
        if wish.action in BUILT_IN or limit.low is None:
            return self._spend(moment.tick, Answer(wish.action, wish.rule, "granted"))
        return self._spend(moment.tick, _held(wish, limit.low, limit.high))

    def _rollback(self, moment: Moment, wish: Ask, limit: p.RollbackLimit) -> Answer:
        progress, highest = self.progress()
        held = _held(wish, 0, limit.distance)
        reachable = [one for one in self._healthy() if highest - (held.amount or 0.0) <= one <= progress]
        past = [tick for name, tick in self.spent if name == "rollback"]
        if not reachable or (past and moment.tick - past[-1] < limit.spacing):
            return _refused(wish)
        return self._spend(moment.tick, evolve(held, amount=max(reachable)))

    def _skip(self, moment: Moment, wish: Ask, limit: p.SkipLimit) -> Answer:
        if self._skipped_in_a_row() >= limit.in_a_row:
            return _refused(wish)
        return self._spend(moment.tick, Answer("skip", wish.rule, "granted"))

    def _freeze(self, moment: Moment, wish: Ask, limit: p.FreezeLimit) -> Answer:
        held, lasted = _held(wish, 0.0, limit.share), self._frozen_for()
        if not held.amount or lasted >= limit.duration or moment.tick < self._resting_until():
            return _refused(wish)
        return evolve(held, starts=False) if lasted else self._spend(moment.tick, held)

    def _clip(self, moment: Moment, wish: Ask, _: p.Budget | None) -> Answer:
        norm, to = moment.layer_norm if wish.layers else moment.norm, wish.amount
        if norm is None or to is None or not math.isfinite(norm) or not math.isfinite(to) or to < 0:
            return _refused(wish)
        if norm <= to:
            return Answer("clip", wish.rule, "granted", 1.0, starts=False)
        return self._spend(moment.tick, Answer("clip", wish.rule, "granted", min(1.0, to / norm)))

    def _scale_lr(self, moment: Moment, wish: Ask, limit: p.ScaleLimit) -> Answer:
        held, before = _held(wish, limit.low, limit.high), self._factor_before()
        if (held.amount or 0.0) >= before:
            return evolve(held, starts=False)
        answer = self._spend(moment.tick, held)
        if not answer.granted and before < 1.0:
            return Answer("scale_lr", wish.rule, "reduced", before, starts=False)
        return answer

    def _spend(self, tick: int, answer: Answer) -> Answer:
        """Take one from the action's budget and from that of all interventions, or refuse."""
        budgets = dict(self._budgets(answer.action))
        for name, budget in budgets.items():
            if sum(one == name and tick - budget.window < at for one, at in self.spent) >= budget.count:
                return _refused(answer)
        self.spent += [(name, tick) for name in {answer.action, *budgets}]
        return answer

    def _budgets(self, action: str) -> Iterator[tuple[str, p.Budget]]:
        limits = self.policy.limits
        custom = {limit.name: limit.budget for limit in limits.custom if limit.name not in BUILT_IN}
        own = {"skip": limits.skip and limits.skip.budget, "rollback": limits.rollback and limits.rollback.budget,
               "clip": limits.clip, "reset_moments": limits.reset_moments, "checkpoint": limits.checkpoint}  # fmt: skip
        budget = (own | custom).get(action)
        if budget is not None:
            yield action, budget
        if limits.intervene is not None and action != "checkpoint":
            yield "intervene", limits.intervene


def _held(wish: Ask, low: float, high: float) -> Answer:
    """Return a request granted or reduced to its range; what is no number is the lower, careful end."""
    asked = math.nan if wish.amount is None else wish.amount
    amount = low if math.isnan(asked) or asked < low else min(asked, high)
    return Answer(wish.action, wish.rule, "granted" if asked == amount else "reduced", amount)


def _refused(wish: Ask | Answer) -> Answer:
    return Answer(wish.action, wish.rule, "refused", None, starts=False)


def _find(answers: tuple[Answer, ...], action: str) -> Answer | None:
    return next((one for one in answers if one.action == action and one.granted), None)


def _run(flags: list[bool]) -> int:
    """Return how many flags at the end are set."""
    return next((n for n, one in enumerate(reversed(flags)) if not one), len(flags))


def _turn(action: str) -> tuple[int, str]:
    """Return the place of an action in the order of answers; actions of plugins stand between, by name."""
    if action in FIRST:
        return FIRST.index(action), ""
    return (len(FIRST) + 1 + LAST.index(action), "") if action in LAST else (len(FIRST), action)


def _pointless(action: str, found: list[Answer]) -> bool:
    done = {one.action for one in found if one.granted}
    if "halt" in done:
        return action != "checkpoint"
    return action in ("skip", "clip") and bool(done & {"rollback", "skip"})
