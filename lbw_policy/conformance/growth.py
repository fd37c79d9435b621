"""Whether a plugin keeps more and more."""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from lbw_policy.conformance.findings import Findings
from lbw_policy.conformance.worlds import World

CALLS = 200
_WINDOW = CALLS // 4


def check_growth(call: Callable[[int], object], findings: Findings, world: World | None = None) -> None:
    """Find what is kept anew in call after call, by the plugin or in the optimizer's state.

    The first quarter is for what is kept once. After it, one more block of memory for each call, in every quarter, or
    a larger state in every one, is taken for a leak.
    """
    blocks, held = [], []
    with _old_objects_aside():
        for number in range(CALLS):
            call(1_000 + number)
            if number % _WINDOW == _WINDOW - 1:
                gc.collect()
                blocks.append(sys.getallocatedblocks())
                held.append(_elements(world) if world else 0)
    if all(later > before for before, later in itertools.pairwise(held)):
        findings.add("grows the optimizer's state", f"from {held[0]} to {held[-1]} numbers in {CALLS} calls")
    if all(later - before >= _WINDOW for before, later in itertools.pairwise(blocks)):
        findings.add("keeps more with each call", f"memory grew all the way through {CALLS} calls; keep a bounded past")


@contextmanager
def _old_objects_aside() -> Iterator[None]:
    """Let collections look at new objects only: those of torch alone take a second each time."""
    if gc.get_freeze_count():  # the program has put some aside, and they would come back with ours
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _elements(world: World) -> int:
    entries = [entry for entry in world.optimizer.state.values() if isinstance(entry, Mapping)]
    options = [value for group in world.optimizer.param_groups for value in group.values()]
    found = [value for entry in (*entries, *world.optimizer.param_groups) for value in entry.values()]
    return len(world.optimizer.state) + len(options) + sum(_size(value) for value in found)


def _size(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel()
    return len(value) if isinstance(value, list | tuple | dict | set) else 1
