"""What differs in meaning between two policies; layout, comments and names of `let`s do not count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import attrs

from lbw_policy.reading import rules
from lbw_policy.reading.bounds import limits
from lbw_policy.reading.changes import Difference, Direction, wider
from lbw_policy.reading.normal import mapped, normal
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Reading
from lbw_policy.semantics.spelling import Vocabulary, amount, share, steps

__all__ = ["Difference", "Direction", "differences", "report"]

Part = p.Param | p.Signal | p.LayerGroup | p.Risk | p.Reflex | p.Level | p.Alert


def differences(before: p.Policy, after: p.Policy) -> tuple[Difference, ...]:
    """Return every difference in meaning, in the order: bounds, settings, what is read, rules."""
    after = _aligned(before, after)
    tongue = rules.Tongue.between(before, after)
    found = [
        *limits(before.limits, after.limits),
        *_settings(before, after),
        *_matched("param", before.params, after.params, _param, tongue),
        *_matched("signal", before.signals, after.signals, _signal, tongue),
        *_matched("layers", before.layers, after.layers, _group, tongue),
        *_matched("risk", before.risks, after.risks, partial(_risk, tongue), tongue),
        *_order("reflexes", before.reflexes, after.reflexes),
        *_matched("reflex", before.reflexes, after.reflexes, tongue.reflexes, tongue),
        *_order("levels", before.levels, after.levels, all_=True),
        *_matched("level", before.levels[1:], after.levels[1:], tongue.levels, tongue),
        *_matched("alert", before.alerts, after.alerts, tongue.alerts, tongue),
        *_rest(before, after),
    ]
    return tuple(found)


def _aligned(before: p.Policy, after: p.Policy) -> p.Policy:
    """Return the second policy with signals under the first one's names where only the names differ."""
    known = {signal.name for signal in before.signals} & {signal.name for signal in after.signals}
    free = {attrs.evolve(one, name=""): one.name for one in reversed(before.signals) if one.name not in known}
    names: dict[str, str] = {}
    for signal in after.signals:
        meant = free.pop(attrs.evolve(signal, name=""), None) if signal.name not in known else None
        names[signal.name] = meant or signal.name
    return cast(p.Policy, _renamed(after, names)) if any(new != old for old, new in names.items()) else after


def _renamed(value: object, names: dict[str, str]) -> object:
    match value:
        case Reading(signal):
            return Reading(names.get(signal, signal))
        case p.Signal(name):
            return attrs.evolve(value, name=names[name])
        case p.Policy():
            return mapped(attrs.evolve(value, warnings=()), lambda part: _renamed(part, names))
        case _:
            return mapped(value, lambda part: _renamed(part, names))


def _matched(
    kind: str,
    before: Sequence[Any],
    after: Sequence[Any],
    compare: Callable[[str, Any, Any], Iterator[Difference]],
    tongue: rules.Tongue,
) -> Iterator[Difference]:
    """Yield what was removed, added, and what differs in parts of the same name."""
    old, new = ({one.name: one for one in group} for group in (before, after))
    for name, one in old.items():
        part = f"{kind} {name}"
        if name in new:
            yield from compare(part, one, new[name])
        else:
            yield Difference(part, "", _short(one, tongue.before), None)
    for name, one in new.items():
        if name not in old:
            yield Difference(f"{kind} {name}", "", None, _short(one, tongue.after))


def _short(one: Part, words: Vocabulary) -> str:
    match one:
        case p.Param():
            return f"{amount(one.value)} in [{amount(one.low)}, {amount(one.high)}]"
        case p.Signal():
            return _source(one)
        case p.Risk():
            return f"{one.model}, horizon {steps(one.horizon)}"
        case p.LayerGroup():
            return ", ".join([*one.globs, *(f"except {glob}" for glob in one.excepted)])
        case _:
            return rules.summary(one, words)


def _order(kind: str, before: Sequence[Any], after: Sequence[Any], *, all_: bool = False) -> Iterator[Difference]:
    """Yield a difference in the order of parts; of those in both, or of `all_`."""
    old, new = ([one.name for one in group] for group in (before, after))
    if not all_:
        old, new = [name for name in old if name in new], [name for name in new if name in old]
    if old != new:
        yield Difference(kind, "order", ", ".join(old), ", ".join(new))


# Parts that are not rules


