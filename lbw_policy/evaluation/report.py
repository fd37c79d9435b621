"""An evaluation as Markdown tables, as JSON, and its reliability as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import asdict

from lbw_policy.evaluation.counting import Detection
from lbw_policy.evaluation.study import Part, Row, Split, Study

_ROWS = ("model or rule", "AUROC", "AUPRC", "caught", "of those leaving >= 1", ">= 3", "lead", "false / 1_000 calm",
         "/ 1_000 healing", "Brier", "skill")  # fmt: skip
_NOMINAL = ("rule", "caught", ">= 3", "false / 1_000 calm", "/ 1_000 healing")
_PARTS = ("runs", "diverged", "caught", ">= 3", "lead", "false / 1_000 calm", "/ 1_000 healing")


def markdown(study: Study) -> str:
    """Return the tables."""
    return "\n".join(_lines(study)) + "\n"


def _lines(study: Study) -> Iterator[str]:
    counts, task = study.counts, study.task
    yield (
        f"{counts.runs} runs, {counts.steps} steps ({counts.calm} calm, {counts.healing} after faults that healed); "
        f"{counts.diverged} diverged, {counts.leaving_3} of them with 3 steps or more of lead; {counts.benign} benign."
    )
    yield f"Horizon {task.horizon} steps, budget {task.budget:g} false alarms per 1_000 calm steps, seed {task.seed}."
    for split in study.splits:
        yield from ("", f"## {split.name.capitalize()}", "")
        yield from _table(_ROWS, (_row(row) for row in split.rows))
        yield from ("", "Rules at their authors' own thresholds:", "")
        yield from _table(_NOMINAL, (_nominal(row) for row in split.rows if row.nominal))
        yield from _tracked(split)
        for what, parts in (("fault", split.faults), ("architecture", split.architectures)):
            yield from ("", f"`{split.rows[0].name}` by {what}:", "")
            yield from _table((what, *_PARTS), (_part(part) for part in parts))
        yield from ("", f"`{split.rows[0].name}`, probability told and share that came:", "")
        cells = ((f"{b.told:.4f}", f"{b.came:.4f}", str(b.steps)) for b in split.reliability)
        yield from _table(("told", "came", "steps"), cells)


def _tracked(split: Split) -> Iterator[str]:
    yield from ("", "The threshold tracked online, as a guard does it (trust after 50 steps):", "")
    head = ("model", "asked / 1_000", "false / 1_000 calm", "caught", ">= 3", "steps trusted", "us a step")
    yield from _table(head, (
        (kind, f"{each.asked:g}", f"{each.detection.false:.2f}", _share(each.detection.all),
         _share(each.detection.least_3), _share(each.trusted), f"{each.microseconds:.0f}")
        for kind, rows in split.tracked.items() for each in rows
    ))  # fmt: skip


def _row(row: Row) -> Sequence[str]:
    quality, found = row.quality, row.detection
    brier = ("-", "-") if quality.brier is None else (f"{quality.brier:.5f}", f"{quality.skill:+.2f}")
    return (row.name, _share(quality.auroc, 3), _share(quality.auprc, 3), _share(found.all), _share(found.least_1),
            _share(found.least_3), _lead(found), f"{found.false:.2f}", f"{found.healing:.2f}", *brier)  # fmt: skip


def _nominal(row: Row) -> Sequence[str]:
    assert row.nominal is not None
    found = row.nominal
    return row.name, _share(found.all), _share(found.least_3), f"{found.false:.2f}", f"{found.healing:.2f}"


def _part(part: Part) -> Sequence[str]:
    found = part.detection
    return (part.name, str(part.runs), str(found.divergences), _share(found.all), _share(found.least_3), _lead(found),
            f"{found.false:.2f}", f"{found.healing:.2f}")  # fmt: skip


def _lead(found: Detection) -> str:
    return "-" if found.lead is None else f"{found.lead[0]:.0f} [{found.lead[1]:.0f}, {found.lead[2]:.0f}]"


def _share(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def as_json(study: Study) -> str:
    """Return everything as JSON; a number that is not finite becomes null."""
    return json.dumps(_finite(asdict(study)), indent=1, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def draw_reliability(study: Study, path: Path) -> None:
    """Draw what was told against what came, one line a split, both axes logarithmic; needs the extra `demo`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([1e-4, 1], [1e-4, 1], color="0.6", linewidth=1, label="perfect")
    for split in study.splits:
        bins = [each for each in split.reliability if each.came > 0 and each.steps >= 20]
        axes.plot([b.told for b in bins], [b.came for b in bins], marker="o", label=split.name)
    axes.set(xscale="log", yscale="log", xlim=(1e-4, 1), ylim=(1e-4, 1), xlabel="probability told",
             ylabel="share of steps before a divergence", title="Reliability on runs not seen")  # fmt: skip
    axes.legend()
    figure.savefig(path, dpi=150)
