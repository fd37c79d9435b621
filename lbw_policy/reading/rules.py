"""Differences between the rules of two policies: thresholds, holds, timers and actions."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import attrs
from attrs import frozen

from lbw_policy.reading.acts import asked, written
from lbw_policy.reading.changes import Difference, Direction, holds, wider
from lbw_policy.reading.normal import inward, normal, shape
from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.spelling import Vocabulary, spell, steps
from lbw_policy.semantics.walk import chain


@frozen
class Tongue:
    """Words for both policies: a `let` goes by its name unless the two define it differently.

    `shared` has only the names of what both define, for conditions that differ inside of a `let`.
    """

    before: Vocabulary
    after: Vocabulary
    shared: Vocabulary

    @classmethod
    def between(cls, before: p.Policy, after: p.Policy) -> Tongue:
        """Return the words of two policies; what they name differently has the first one's name."""
        old, new = Vocabulary.of(before), Vocabulary.of(after)
        common = {expression: name for expression, name in old.names.items() if expression in new.names}
        taken = {name for vocabulary in (old, new) for known, name in vocabulary.names.items() if known not in common}
        both = set(old.names.values()) & set(new.names.values()) & taken
        names = {known: name for known, name in {**new.names, **old.names}.items() if name not in both}
        return cls(attrs.evolve(old, names=names), attrs.evolve(new, names=names), attrs.evolve(old, names=common))

    # Rules

    def reflexes(self, part: str, before: p.Reflex, after: p.Reflex) -> Iterator[Difference]:
        """Yield what differs between two reflexes."""
        yield from self._conditions(part, "when", before.condition, after.condition)
        yield from self._actions(part, before.actions, after.actions)

    def levels(self, part: str, before: p.Level, after: p.Level) -> Iterator[Difference]:
        """Yield what differs between two levels."""
        yield from self._triggers(part, "enter", before.enter, after.enter)
        yield from self._triggers(part, "leave", before.leave, after.leave)
        yield from _timers(part, before, after)
        yield from self._actions(part, before.actions, after.actions)
        yield from self._periodic(part, before.periodic, after.periodic)

    def alerts(self, part: str, before: p.Alert, after: p.Alert) -> Iterator[Difference]:
        """Yield what differs between two alerts."""
        if before.severity != after.severity:
            yield Difference(part, "severity", before.severity, after.severity)
        yield from self._triggers(part, "when", before.trigger, after.trigger)
        old, new = ([normal(number) for _, number in alert.values] for alert in (before, after))
        if before.message != after.message or old != new:
            yield Difference(part, "message", before.message, after.message)

    # Conditions

    def _triggers(self, part: str, what: str, old: p.Trigger | None, new: p.Trigger | None) -> Iterator[Difference]:
        if old is None or new is None:
            if old != new:
                before, after = (
                    _trigger(old, self.before) if old else None,
                    _trigger(new, self.after) if new else None,
                )
                yield Difference(part, what, before, after)
            return
        yield from self._conditions(part, what, old.condition, new.condition)
        if (old.count, old.window) != (new.count, new.window):
            shown = [_hold(one).strip() or "at once" for one in (old, new)]
            yield Difference(part, f"{what} hold", shown[0], shown[1], holds(old, new))

    def _conditions(self, part: str, what: str, old: e.Condition, new: e.Condition) -> Iterator[Difference]:
        pairs = _pairs(inward(old), inward(new))
        for one, other in [(old, new)] if pairs is None else pairs:
            direction = _threshold(one, other)
            inside = pairs is not None and direction is Direction.CHANGED
            words = (self.shared, attrs.evolve(self.shared, every=self.after.every)) if inside else None
            old_words, new_words = words or (self.before, self.after)
            yield Difference(part, what, spell(one, old_words), spell(other, new_words), direction)

    # Actions

    def _actions(self, part: str, before: Sequence[p.Action], after: Sequence[p.Action]) -> Iterator[Difference]:
        """Compare actions of one kind with each other: their order among other kinds means nothing."""
        for name in dict.fromkeys(p.name_of(action) for action in (*before, *after)):
            old, new = ([action for action in group if p.name_of(action) == name] for group in (before, after))
            if [normal_action(one) for one in old] != [normal_action(one) for one in new]:
                texts = [" ".join(f"do {written(act, words)}" for act in group) or None
                         for group, words in ((old, self.before), (new, self.after))]  # fmt: skip
                yield Difference(part, "", texts[0], texts[1], _asks(old, new))

    def _periodic(self, part: str, before: Sequence[p.Periodic], after: Sequence[p.Periodic]) -> Iterator[Difference]:
        old, new = ([(each.every, normal_action(each.action)) for each in group] for group in (before, after))
        if old != new:
            texts = [" ".join(f"each {steps(each.every)} do {written(each.action, words)}" for each in group) or None
                     for group, words in ((before, self.before), (after, self.after))]  # fmt: skip
            yield Difference(part, "", texts[0], texts[1])


