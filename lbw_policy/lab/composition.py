"""What a corpus is made of, as a table: runs, divergences, what healed, and how much warning there was."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from rich import box
from rich.table import Table

from lbw_policy.corpora import CorpusRun

_PARTS: tuple[tuple[str, Callable[[CorpusRun], str]], ...] = (
    ("architecture", lambda run: run.architecture),
    ("optimizer", lambda run: run.optimizer),
    ("precision", lambda run: run.precision),
    ("split", lambda run: run.split),
    ("fault", lambda run: f"{run.group}: {run.fault}"),
)


def table(runs: Sequence[CorpusRun]) -> Table:
    """Return the runs by architecture, optimizer, precision, split and fault.

    The lead is the number of steps from the fault to the divergence, over the runs that diverged.
    """
    filled = Table(box=box.SIMPLE_HEAD)
    for name in ("", "runs", "diverged", "healed", "lead 0", "1-2", "3-9", "10 or more", "median"):
        filled.add_column(name, justify="right" if name else "left")
    for part, key in _PARTS:
        filled.add_row(f"[bold]{part}")
        for value in sorted({key(run) for run in runs}):
            filled.add_row(f"  {value}", *_cells([run for run in runs if key(run) == value]))
    filled.add_section()
    filled.add_row("all", *_cells(runs))
    return filled


def _cells(runs: Sequence[CorpusRun]) -> tuple[str, ...]:
    leads = [run.lead for run in runs if run.lead is not None]
    counts = [sum(low < lead <= high for lead in leads) for low, high in ((-1, 0), (0, 2), (2, 9), (9, 10**9))]
    median = f"{statistics.median(leads):g}" if leads else "-"
    told = (len(runs), sum(run.diverged for run in runs), sum(run.healed for run in runs), *counts)
    return (*map(str, told), median)
