"""How fast and how long the levels of a policy can be visited, whatever the telemetry says.

All of it follows from holds, `stay` and `cooldown`, as `machine/ladder.py` keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence

from lbw_policy.semantics.policy import Level, ScaleLr
from lbw_policy.semantics.walk import chain, first_actions


def shortest_stay(level: Level) -> int | None:
    """Return the fewest steps in a level before the run can go down from it, None where it never does."""
    ways = [level.leave.count if level.leave else None, level.stay]
    return min((way for way in ways if way is not None), default=None)


def soonest_again(levels: Sequence[Level], index: int) -> int | None:
    """Return the fewest steps between two entries of a level, None where there is at most one.

    The level is left downwards and entered again after its cooldown; or the run goes further up, comes
    back to it, and its trigger fires anew, which counts from there and which no cooldown prevents.
    """
    enter, above = levels[index].enter, levels[index + 1 : index + 2]
    if not index or enter is None:
        return None
    stay, higher = shortest_stay(levels[index]), shortest_stay(above[0]) if above else None
    ways = [] if stay is None else [stay + max(1, levels[index].cooldown)]
    ways += [] if higher is None else [higher + 1 + enter.count]
    return max(enter.count, min(ways)) if ways else None


def fastest_again(levels: Sequence[Level]) -> int | None:
    """Return the fewest steps between two entries of the same level, None where no level is entered twice."""
    gaps = (soonest_again(levels, index) for index in range(1, len(levels)))
    return min((gap for gap in gaps if gap is not None), default=None)


def calm_return(levels: Sequence[Level]) -> int | None:
    """Return the most steps until the calm level, once no `enter` condition holds and every `leave` condition does.

    None where a level has no way back. What came before the calm still counts for a while: a trigger of K in N
    steps can fire up to N - K steps into it, where its level, left but now, or its cooldown kept it from firing.
    """
    down = most = 0
    for level in levels[1 : _top(levels) + 1]:
        stay, enter = shortest_stay(level), level.enter
        if stay is None:
            return None
        down += stay
        most = max(most, down + (enter.window - enter.count if enter else 0))
    return most


def calm_restore(levels: Sequence[Level]) -> int | None:
    """Return the most steps of calm until every lr factor is 1 again: `restore`, and one step for rounding.

    None where there is no bound, 0 where no level scales the lr.
    """
    asked = (one for level in levels for action in first_actions(level) for one in chain(action))
    over = [action.restore for action in asked if isinstance(action, ScaleLr)]
    back = calm_return(levels)
    return 0 if not over else None if back is None else back + max(over) + 1


def longest_stay(levels: Sequence[Level]) -> int | None:
    """Return the most steps in a row at one level above the calm one, None where nothing bounds them.

    A level that is come down to may be entered again at the end of its `stay`, which then begins anew.
    """
    top, most = _top(levels), 0
    for index, level in enumerate(levels[1 : top + 1], start=1):
        if level.stay is None:
            return None
        from_above = index < top and shortest_stay(levels[index + 1]) is not None
        most = max(most, level.stay * (_stays(level) if from_above else 1))
    return most


def _stays(level: Level) -> int:
    """Return how often `stay` can begin in a level that is come down to: anew, if the trigger has the time to fire."""
    return 2 if level.enter and level.stay and level.enter.count <= level.stay else 1


def longest_visit(levels: Sequence[Level]) -> int | None:
    """Return the most steps from leaving the calm level to coming back to it, None where nothing bounds them.

    They are bounded if no level can be entered again before the calm one is reached: its cooldown outlasts all
    the stays below it. Then a level is reached at most once from below and once from above, and once more where
    its trigger fires anew after that.
    """
    top, below, total = _top(levels), 0, 0
    for index, level in enumerate(levels[1 : top + 1], start=1):
        again = _stays(level)
        if level.stay is None or (index > 1 and level.enter and level.cooldown <= below):
            return None
        total += level.stay * ((again + bool(level.enter)) if index < top else 1)
        below += level.stay * again
    return total


def _top(levels: Sequence[Level]) -> int:
    """Return the highest level that can be entered at all, 0 if none can."""
    return max((index for index, level in enumerate(levels) if level.enter), default=0)
