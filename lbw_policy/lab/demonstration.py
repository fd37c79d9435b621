"""`lbw demo`: real trainings through seeded trouble, with progress, a table, a picture and numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from attrs import frozen
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import lbw_policy as lbw
from lbw_policy.lab import table
from lbw_policy.lab.experiment import Experiment, Pair, judge
from lbw_policy.lab.faults import CALM, FAULTS, Fault
from lbw_policy.lab.gpt import GptShape
from lbw_policy.lab.language import ByteLanguage
from lbw_policy.lab.picture import draw
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.results import PairResult, Report, write_json
from lbw_policy.lab.text import library_text
from lbw_policy.lab.training import Attach, Guarding

_PLAIN_WIDTH = 140


@frozen
class Options:
    """What to train, how long, under which policy, and where to write."""

    steps: int
    seed: int
    policy: str
    out: Path
    faults: tuple[str, ...]
    quick: bool = False


def demonstrate(options: Options, console: Console | None = None) -> Report:
    """Run the demo, print its table, and write `loss.png` and `results.json` into the folder `options.out`.

    Raises:
        PolicyError: the policy does not check.
        ResourceError: there is no such preset.
        OSError: the folder cannot be written.
    """
    console = console or default_console()
    attach = guarding(options.policy)
    options.out.mkdir(parents=True, exist_ok=True)
    report = _measure(options, attach, console)
    console.print(table.table(report))
    for line in table.summary(report):
        console.print(line, highlight=False)
    write_json(report, options.out / "results.json")
    draw(report, options.out / "loss.png")
    console.print(f"picture: {options.out / 'loss.png'}   numbers: {options.out / 'results.json'}", highlight=False)
    return report


def default_console() -> Console:
    """Return a console on stdout, wide enough for the table where stdout is a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def guarding(policy: str) -> Attach:
    """Return what puts a guard with the given policy on a run, through the public interface."""
    loaded = lbw.load(policy)

    def attach(optimizer: Optimizer, model: nn.Module, scheduler: LRScheduler) -> Guarding:
        return lbw.attach(optimizer, loaded, model=model, scheduler=scheduler)

    return attach


def faults(options: Options) -> tuple[Fault, ...]:
    """Return the trouble-free case and then the chosen faults, which all strike halfway."""
    return CALM, *(FAULTS[name](start=options.steps // 2) for name in options.faults)


def _measure(options: Options, attach: Attach, console: Console) -> Report:
    experiment = Experiment(_task(options.quick), Recipe(options.steps, options.seed), attach)
    with one_thread(), _spoken(console), _progress(console, options.steps) as follow:
        pairs = [experiment.train(fault, follow(fault)) for fault in faults(options)]
    reference = experiment.reference(pairs[0])
    results = tuple(judge(pair, reference) for pair in pairs)
    return _report(options, experiment, results, reference.untrained)


def _task(quick: bool) -> ByteLanguage:
    text = library_text()
    return ByteLanguage(text, GptShape(width=32, layers=2), size=8) if quick else ByteLanguage(text)


def _report(options: Options, experiment: Experiment, pairs: tuple[PairResult, ...], untrained: float) -> Report:
    model = experiment.task.model(options.seed)
    return Report(
        policy=options.policy,
        task=experiment.task.name,
        parameters=sum(weight.numel() for weight in model.parameters()),
        seed=options.seed,
        steps=options.steps,
        untrained=untrained,
        pairs=pairs,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one core: models this small gain little from more, and stall when another program wants one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Follow = Callable[[Fault], Callable[[Pair], None]]


@contextmanager
def _spoken(console: Console) -> Iterator[None]:
    handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    handler.setFormatter(logging.Formatter("the guard says: %(message)s"))
    log = logging.getLogger("lbw_policy")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[Follow]:
    if not console.is_terminal:
        yield lambda fault: _lines(console, fault, steps)
        return
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[loss]}"), console=console) as bars:
        yield lambda fault: _bar(bars, fault, steps)


def _bar(bars: Progress, fault: Fault, steps: int) -> Callable[[Pair], None]:
    shown = bars.add_task(fault.title, total=steps, loss="")
    return lambda pair: bars.update(shown, advance=1, loss=_losses(pair))


def _lines(console: Console, fault: Fault, steps: int) -> Callable[[Pair], None]:
    def after_step(pair: Pair) -> None:
        if len(pair.plain.losses) == steps:
            console.print(f"trained: {fault.title:<24} {_losses(pair)}", highlight=False)

    return after_step


def _losses(pair: Pair) -> str:
    ends = (run.losses[-1] if run.losses else float("nan") for run in (pair.plain, pair.guarded))
    return "loss {:.2f} unguarded, {:.2f} guarded".format(*ends)
