"""The contract of functions: finite number in, number out, nothing remembered."""

from __future__ import annotations

import math
import numbers
import sys

from lbw_policy.conformance.findings import Findings, raised
from lbw_policy.conformance.growth import check_growth
from lbw_policy.conformance.pictures import Picture, changes, same
from lbw_policy.conformance.worlds import World, build, settings
from lbw_policy.semantics.plugins import FunctionPlugin

_TINY, _HUGE = math.ulp(0.0), sys.float_info.max
VALUES = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 100.0, 1e-9, -1e9, _TINY, -_TINY, _HUGE, -_HUGE)
"""What functions are called with: finite numbers only."""
_AGAIN = {
    "random": "takes a random number of the process: the run, and its replay, would go differently",
    "modes": "a function changes nothing",
}


def check_values(plugin: FunctionPlugin, findings: Findings) -> None:
    """Find what a function does that its contract forbids."""
    world = build(next(settings()))
    before = Picture.of(world)
    answers = [_answer(plugin, value, findings) for value in VALUES]
    again = [_answer(plugin, value, findings) for value in reversed(VALUES)]
    for value, one, other in zip(VALUES, answers, reversed(again), strict=True):
        if one is not None and other is not None and not same(one, other):
            findings.add("answers differently when asked again", f"`{plugin.name}({value:g})` was {one:g}, then "
                         f"{other:g}; a function has no memory")  # fmt: skip
    _check_changes(before, world, findings)
    if not findings.all():
        check_growth(lambda number: plugin.evaluate(number + 0.5), findings)


def _answer(plugin: FunctionPlugin, value: float, findings: Findings) -> float | None:
    try:
        found: object = plugin.evaluate(value)
    except (Exception, SystemExit) as error:
        findings.add("raises", f"`{plugin.name}({value:g})` raised {raised(error)}; answer NaN where there is no value")
        return None
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        findings.add("answers with no number", f"`{plugin.name}({value:g})` answered a `{type(found).__name__}`")
        return None
    try:
        return float(found)
    except OverflowError:
        findings.add("answers with no number", f"`{plugin.name}({value:g})` answered a number too large for a float")
        return None


def _check_changes(before: Picture, world: World, findings: Findings) -> None:
    for part, place in changes(before, Picture.of(world)):
        findings.add("changes something", f"{place} was changed: {_AGAIN.get(part, _AGAIN['modes'])}")
