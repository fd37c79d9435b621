"""Differences between the `limits` of two policies: which number is looser, which tighter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from lbw_policy.reading.changes import Difference, Direction, budgets, wider
from lbw_policy.reading.phrases import budget
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.spelling import amount, share, steps

_WORDS = {"in_a_row": "in a row", "low": "least factor", "high": "most factor"}
_DURATIONS = ("distance", "duration", "spacing")
_LEAST = ("low", "spacing")
"""Numbers of which a greater one allows less."""


def limits(before: p.Limits, after: p.Limits) -> Iterator[Difference]:
    """Yield every number of the limits that differs."""
    for field in attrs.fields(p.Limits):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if isinstance(old, tuple) or isinstance(new, tuple):
            yield from _named(old, new)
        elif field.name == "overhead":
            yield from _overhead(old, new)
        elif old != new:
            yield from _limit(field.name, (old, new), _allowed(before, field.name), _allowed(after, field.name))


def _overhead(old: float | None, new: float | None) -> Iterator[Difference]:
    """No limit is no bound at all."""
    if old != new:
        before, after = (None if one is None else f"at most {share(one)} of a step" for one in (old, new))
        direction = wider(math.inf if old is None else old, math.inf if new is None else new)
        yield Difference("limits", "overhead", before, after, direction)


def _named(before: Sequence[object], after: Sequence[object]) -> Iterator[Difference]:
    """Yield differences between limits kept by name, as those of plugins are."""
    old, new = ({str(getattr(one, "name", one)): one for one in group} for group in (before, after))
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield from _limit(name, (old.get(name), new.get(name)), name in old, name in new)


def _allowed(limit: p.Limits, name: str) -> bool:
    """Tell whether the limits allow an action at all, or for `intervene`, any other."""
    if name == "clip":
        return limit.clip is not None or limit.intervene is not None
    if name == "intervene":
        others = (field.name for field in attrs.fields(p.Limits) if field.name not in {*p.NO_ACTION, "halt"})
        return any(getattr(limit, other) for other in others)
    return bool(getattr(limit, name))


def _limit(name: str, pair: tuple[Any, Any], could: bool, can: bool) -> Iterator[Difference]:
    old, new = pair
    if isinstance(old, bool) or isinstance(new, bool):
        yield Difference("limits", name, str(old), str(new), wider(bool(old), bool(new)))
    elif old is None:
        # A limit where there was none gives leave to act, or binds what was already allowed.
        yield Difference("limits", name, None, spelt(new), Direction.TIGHTER if could else Direction.LOOSER)
    elif new is None:
        yield Difference("limits", name, spelt(old), None, Direction.LOOSER if can else Direction.TIGHTER)
    elif isinstance(old, p.Budget):
        yield from _budget(name, old, new)
    else:
        yield from _numbers(name, old, new)


def _numbers(name: str, old: attrs.AttrsInstance, new: attrs.AttrsInstance) -> Iterator[Difference]:
    for field in attrs.fields(type(old)):
        one, other = getattr(old, field.name), getattr(new, field.name)
        if isinstance(one, p.Budget) and isinstance(other, p.Budget):
            yield from _budget(name, one, other)
        elif one != other:
            what = f"{name} {_WORDS.get(field.name, field.name)}"
            ordered = isinstance(one, int | float) and isinstance(other, int | float)
            direction = wider(one, other, more=field.name not in _LEAST) if ordered else Direction.CHANGED
            yield Difference("limits", what, _shown(field.name, one), _shown(field.name, other), direction)


def _budget(name: str, old: p.Budget, new: p.Budget) -> Iterator[Difference]:
    direction = budgets(old, new)
    if direction:
        yield Difference("limits", name, budget(old), budget(new), direction)


def _shown(name: str, value: object) -> str:
    if name in _DURATIONS and isinstance(value, int):
        return steps(value) if value else "none"
    if name == "share" and isinstance(value, float):
        return share(value)
    return amount(value) if isinstance(value, int | float) else str(value)


def spelt(limit: attrs.AttrsInstance) -> str:
    """Return a limit in a few words."""
    if isinstance(limit, p.Budget):
        return budget(limit)
    found = {field.name: getattr(limit, field.name) for field in attrs.fields(type(limit)) if field.name != "name"}
    return ", ".join(
        budget(value) if isinstance(value, p.Budget) else f"{_WORDS.get(name, name)} {_shown(name, value)}"
        for name, value in found.items()
        if value is not None and (name, value) != ("spacing", 0)
    )
