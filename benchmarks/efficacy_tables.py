"""The tables of `benchmarks/efficacy.py`, as markdown; every cell is a mean over runs."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from lbw_policy.lab.scenarios import ACUTE, BENIGN, CREEPING, FLOOD, NATURES, SCENARIOS, SUSTAINED, reserved
from lbw_policy.lab.verdicts import HARMED, Verdict

TROUBLE = (ACUTE, SUSTAINED, CREEPING)
"""What counts as faulty. A flood of harmless spikes is neither faulty nor benign, and has a table row of its own."""
_HEAD = (
    "guard", "runs", "crash", "unguarded on these", "final-loss ratio", "harmful ones that end well",
    "steps away: mean", "p90", "never back", "hard per 1_000 benign steps", "benign harm", "benign runs", "halted",
)  # fmt: skip


@frozen
class Figures:
    """The means over some runs of one guard; NaN where there are none."""

    runs: int
    crash: float
    ratio: float
    well: float
    away: float
    away_p90: float
    never: float
    halted: int

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> Figures:
        """Reckon them. Steps away are a mean over the runs that came back, their 90th percentile is over all."""
        back = sorted(math.inf if each.away is None else each.away for each in verdicts)
        harmful = [each for each in verdicts if each.harmful]
        return cls(
            runs=len(verdicts),
            crash=mean(each.crashed for each in verdicts),
            ratio=mean(each.ratio for each in verdicts),
            well=mean(not each.crashed and each.ratio <= HARMED for each in harmful),
            away=mean(steps for steps in back if math.isfinite(steps)),
            away_p90=back[math.ceil(0.9 * len(back)) - 1] if back else math.nan,
            never=mean(not math.isfinite(steps) for steps in back),
            halted=sum(each.halted for each in verdicts),
        )


def mean(values: Iterable[float]) -> float:
    """Return the mean, NaN of nothing."""
    found = list(values)
    return statistics.fmean(found) if found else math.nan


def hard_rate(verdicts: Sequence[Verdict]) -> float:
    """Return the hard interventions per 1_000 steps."""
    steps = sum(each.steps for each in verdicts)
    return 1000 * sum(each.hard for each in verdicts) / steps if steps else math.nan


def harm(verdicts: Sequence[Verdict]) -> tuple[float, float]:
    """Return by how much the final loss is above that of the unguarded twin, and the standard error of this mean."""
    found = [each.harm for each in verdicts]
    error = statistics.stdev(found) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return mean(found), error


def report(verdicts: Sequence[Verdict], guards: Sequence[str]) -> str:
    """Return all tables, as one page of markdown."""
    faulty = [each for each in verdicts if each.nature in TROUBLE]
    unseen = _reserved(verdicts)
    parts = [
        "## All runs", overall(verdicts, guards),
        "## By how trouble comes: crash, final-loss ratio, harmful ones that end well, steps away (mean / p90)",
        by_nature(verdicts, guards),
    ]  # fmt: skip
    if 0 < len(unseen) < len(verdicts):
        parts += ["## Runs whose trouble or architecture thresholds have not seen", overall(unseen, guards)]
    parts += [
        "## By fault: crash, final-loss ratio (runs)",
        _crossed(faulty, guards, lambda each: each.case.scenario),
        "## By architecture, under faults: crash, final-loss ratio (runs)",
        _crossed(faulty, guards, lambda each: each.case.architecture),
        "## By optimizer and precision, under faults: crash, final-loss ratio (runs)",
        _crossed(faulty, guards, lambda each: f"{each.case.optimizer} {each.case.precision}"),
        "## Benign: hard interventions per 1_000 steps, harm (runs)",
        _benign(verdicts, guards),
        *_ladders(verdicts, guards),
    ]
    return "\n\n".join(parts) + "\n"


def ends(verdicts: Sequence[Verdict], guards: Sequence[str]) -> str:
    """Return the table of where the runs of guards with levels ended, and how often they left the lowest level."""
    head = ("guard", "trouble", "runs", "ended in", "halted", "left the lowest level: mean", "most")
    rows = []
    for guard in guards:
        for nature in NATURES:
            found = [each for each in _of(verdicts, guard) if each.nature == nature and each.ended]
            if found:
                rows.append([guard, nature, str(len(found)), *_ends(found)])
    return table(head, rows)


def overall(verdicts: Sequence[Verdict], guards: Sequence[str]) -> str:
    """Return the table of all guards: one row each."""
    plain = {each.case: each for each in verdicts if each.contender == "none"}
    return table(_HEAD, [_overall_row(_of(verdicts, guard), guard, plain) for guard in guards])


def by_nature(verdicts: Sequence[Verdict], guards: Sequence[str]) -> str:
    """Return the table of guards by how trouble comes."""
    natures = [nature for nature in NATURES if nature != BENIGN]
    rows = [
        [guard, *(_nature_cell([each for each in _of(verdicts, guard) if each.nature == nature]) for nature in natures)]
        for guard in guards
    ]
    return table(("guard", *natures), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return one markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def percent(share: float, digits: int = 1) -> str:
    """Return a share in percent, `-` for NaN."""
    return "-" if math.isnan(share) else f"{100 * share:.{digits}f} %"


def number(value: float, digits: int = 0) -> str:
    """Return a number, `-` for NaN, `never` for infinity."""
    return "-" if math.isnan(value) else "never" if math.isinf(value) else f"{value:.{digits}f}"


def _overall_row(verdicts: Sequence[Verdict], guard: str, plain: dict[object, Verdict]) -> list[str]:
    faulty = [each for each in verdicts if each.nature in TROUBLE]
    benign = [each for each in verdicts if each.nature == BENIGN]
    found, (worse, error) = Figures.of(faulty), harm(benign)
    return [
        guard,
        str(found.runs),
        percent(found.crash),
        percent(mean(plain[each.case].crashed for each in faulty)),
        number(found.ratio, 3),
        percent(found.well),
        number(found.away, 1),
        number(found.away_p90),
        percent(found.never),
        number(hard_rate(benign), 2),
        "-" if math.isnan(worse) else f"{100 * worse:+.2f} ± {100 * error:.2f} %",
        str(len(benign)),
        str(found.halted),
    ]


def _nature_cell(verdicts: Sequence[Verdict]) -> str:
    found = Figures.of(verdicts)
    if not found.runs:
        return "-"
    away = f"{number(found.away, 1)} / {number(found.away_p90)}"
    return f"{percent(found.crash)}, {found.ratio:.3f}, {percent(found.well, 0)}, {away}"


def _crossed(verdicts: Sequence[Verdict], guards: Sequence[str], part: Callable[[Verdict], str]) -> str:
    order = list(SCENARIOS)
    names = sorted({part(each) for each in verdicts}, key=lambda name: order.index(name) if name in order else 0)
    rows = [
        [name, *(_cell([e for e in _of(verdicts, guard) if part(e) == name]) for guard in guards)] for name in names
    ]
    return table(("", *guards), rows)


def _cell(verdicts: Sequence[Verdict]) -> str:
    found = Figures.of(verdicts)
    return f"{percent(found.crash, 0)}, {found.ratio:.3f} ({found.runs})" if found.runs else "-"


def _benign(verdicts: Sequence[Verdict], guards: Sequence[str]) -> str:
    calm = [each for each in verdicts if each.nature in (BENIGN, FLOOD)]
    names = [name for name in SCENARIOS if any(each.case.scenario == name for each in calm)]

    def cell(found: list[Verdict]) -> str:
        return f"{hard_rate(found):.2f}, {100 * harm(found)[0]:+.2f} % ({len(found)})" if found else "-"

    rows = [
        [name, *(cell([e for e in _of(calm, guard) if e.case.scenario == name]) for guard in guards)] for name in names
    ]
    return table(("", *guards), rows)


def _ladders(verdicts: Sequence[Verdict], guards: Sequence[str]) -> tuple[str, ...]:
    if not any(each.ended for each in verdicts):
        return ()
    return "## Where runs of guards with levels end", ends(verdicts, guards)


def _ends(found: Sequence[Verdict]) -> list[str]:
    halted = sum(each.halted for each in found)
    levels = Counter(each.ended for each in found if not each.halted)
    shown = ", ".join(f"`{level}` {count}" for level, count in levels.most_common())
    return [shown, str(halted), number(mean(each.climbs for each in found), 2), str(max(e.climbs for e in found))]


def _reserved(verdicts: Sequence[Verdict]) -> list[Verdict]:
    unseen = set(reserved([each.case for each in verdicts]))
    return [each for each in verdicts if each.case in unseen]


def _of(verdicts: Iterable[Verdict], guard: str) -> list[Verdict]:
    return [each for each in verdicts if each.contender == guard]
