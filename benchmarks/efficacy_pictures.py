"""The pictures of `benchmarks/efficacy.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen
from efficacy_tables import TROUBLE, mean
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lbw_policy.lab.closed_loop import Finding
from lbw_policy.lab.measures import smoothed
from lbw_policy.lab.scenarios import SCENARIOS, Case
from lbw_policy.lab.verdicts import Verdict

# Okabe and Ito's palette: told apart by colour-blind readers; each line has a shape of its own besides.
COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
LINES = ("-", "--", "-.", ":")
CHOSEN = ("lr_start_30x", "lr_start_10x", "lr_high", "lr_glitch", "poison", "bit_flip", "grad_scale", "none", "spikes")
"""The scenarios whose curves are drawn."""


@frozen
class Curves:
    """The runs of one case: the trouble-free one, and that of each guard."""

    case: Case
    calm: Finding
    runs: Mapping[str, Finding]


def crashes(verdicts: Sequence[Verdict], guards: Sequence[str], path: Path) -> None:
    """Draw the share of crashed runs by guard and fault."""
    faults = [name for name in SCENARIOS if any(e.case.scenario == name and e.nature in TROUBLE for e in verdicts)]
    shares = [
        [mean(e.crashed for e in verdicts if e.contender == guard and e.case.scenario == fault) for fault in faults]
        for guard in guards
    ]
    figure = _figure(3.4 + 0.62 * len(faults), 2.2 + 0.42 * len(guards))
    axes = figure.subplots()
    axes.imshow(shares, cmap="Reds", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(faults)), faults, rotation=45, ha="right")
    axes.set_yticks(range(len(guards)), guards)
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            color = "white" if share > 0.6 else "black"
            axes.text(column, row, _percent(share), ha="center", va="center", fontsize=9, color=color)
    axes.set_title("runs that crashed, %", loc="left")
    figure.savefig(path)


def curves(chosen: Sequence[Curves], guards: Sequence[str], path: Path) -> None:
    """Draw the losses of chosen runs, on the data that were due, one panel each."""
    rows = math.ceil((len(chosen) + 1) / 3)
    figure = _figure(15, 3.9 * rows)
    cells = list(figure.subplots(rows, 3, squeeze=False).flat)
    for axes, each in zip(cells, chosen, strict=False):
        _panel(axes, each, guards)
    for axes in cells[len(chosen) :]:
        axes.axis("off")
    handles, labels = cells[0].get_legend_handles_labels()
    cells[len(chosen)].legend(handles, labels, loc="upper left", frameon=False)
    figure.savefig(path)


def stress(title: str, factors: Sequence[float], ends: Mapping[str, Sequence[float]], axes: Axes) -> None:
    """Draw the final held-out loss over the factor of the learning rate, one line a method."""
    for place, (name, losses) in enumerate(ends.items()):
        color, line = COLORS[place % len(COLORS)], LINES[place % len(LINES)]
        axes.plot(factors, losses, color=color, linestyle=line, marker="o", markersize=4, label=name)
    axes.set_xscale("log")
    axes.set_xticks(factors, [f"{factor:g}x" for factor in factors])
    axes.minorticks_off()
    axes.set_title(title, loc="left")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("final held-out loss")
    axes.grid(alpha=0.25)


def stress_figure(panels: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many panels, three a row."""
    columns = min(3, panels)
    rows = math.ceil(panels / columns)
    figure = _figure(5.4 * columns, 4.4 * rows)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _panel(axes: Axes, shown: Curves, guards: Sequence[str]) -> None:
    top = 1.15 * shown.calm.losses[0]
    axes.plot(_drawn(shown.calm.losses, top), color="#8A8A8A", linewidth=3, alpha=0.6, label="trouble-free")
    for place, guard in enumerate(guards):
        if guard in shown.runs:
            color, line = COLORS[place % len(COLORS)], LINES[place % len(LINES)]
            axes.plot(_drawn(shown.runs[guard].losses, top), color=color, linestyle=line, linewidth=1.3, label=guard)
    fault = shown.case.fault
    if fault.length > 0:
        axes.axvspan(fault.start, min(fault.end, shown.case.steps), color="#F0E442", alpha=0.35)
    axes.set_title(shown.case.id, loc="left", fontsize=10)
    axes.set_ylim(top=top)
    axes.grid(alpha=0.25)


def _drawn(losses: Sequence[float], top: float) -> list[float]:
    return [loss if math.isfinite(loss) and loss <= top else math.nan for loss in smoothed(losses)]


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.0f}"
