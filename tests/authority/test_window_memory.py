"""What the windows hold, measured, against what the authority card says."""

from __future__ import annotations

import sys
from collections import deque

from lbw_policy.authority.memory import memory
from lbw_policy.machine import Session
from lbw_policy.semantics import load


def test_full_windows_hold_no_more_than_the_card_says() -> None:
    """The sizes are measured, with values whose exact sums are as long as they can be."""
    names = ["median", "mean", "ewma", "slope", "min", "std", "prev"]
    rules = "\n".join(f'alert {name}{n} info when {name}(loss, {n} steps) > 1 "a"' for name in names for n in (40, 900))
    policy = load(f"lbw 1\npolicy p {{ }}\nsignal loss = telemetry.loss\n{rules}\n")
    evaluator = Session(policy).machine.evaluator
    for tick in range(2_000):
        evaluator.begin(tick, {"loss": (-1.0) ** tick * (tick + 0.3) * 10.0 ** (tick * 37 % 600 - 300)})
        evaluator.finish({})
        evaluator.commit(quarantined=False)
    windows = [*evaluator._ranked, *evaluator._summed, *evaluator._trends]
    assert sum(_size(window, set()) for window in windows) <= memory(policy).bytes
    assert memory(policy).samples == 4 * (900 + 40)  # one for those that rank, one for those that sum, slope, prev


def _size(found: object, seen: set[int]) -> int:
    """Return the bytes of an object with all it holds, each part once."""
    if id(found) in seen:
        return 0
    seen.add(id(found))
    slots = [name for kind in type(found).__mro__ for name in getattr(kind, "__slots__", ()) if name != "__weakref__"]
    parts = [getattr(found, name) for name in slots if hasattr(found, name)]
    parts += [*found] if isinstance(found, list | tuple | deque) else []
    return sys.getsizeof(found) + sum(_size(part, seen) for part in parts)