def summary(rule: p.Reflex | p.Level | p.Alert, words: Vocabulary) -> str:
    """Return a rule that only one policy has in a few words."""
    match rule:
        case p.Reflex(_, condition, actions):
            return " ".join([f"when {spell(condition, words)}", *_done(actions, words)])
        case p.Level():
            enter = f"enter when {_trigger(rule.enter, words)}" if rule.enter else "never entered"
            return " ".join([enter, *_done(rule.actions, words)])
        case p.Alert():
            return f"{rule.severity} when {_trigger(rule.trigger, words)}"


def features(risk: p.Risk, words: Vocabulary) -> str:
    """Return a risk's features as a policy writes them."""
    return ", ".join([*(["standard"] * risk.standard), *(spell(number, words) for _, number in risk.features)])


def _trigger(trigger: p.Trigger, words: Vocabulary) -> str:
    return f"{spell(trigger.condition, words)}{_hold(trigger)}"


def _done(actions: Sequence[p.Action], words: Vocabulary) -> list[str]:
    return [f"do {written(action, words)}" for action in actions]


def _hold(trigger: p.Trigger) -> str:
    if trigger.window == 1:
        return ""
    count = "" if trigger.count == trigger.window else f"{trigger.count} of "
    return f" for {count}{steps(trigger.window)}"


def _timers(part: str, before: p.Level, after: p.Level) -> Iterator[Difference]:
    if before.stay != after.stay:
        old, new = (None if one.stay is None else steps(one.stay) for one in (before, after))
        direction = wider(before.stay or float("inf"), after.stay or float("inf"))
        yield Difference(part, "stay at most", old, new, direction)
    if before.settles != after.settles:
        old, new = (None if one.settles is None else steps(one.settles) for one in (before, after))
        yield Difference(part, "settles after", old, new)
    if before.cooldown != after.cooldown:
        direction = wider(before.cooldown, after.cooldown, more=False)
        yield Difference(part, "cooldown", steps(before.cooldown), steps(after.cooldown), direction)


def _pairs(old: e.Condition, new: e.Condition) -> list[tuple[e.Condition, e.Condition]] | None:
    """Return the smallest conditions that differ in numbers only; None where more differs."""
    if normal(old) == normal(new):
        return []
    match old, new:
        case (e.Both(a, b), e.Both(c, d)) | (e.Either(a, b), e.Either(c, d)):
            sides = [_pairs(a, c), _pairs(b, d)]
            return None if None in sides else [pair for side in sides for pair in side or ()]
        case _:
            return [(old, new)] if shape(old) == shape(new) else None


def _threshold(old: e.Condition, new: e.Condition) -> Direction:
    """Tell whether a comparison with another constant holds sooner or later."""
    if (
        not isinstance(old, e.Comparison)
        or not isinstance(new, e.Comparison)
        or old.op != new.op
        or old.op in ("==", "!=")
    ):
        return Direction.CHANGED
    for moved, still, raised in (("right", "left", old.op[0] == "<"), ("left", "right", old.op[0] == ">")):
        one, other = (_value(getattr(side, moved)) for side in (old, new))
        fixed = normal(getattr(old, still)) == normal(getattr(new, still))
        if fixed and one is not None and other is not None and one != other:
            return Direction.SOONER if (other > one) == raised else Direction.LATER
    return Direction.CHANGED


def _value(node: e.Number) -> float | None:
    match node:
        case e.Constant(value):
            return value
        case e.Function("neg", e.Constant(value)):
            return -value
        case _:
            return None


def normal_action(action: p.Action) -> Hashable:
    """Return a key that is equal for actions that do the same, also where they are refused."""
    return tuple(_normal(one) for one in chain(action))


def _normal(action: p.Action) -> Hashable:
    values = (getattr(action, field.name) for field in attrs.fields(type(action)) if field.name != "otherwise")
    return p.name_of(action), *(normal(value) if isinstance(value, e.Expression) else value for value in values)


def _asks(old: Sequence[p.Action], new: Sequence[p.Action]) -> Direction:
    """Tell whether an action that only changed in its amount asks for more."""
    if len(old) != 1 or len(new) != 1 or _fallbacks(old[0]) != _fallbacks(new[0]):
        return Direction.CHANGED
    one, other = asked(old[0]), asked(new[0])
    if one is None or other is None or one == other:
        return Direction.CHANGED
    return wider(one, other, more=not isinstance(old[0], p.ScaleLr))


def _fallbacks(action: p.Action) -> Hashable:
    return action.otherwise and normal_action(action.otherwise)
