"""The progress of `lbw corpus` in the terminal, and what was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lbw_policy.corpora import CorpusRun, read_manifest
from lbw_policy.lab.composition import table
from lbw_policy.lab.corpus import Order, generate
from lbw_policy.lab.demonstration import default_console

Begin = Callable[[int, int], None]
AfterRun = Callable[[CorpusRun], None]


def make_corpus(order: Order, console: Console | None = None) -> None:
    """Make what the folder lacks of a corpus, show the progress, and print what it is made of; raises as `generate`."""
    console = console or default_console()
    with _progress(console) as (begin, after_run):
        generate(order, begin, after_run)
    runs = read_manifest(order.out)
    console.print(table(runs))
    steps = sum(run.steps for run in runs)
    console.print(f"corpus: {order.out}   {len(runs)} runs, {steps:,} steps", highlight=False)


@contextmanager
def _progress(console: Console) -> Iterator[tuple[Begin, AfterRun]]:
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[last]}"), console=console) as bars:
        shown = bars.add_task("runs", total=None, last="")
        yield (
            lambda done, of: bars.update(shown, completed=done, total=of),
            lambda run: bars.update(shown, advance=1, last=_said(run)),
        )


def _lines(console: Console) -> tuple[Begin, AfterRun]:
    return (
        lambda done, of: console.print(f"{done} of {of} runs are there", highlight=False),
        lambda run: console.print(_said(run), highlight=False),
    )


def _said(run: CorpusRun) -> str:
    became = f"diverged at {run.diverged_at}" if run.diverged else "healed" if run.healed else "did not diverge"
    return f"{run.id}: {run.steps} steps, {became}"
