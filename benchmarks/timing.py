"""Timing that a busy machine cannot bend much: arms take turns, block by block; medians and quartiles.

A cell has the median over the blocks and, in brackets, its quartiles; CPU time is beside wall time.
"""

from __future__ import annotations

import importlib.metadata
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from attrs import define, field, frozen

US, MS = 1e-6, 1e-3


@frozen
class Arm:
    """Something to time: `run` does its work `count` times."""

    name: str
    run: Callable[[], object]
    count: int = 1


@define
class Times:
    """Seconds of wall and CPU time a piece of work took, block by block."""

    wall: list[float] = field(factory=list)
    cpu: list[float] = field(factory=list)

    @property
    def median(self) -> float:
        """The median wall time."""
        return statistics.median(self.wall)

    def shown(self, unit: float) -> str:
        """Return `median [lower quartile..upper quartile]` in the given unit."""
        low, _, high = statistics.quantiles(self.wall, n=4)
        return f"{self.median / unit:.3g} [{low / unit:.3g}..{high / unit:.3g}]"

    def cpu_shown(self, unit: float) -> str:
        """Return the median CPU time in the given unit."""
        return f"{statistics.median(self.cpu) / unit:.3g}"


def in_turns(arms: Sequence[Arm], blocks: int) -> dict[str, Times]:
    """Time all arms in turns, each block beginning with another arm, after one block that does not count."""
    found = {arm.name: Times() for arm in arms}
    for block in range(blocks + 1):
        first = block % len(arms)
        for arm in (*arms[first:], *arms[:first]):
            wall, cpu = time.perf_counter(), time.process_time()
            arm.run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if block:
                found[arm.name].wall.append(wall / arm.count)
                found[arm.name].cpu.append(cpu / arm.count)
    return found


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one markdown table."""
    print(f"\n### {title}\n")
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def missing(peer: str) -> str | None:
    """Return why a peer cannot be compared with, None if it can."""
    try:
        importlib.metadata.version(peer)
    except importlib.metadata.PackageNotFoundError:
        return f"`{peer}` is not installed"
    return None