def _settings(before: p.Policy, after: p.Policy) -> Iterator[Difference]:
    if before.quarantine != after.quarantine:
        yield Difference("policy", "quarantine", steps(before.quarantine), steps(after.quarantine))
    old, new = ("by itself" if one.snapshot_every is None else steps(one.snapshot_every) for one in (before, after))
    if old != new:
        yield Difference("policy", "snapshot every", old, new)
    if before.on_failure != after.on_failure:
        yield Difference("policy", "on failure", before.on_failure, after.on_failure)


def _param(part: str, before: p.Param, after: p.Param) -> Iterator[Difference]:
    if before.value != after.value:
        yield Difference(part, "value", amount(before.value), amount(after.value))
    for what, one, other in (("least", before.low, after.low), ("most", before.high, after.high)):
        if one != other:
            yield Difference(part, what, amount(one), amount(other), wider(one, other, more=what == "most"))


def _signal(part: str, before: p.Signal, after: p.Signal) -> Iterator[Difference]:
    old, new = _source(before), _source(after)
    if old != new:
        yield Difference(part, "source", old, new)
    if before.every != after.every:
        yield Difference(part, "every", steps(before.every), steps(after.every))
    if before.missing != after.missing:
        yield Difference(part, "missing", _missing(before.missing), _missing(after.missing))


def _source(signal: p.Signal) -> str:
    return f"{'observed' if signal.observed else 'telemetry'}.{signal.key}"


def _missing(missing: p.Missing) -> str:
    return f"hold {steps(missing.steps)}" if missing.kind == "hold" else missing.kind


def _risk(tongue: rules.Tongue, part: str, before: p.Risk, after: p.Risk) -> Iterator[Difference]:
    if before.horizon != after.horizon:
        yield Difference(part, "horizon", steps(before.horizon), steps(after.horizon))
    if _features(before) != _features(after):
        yield Difference(part, "features", rules.features(before, tongue.before), rules.features(after, tongue.after))
    if before.model != after.model:
        yield Difference(part, "model", before.model, after.model)
    if before.alarm != after.alarm:
        old, new = (f"{1_000 * one.alarm:.6g} false per 1_000 steps" for one in (before, after))
        yield Difference(part, "alarm", old, new, wider(before.alarm, after.alarm))
    if before.trust_after != after.trust_after:
        direction = wider(before.trust_after, after.trust_after, more=False)
        yield Difference(part, "trust after", steps(before.trust_after), steps(after.trust_after), direction)
    if before.fallback != after.fallback:
        yield Difference(part, "fallback", share(before.fallback), share(after.fallback))


def _features(risk: p.Risk) -> object:
    return risk.standard, frozenset(normal(number) for _, number in risk.features)


def _group(part: str, before: p.LayerGroup, after: p.LayerGroup) -> Iterator[Difference]:
    if before != after:
        yield Difference(part, "", _short(before, Vocabulary()), _short(after, Vocabulary()))


_COMPARED = {
    *("name", "doc", "digest", "params", "signals", "risks", "reflexes", "levels", "alerts", "limits"),
    *("quarantine", "snapshot_every", "on_failure", "layers", "tests"),
}


def _rest(before: p.Policy, after: p.Policy) -> Iterator[Difference]:
    """Yield parts of a policy that have no comparison of their own, rather than keep silent about them."""
    for field in attrs.fields(p.Policy):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if field.eq and field.name not in _COMPARED and old != new:
            yield Difference("policy", field.name, str(old), str(new))


# As text


def report(found: Sequence[Difference]) -> str:
    """Return differences as text, grouped by part; `!` marks what loosens, and the last line counts it."""
    if not found:
        return "no difference in meaning\n"
    lines: list[str] = []
    for index, one in enumerate(found):
        if not index or found[index - 1].part != one.part:
            lines.append(one.part)
        lines.append(_line(one))
    loose = sum(one.direction.loosens for one in found)
    counted = f"{len(found)} difference{'s' * (len(found) != 1)}"
    return "\n".join([*lines, f"{counted}, {loose} looser{' (marked !)' if loose else ''}"]) + "\n"


def _line(one: Difference) -> str:
    mark = "!" if one.direction.loosens else " "
    word = one.kind if one.direction is Direction.CHANGED else one.direction.value
    # A bound that comes or goes has a direction, which takes the place of the word `added` or `removed`.
    sides = [side or "none" for side in (one.before, one.after) if side is not None or word != one.kind]
    return f"  {mark} {word:<8}{one.what + ': ' if one.what else ''}{' -> '.join(sides)}"
