"""How many runs each guard saves, and what it costs the healthy ones: `python benchmarks/efficacy.py`.

Real small trainings in closed loop: every fault and benign shift of a split, in several architectures, optimizers,
precisions and seeds, under every guard, each judged by the trouble-free unguarded run of the same seed
(`docs/efficacy.md`). Prints markdown tables and writes them with pictures and all findings into a folder. A call that
is stopped, or repeated with more guards or seeds, goes on where the folder stands.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import efficacy_pictures as pictures
import efficacy_tables as tables
from attrs import evolve, frozen
from peers import PEERS, absent, contender
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lbw_policy.errors import LBWError
from lbw_policy.lab.architectures import TRAININGS
from lbw_policy.lab.closed_loop import Finding, key
from lbw_policy.lab.contenders import OURS, PLAIN
from lbw_policy.lab.findings import Findings, Wanted, make, missing
from lbw_policy.lab.rate_faults import LrStart
from lbw_policy.lab.scenarios import REPORT, SCENARIOS, SPLITS, STEPS, TUNE, Case, Grid
from lbw_policy.lab.verdicts import Verdict, judge

GUARDS = (
    "none", "clip", "zclip", "adagc", "stablespam", "skipstep", "stabilityguard", "lr/10", "rollback", "clip+rollback",
    "ours:conservative", "ours:aggressive", "clip+ours:conservative", "oracle",
)  # fmt: skip
MADE_FOR: dict[str, tuple[str, ...]] = {
    "transformer_pretraining": ("gpt", "moe"),
    "mixture_of_experts": ("moe",),
    "state_space": ("ssm", "gru"),
    "diffusion": ("denoiser",),
    "vision": ("cnn", "cnn_bn", "mlp"),
    "finetuning": ("gpt_tuned", "cnn_tuned"),
}
"""The trainings that each preset is made for."""
BESIDE = ("none", "clip+rollback", "ours:conservative")
"""What such a preset is compared with, on these trainings alone."""
QUICK = Grid(
    TUNE, 1,
    frozenset({"lr_start_30x", "lr_glitch", "nan_batch", "poison", "bit_flip", "grad_scale", "spikes", "none"}),
    frozenset({"gpt", "denoiser", "mlp"}),
)  # fmt: skip
QUICK_GUARDS = ("none", "clip", "clip+rollback", "ours:conservative", "oracle")
FACTORS = (1.0, 3.0, 10.0, 30.0, 100.0)
STRESSED = (
    ("gpt", "adamw"),
    ("ssm", "adamw"),
    ("moe", "adamw"),
    ("denoiser", "adamw"),
    ("mlp", "sgd"),
    ("cnn", "adam"),
)
STRESS_GUARDS = ("none", "clip", "lr/10", "adagc", "stabilityguard", "clip+rollback", "ours:conservative")


@frozen
class Bench:
    """A folder of findings, and how what is missing in it is made."""

    findings: Findings
    jobs: int
    console: Console

    def fill(self, wanted: Sequence[Wanted]) -> None:
        """Make all runs that are missing."""
        todo = missing(self.findings, wanted, contender)
        self.console.print(f"{len(wanted)} runs, {len(todo)} of them to be made", highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self.console) as bars:
            shown = bars.add_task("training", total=len(todo))
            for finding in make(todo, contender, self.jobs):
                self.findings.add(finding)
                bars.update(shown, advance=1, description=finding.contender)

    def get(self, case: Case, guard: str) -> Finding:
        """Return what was seen of a run."""
        return evolve(self.findings.known[key(case, contender(guard))], contender=guard)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    options = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore", message=".*(overridden after|Full backward hook).*")
    console = Console(stderr=True)
    try:
        guards = _guards(options, console)
    except (LBWError, KeyError) as error:
        console.print(f"no such guard, or its policy cannot be used: {error}", style="red", highlight=False)
        return 2
    if not (options.stress or options.presets or any(_grid(options).cases())):
        console.print("the split has no such runs: see docs/efficacy.md for what is in it", style="red")
        return 2
    bench = Bench(Findings.within(options.out), options.jobs, console)
    what = "stress" if options.stress else "presets" if options.presets else "tables"
    page = {"stress": _stress, "presets": _presets, "tables": _compare}[what](bench, options, guards)
    (options.out / f"{what}.md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)
    return 0


def _parser() -> argparse.ArgumentParser:
    known = ", ".join([*PLAIN, *PEERS])
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--guards", nargs="+", help=f"{known}, ours:PRESET, ours:FILE.lbw; clip+GUARD in a loop that clips"
    )
    parser.add_argument("--split", choices=SPLITS, default=REPORT, help="what thresholds are chosen on, or reported on")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each run ({STEPS})")
    parser.add_argument("--faults", nargs="+", choices=sorted(SCENARIOS), default=[], help="of the split, only these")
    parser.add_argument("--archs", nargs="+", choices=sorted(TRAININGS), default=[], help="only these")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one core each")
    parser.add_argument(
        "--out", type=Path, default=Path("efficacy_out"), help="folder of findings, tables and pictures"
    )
    parser.add_argument("--quick", action="store_true", help="a few guards, faults and architectures: five minutes")
    parser.add_argument("--presets", action="store_true", help="each preset on the trainings it is made for")
    parser.add_argument("--stress", action="store_true", help="final loss over a learning rate from 1x to 100x")
    return parser


def _guards(options: argparse.Namespace, console: Console) -> list[str]:
    usual = (
        STRESS_GUARDS if options.stress else BESIDE if options.presets else QUICK_GUARDS if options.quick else GUARDS
    )
    found = []
    for name in dict.fromkeys(["none", *(options.guards or usual)]):
        reason = absent(contender(name))
        if reason:
            console.print(f"left out: {name}, {reason}", highlight=False)
        else:
            found.append(name)
    return found


# The comparison


def _compare(bench: Bench, options: argparse.Namespace, guards: Sequence[str]) -> str:
    cases = list(_grid(options).cases())
    verdicts = _judged(bench, cases, guards)
    pictures.crashes(verdicts, guards, options.out / "crashes.png")
    pictures.curves(_chosen(bench, cases, guards), guards, options.out / "curves.png")
    return _heading(options, cases, guards) + tables.report(verdicts, guards)


def _presets(bench: Bench, options: argparse.Namespace, beside: Sequence[str]) -> str:
    """Put each preset through the runs of the trainings that it is made for, and return their tables."""
    parts = ["# Presets on the trainings they are made for"]
    for preset, made_for in MADE_FOR.items():
        cases, guards = list(_named(options, made_for).cases()), list(dict.fromkeys([*beside, f"{OURS}{preset}"]))
        verdicts = _judged(bench, cases, guards)
        title = f"## `{preset}`: {', '.join(made_for)}"
        parts += [title, tables.overall(verdicts, guards), tables.by_nature(verdicts, guards)]
    return "\n\n".join(parts) + "\n"


def _grid(options: argparse.Namespace) -> Grid:
    return QUICK if options.quick else _named(options, options.archs)


def _named(options: argparse.Namespace, trainings: Sequence[str]) -> Grid:
    return Grid(options.split, options.seeds, frozenset(options.faults), frozenset(trainings), options.steps)


def _judged(bench: Bench, cases: Sequence[Case], guards: Sequence[str]) -> list[Verdict]:
    """Make the runs that are missing, and judge all."""
    bench.fill(list(_wanted(cases, guards)))
    return list(_verdicts(bench, cases, guards))


def _wanted(cases: Sequence[Case], guards: Sequence[str]) -> Iterator[Wanted]:
    for case in dict.fromkeys(case.calm for case in cases):
        yield Wanted(case, "none")
    for guard in guards:
        yield from (Wanted(case, guard) for case in cases if _joins(case, guard))


def _joins(case: Case, guard: str) -> bool:
    return case.optimizer in contender(guard).optimizers


def _verdicts(bench: Bench, cases: Sequence[Case], guards: Sequence[str]) -> Iterator[Verdict]:
    for case in cases:
        calm, plain = bench.get(case.calm, "none"), bench.get(case, "none")
        for guard in guards:
            if _joins(case, guard):
                yield judge(case, bench.get(case, guard), calm, plain)


def _chosen(bench: Bench, cases: Sequence[Case], guards: Sequence[str]) -> list[pictures.Curves]:
    """Return, for each scenario that is drawn, its first run in the first architecture."""
    first = {case.scenario: case for case in reversed(cases)}
    return [
        pictures.Curves(
            case,
            bench.get(case.calm, "none"),
            {guard: bench.get(case, guard) for guard in guards if _joins(case, guard)},
        )
        for case in (first[name] for name in pictures.CHOSEN if name in first)
    ]


def _heading(options: argparse.Namespace, cases: Sequence[Case], guards: Sequence[str]) -> str:
    what = "quick look" if options.quick else f"split `{options.split}`, {options.seeds} seeds"
    notes = "\n".join(f"- `{name}`: {contender(name).source}" for name in guards)
    return (
        f"# Efficacy, {what}: {len(cases)} runs a guard of {cases[0].steps} steps\n\n{notes}\n\n"
        "Differences under 5 points of crash rate are noise; any change moves one run's final loss by 1 to 2 %.\n\n"
    )


# The stress test


def _stress(bench: Bench, options: argparse.Namespace, guards: Sequence[str]) -> str:
    """Train at a learning rate from 1x to 100x from the first step on, and return the table of final losses."""
    trained = [each for each in STRESSED if not options.archs or each[0] in options.archs]
    seeds = range(2000, 2000 + options.seeds)
    cases = {(name, factor): _stressed(name, factor, seeds, options.steps) for name in trained for factor in FACTORS}
    bench.fill(
        [Wanted(case, guard) for group in cases.values() for guard in guards for case in group if _joins(case, guard)]
    )
    figure, panels = pictures.stress_figure(len(trained))
    rows = []
    for name, axes in zip(trained, panels, strict=False):
        ends = {guard: [_end(bench, cases[name, factor], guard) for factor in FACTORS] for guard in guards}
        pictures.stress(" ".join(name), FACTORS, ends, axes)
        rows += [[" ".join(name), guard, *(tables.number(end, 3) for end in found)] for guard, found in ends.items()]
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(options.out / "stress.png")
    head = ("training", "guard", *(f"{factor:g}x" for factor in FACTORS))
    title = f"# Final held-out loss over the learning rate, mean of {len(seeds)} seeds, an untrained model's at most"
    return f"{title}\n\n{tables.table(head, rows)}\n"


def _stressed(trained: tuple[str, str], factor: float, seeds: Sequence[int], steps: int) -> list[Case]:
    name, optimizer = trained
    fault = LrStart(0, steps, factor)
    return [Case(name, optimizer, "fp32", f"lr_start_{factor:g}x", fault, seed, steps) for seed in seeds]


def _end(bench: Bench, cases: Sequence[Case], guard: str) -> float:
    """Return the mean final loss, NaN where a guard does not take part."""
    found = [bench.get(case, guard) for case in cases if _joins(case, guard)]
    # NaN compares as false: what is not a number counts as an untrained model.
    return tables.mean(each.held_out if each.held_out < each.untrained else each.untrained for each in found)


if __name__ == "__main__":
    sys.exit(main())
