"""The report in the terminal: one row for each run, one line for what the guard cost."""

from __future__ import annotations

import math

from rich import box
from rich.table import Table
from rich.text import Text

from lbw_policy.lab.results import PairResult, Report, RunResult

_NUMBERS = ("steps to\nrecover", "held-out\nloss", "vs trouble-\nfree")
_COLUMNS = ("fault", "run", "crashed?", *_NUMBERS, "interventions")


def table(report: Report) -> Table:
    """Return one row for each run of the report, pair by pair."""
    filled = Table(box=box.SIMPLE_HEAD, title=_title(report), title_justify="left", title_style="bold")
    for name in _COLUMNS:
        filled.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=name != "interventions")
    for pair in report.pairs:
        filled.add_row(pair.title, "unguarded", *_cells(pair.plain, pair, report), "")
        filled.add_row("", "guarded", *_cells(pair.guarded, pair, report), interventions(pair.guarded))
        filled.add_section()
    return filled


def summary(report: Report) -> list[str]:
    """Return what the table says in a few lines: runs saved, and the time the guard took."""
    troubled = report.troubled
    lost = [sum(pair.plain.crashed for pair in troubled), sum(pair.guarded.crashed for pair in troubled)]
    each = ", ".join(f"{pair.fault} {percent(pair.overhead)}" for pair in troubled)
    return [
        f"crashed: {lost[0]} of {len(troubled)} unguarded, {lost[1]} of {len(troubled)} guarded",
        f"step-time overhead of the guard: {percent(report.calm.overhead)} on the trouble-free pair"
        f" (median step times {report.calm.plain.step_ms:.1f} ms unguarded,"
        f" {report.calm.guarded.step_ms:.1f} ms guarded; {report.parameters:,} parameters)",
        *([f"  on the other pairs: {each}"] if each else []),
    ]


def interventions(run: RunResult) -> str:
    """Return the interventions of a run by kind, such as `4 skip, 1 rollback`."""
    done = [f"{count} {action}" for action, count in run.counts().most_common()]
    return ", ".join(done + ([f"{run.refused} refused"] if run.refused else [])) or "none"


def percent(share: float) -> str:
    """Return a share as a signed percentage, a dash where there is none."""
    return f"{100 * share:+.1f} %" if math.isfinite(share) else "-"


def _title(report: Report) -> str:
    return f"{report.task}, {report.steps} steps, seed {report.seed}, policy {report.policy}"


def _cells(run: RunResult, pair: PairResult, report: Report) -> tuple[Text, str, str, str]:
    against = run.held_out / report.calm.plain.held_out - 1
    return _crash(run), _recovery(run, pair, report), f"{run.held_out:.3f}", percent(against)


def _crash(run: RunResult) -> Text:
    if run.halted is not None:
        return Text(f"halted at {run.halted}", style="bold red")
    return Text("yes", style="bold red") if run.crashed else Text("no", style="green")


def _recovery(run: RunResult, pair: PairResult, report: Report) -> str:
    if pair is report.calm:
        return "-"
    return "never" if run.recovery is None else str(run.recovery)
