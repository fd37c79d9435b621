"""The report as one picture: a panel for each fault, with what the guard did marked below it."""

from __future__ import annotations

import math
from pathlib import Path

from attrs import frozen
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure

from lbw_policy.lab.measures import smoothed
from lbw_policy.lab.results import PairResult, Report, RunResult
from lbw_policy.lab.table import percent

# Okabe and Ito's palette: told apart by colour-blind readers, and each line has a shape of its own besides.
_PLAIN, _GUARDED, _CALM, _TROUBLE = "#D55E00", "#0072B2", "#8A8A8A", "#F0E442"
_COLUMNS = 3


@frozen
class Scale:
    """The part of the loss axis that is shown; what lies above is marked at the top."""

    low: float
    high: float
    steps: int
    actions: tuple[str, ...]


def draw(report: Report, path: Path) -> None:
    """Write the picture of a report as PNG."""
    rows = math.ceil((len(report.pairs) + 1) / _COLUMNS)
    figure = Figure(figsize=(15, 4.6 * rows + 0.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_title(report), fontsize=16, x=0.01, ha="left")
    cells = list(figure.subfigures(rows, _COLUMNS, squeeze=False).flat)
    for cell, pair in zip(cells, report.pairs, strict=False):
        _panel(cell, pair, report)
    _legend(cells[len(report.pairs)], report)
    figure.savefig(path)


def scale(report: Report) -> Scale:
    """Return an axis that holds all ordinary losses: from below the best to a little above the first."""
    finite = [loss for pair in report.pairs for run in _runs(pair) for loss in run.losses if math.isfinite(loss)]
    high = max(report.untrained, 1e-9) * 1.15
    actions = {name for pair in report.pairs for name in pair.guarded.counts()}
    return Scale(min(finite, default=0.0) * 0.86, high, report.steps, tuple(sorted(actions, reverse=True)))


def shown(losses: tuple[float, ...], high: float) -> list[float]:
    """Return the smoothed losses with NaN where the line must break: not finite, or above the axis."""
    return [loss if math.isfinite(loss) and loss <= high else math.nan for loss in smoothed(losses, ahead=3)]


def off_scale(losses: tuple[float, ...], high: float) -> list[int]:
    """Return the steps whose loss is finite but above the axis."""
    return [step for step, loss in enumerate(losses) if math.isfinite(loss) and loss > high]


def end_of_numbers(losses: tuple[float, ...]) -> int | None:
    """Return the first step from which no loss is finite any more; None where the run ends well."""
    lost = next((back for back, loss in enumerate(reversed(losses)) if math.isfinite(loss)), len(losses))
    return len(losses) - lost if lost else None


def _runs(pair: PairResult) -> tuple[RunResult, RunResult]:
    return pair.plain, pair.guarded


def _title(report: Report) -> str:
    return f"{report.task}, {report.parameters:,} parameters: unguarded, and guarded by `{report.policy}`"


def _panel(cell: SubFigure, pair: PairResult, report: Report) -> None:
    axis = scale(report)
    top, rug = cell.subplots(2, 1, sharex=True, height_ratios=(5.5, max(1.0, 0.42 * len(axis.actions))))
    top.plot(shown(report.calm.plain.losses, axis.high), color=_CALM, linewidth=3.2, alpha=0.75)
    if pair is not report.calm:
        top.axvspan(pair.start - 0.5, max(pair.start + pair.length, pair.start + 2) - 0.5, color=_TROUBLE, alpha=0.55)
        _curve(top, pair.plain, axis, (_PLAIN, "--", "^"))
    _curve(top, pair.guarded, axis, (_GUARDED, "-", "v"))
    _frame(top, pair, report, axis)
    _rug(rug, pair, axis)


def _curve(top: Axes, run: RunResult, axis: Scale, look: tuple[str, str, str]) -> None:
    color, line, marker = look
    top.plot(shown(run.losses, axis.high), color=color, linestyle=line, linewidth=1.8)
    above = off_scale(run.losses, axis.high)
    height = axis.high * (0.985 if marker == "^" else 0.945)
    top.plot(above, [height] * len(above), linestyle="", marker=marker, color=color, markersize=6)
    end = end_of_numbers(run.losses)
    if end is not None:
        _mark_end(top, run, end, (color, axis))


def _mark_end(top: Axes, run: RunResult, end: int, look: tuple[str, Scale]) -> None:
    color, axis = look
    height = shown(run.losses[:end], axis.high)[-1] if end else axis.high
    top.plot([end], [height], marker="X", markersize=13, color=color, markeredgecolor="white", zorder=5)
    top.annotate(
        f"NaN from step {end} on", (end, height), (12, 26), textcoords="offset points", color=color, fontsize=12
    )


def _frame(top: Axes, pair: PairResult, report: Report, axis: Scale) -> None:
    top.set_title(pair.title, fontsize=14, loc="left", fontweight="bold")
    top.set_xlim(0, axis.steps)
    top.set_yscale("log")
    top.set_ylim(axis.low, axis.high)
    top.set_yticks(*_loss_ticks(axis))
    top.minorticks_off()
    top.grid(alpha=0.25)
    top.tick_params(labelsize=11)
    top.set_ylabel("training loss", fontsize=12)
    base = report.calm.plain.held_out
    text = "\n".join(_score(name, run, base) for name, run in zip(("unguarded", "guarded"), _runs(pair), strict=True))
    top.text(0.02, 0.04, text, transform=top.transAxes, va="bottom", fontsize=11, family="monospace")


def _loss_ticks(axis: Scale) -> tuple[list[float], list[str]]:
    step = 0.5 if axis.high < 8 else axis.high / 10
    ticks = [step * each for each in range(1, 40) if axis.low <= step * each <= axis.high]
    return ticks, [f"{tick:.1f}" for tick in ticks]


def _score(name: str, run: RunResult, base: float) -> str:
    ending = "halted" if run.halted is not None else "crashed" if run.crashed else percent(run.held_out / base - 1)
    return f"{name:>9} {run.held_out:6.3f} {ending:>8}"


def _rug(rug: Axes, pair: PairResult, axis: Scale) -> None:
    for row, action in enumerate(axis.actions):
        ticks = [
            each.tick for each in pair.guarded.interventions if each.action == action and each.outcome != "refused"
        ]
        rug.vlines(ticks, row - 0.38, row + 0.38, color=_GUARDED, linewidth=1.6)
    rug.set_yticks(range(len(axis.actions)), axis.actions, fontsize=11)
    rug.set_ylim(-0.6, max(len(axis.actions), 1) - 0.4)
    rug.set_xlabel("step", fontsize=12)
    rug.tick_params(axis="x", labelsize=11)
    rug.grid(axis="y", alpha=0.25)


def _legend(cell: SubFigure, report: Report) -> None:
    place = cell.subplots()
    place.axis("off")
    place.plot([], [], color=_CALM, linewidth=3.2, alpha=0.75, label="trouble-free, unguarded")
    place.plot([], [], color=_PLAIN, linestyle="--", linewidth=1.8, label="unguarded")
    place.plot([], [], color=_GUARDED, linewidth=1.8, label="guarded")
    place.plot([], [], color=_PLAIN, marker="^", linestyle="", label="unguarded loss above the axis")
    place.plot([], [], color=_GUARDED, marker="v", linestyle="", label="guarded loss above the axis")
    place.plot([], [], color=_PLAIN, marker="X", markersize=11, linestyle="", label="no finite loss from here on")
    place.fill_between([], [], color=_TROUBLE, alpha=0.55, label="the fault is on")
    place.plot([], [], color=_GUARDED, marker="|", markersize=14, linestyle="", label="the guard acts (lower strip)")
    place.legend(loc="upper left", fontsize=13, frameon=False)
    note = (
        "Numbers in the panels: held-out loss at the end,\nand how far it is from the trouble-free run.\n"
        "On corrupted batches the loss of both is that of noise.\n"
        f"Step-time overhead, trouble-free: {percent(report.calm.overhead)}"
    )
    place.text(0.02, 0.02, note, fontsize=12, va="bottom", transform=place.transAxes)
