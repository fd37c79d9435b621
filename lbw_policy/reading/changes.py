"""One difference between two policies, and what direction it has."""

from __future__ import annotations

import enum
from typing import Any

from attrs import frozen

from lbw_policy.authority.allowance import most
from lbw_policy.semantics import policy as p


class Direction(enum.Enum):
    """What a difference does, seen from the first policy to the second.

    A bound is `looser` where the guard may do more than before, in size, number or time, `tighter`
    where it may do less, `mixed` where it is both. A rule fires `sooner` or `later` where every
    reading that fired the one fires the other too. All else is `changed`.
    """

    LOOSER = "looser"
    TIGHTER = "tighter"
    MIXED = "mixed"
    SOONER = "sooner"
    LATER = "later"
    CHANGED = "changed"

    @property
    def loosens(self) -> bool:
        """Whether the guard may do something that it might not do before."""
        return self in (Direction.LOOSER, Direction.MIXED)


@frozen
class Difference:
    """What differs: the part and its name, which of its clauses, before and after.

    `before` is None for what was added and `after` for what was removed.
    """

    part: str
    what: str
    before: str | None
    after: str | None
    direction: Direction = Direction.CHANGED

    @property
    def kind(self) -> str:
        """`added`, `removed` or `changed`."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"

    def as_dict(self) -> dict[str, Any]:
        """Return the difference as plain data."""
        plain = {name: getattr(self, name) for name in ("part", "what", "kind", "before", "after")}
        return {**plain, "direction": self.direction.value, "loosens": self.direction.loosens}


def wider(before: float, after: float, *, more: bool = True) -> Direction:
    """Return the direction of a bound's change, where `more` tells that a greater number allows more."""
    if before == after:
        return Direction.CHANGED
    return Direction.LOOSER if (after > before) == more else Direction.TIGHTER


def budgets(before: p.Budget, after: p.Budget) -> Direction | None:
    """Return the direction of a budget's change; None where both allow exactly the same."""
    wider_, narrower = most(before, after.window) <= after.count, most(after, before.window) <= before.count
    if wider_ and narrower:
        return None
    if not wider_ and not narrower:
        return Direction.MIXED
    return Direction.LOOSER if wider_ else Direction.TIGHTER


def holds(before: p.Trigger, after: p.Trigger) -> Direction:
    """Return whether a hold is met sooner or later than another."""
    if _meets(before, after):
        return Direction.SOONER
    return Direction.LATER if _meets(after, before) else Direction.CHANGED


def _meets(one: p.Trigger, other: p.Trigger) -> bool:
    """Tell whether a condition that meets the one hold always meets the other too."""
    return other.count <= one.count - max(0, one.window - other.window)
