"""Recorded runs with what is known of them: where an alarm would be false, and where one would be in time."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import math
import os
import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import evolve, frozen

from lbw_policy.corpora import BENIGN, MANIFEST, CorpusRun, read_manifest
from lbw_policy.diagnostics import printable
from lbw_policy.errors import TraceError, TuneError
from lbw_policy.lab.outcomes import AHEAD, outcome
from lbw_policy.semantics import exists
from lbw_policy.traces import SUFFIXES, Trace, read_trace

LATE = 5
"""Ticks after a divergence until which an alarm is in time: so long it takes a guard to know one from a crossing that
heals (`risk.divergence.sustain`)."""
BEFORE = AHEAD
"""Rows before the divergence of a run without a manifest in which an alarm is not false: nobody knows when its trouble
began. As many as the label of a divergence looks ahead."""
_MOST_TOLD = 8


@frozen
class Trouble:
    """The rows in which an alarm is in time, from `first` to `last`; a lead is counted to the divergence at `event`."""

    first: int
    event: int
    last: int


@frozen(eq=False)
class Run:
    """One recorded run. In its first `healthy` rows every alarm is false.

    What is neither there nor in trouble is not looked at. `kind` names the fault, where it is known.
    """

    name: str
    trace: Trace
    healthy: int
    trouble: Trouble | None = None
    kind: str = ""

    @property
    def rows(self) -> int:
        """How many rows tell anything."""
        return self.healthy if self.trouble is None else min(self.trouble.last + 1, self.trace.rows)


@frozen
class Wanted:
    """How to read runs: the columns, and how late an alarm may be.

    `healthy` are the globs of runs that are healthy whatever became of them, `ignored` those of runs to leave out.
    """

    columns: Collection[str]
    healthy: Sequence[str] = ()
    ignored: Sequence[str] = ()
    late: int = LATE


def read_runs(words: Sequence[str], wanted: Wanted) -> list[Run]:
    """Return the runs of files, of folders and globs of files, and of corpora, each once.

    Raises TuneError with a line for every word or file that cannot be used, and for a glob that no run has.
    """
    found: dict[str, Run] = {}
    seen: set[str] = set()
    wrong: list[str] = []
    for word in words:
        try:
            for where in _places(word):
                key, names = os.path.realpath(_path(where)), _names(where)
                seen |= names
                if key not in found and not _fits(names, wanted.ignored):
                    _note(found, wrong, key, where, wanted)
        except TraceError as error:
            wrong.append(str(error))
    idle = [pattern for pattern in (*wanted.healthy, *wanted.ignored) if not wrong and not _fits(seen, [pattern])]
    wrong += [f"the glob `{printable(pattern)}` matches none of the runs" for pattern in idle]
    if wrong:
        raise TuneError("\n".join(told(wrong)))
    return list(found.values())


def told(lines: Sequence[str]) -> list[str]:
    """Return the first few lines, and how many more there are."""
    more = len(lines) - _MOST_TOLD
    return [*lines[:_MOST_TOLD], f"and {more} more"] if more > 1 else list(lines)


def _places(word: str) -> Iterator[Path | CorpusRun]:
    """Yield what a word stands for: the runs of a corpus, the traces in a folder or behind a glob, one trace."""
    path = Path(word)
    if not word:
        raise TraceError("expected a path, found an empty word")
    if (path / MANIFEST).is_file():
        yield from read_manifest(path)
    elif path.is_dir():
        yield from _some([one for one in sorted(path.rglob("*")) if one.suffix.lower() in SUFFIXES], word, "the folder")
    elif glob.has_magic(word) and not exists(path):
        names = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        yield from _some([Path(name) for name in names if Path(name).is_file()], word, "the glob")
    elif not exists(path):
        raise TraceError(f"{printable(word)}: no such file or folder")
    else:
        yield path


def _some(found: Sequence[Path], word: str, what: str) -> Sequence[Path]:
    if not found:
        raise TraceError(f"{printable(word)}: {what} has no {', '.join(f'`{suffix}`' for suffix in SUFFIXES)} file")
    return found


def _note(found: dict[str, Run], wrong: list[str], key: str, where: Path | CorpusRun, wanted: Wanted) -> None:
    try:
        found[key] = _of_corpus(where, wanted) if isinstance(where, CorpusRun) else _of_trace(where, wanted)
    except TraceError as error:
        wrong.append(str(error))


def _of_corpus(run: CorpusRun, wanted: Wanted) -> Run:
    trace = run.trace(wanted.columns)
    if run.group == BENIGN or _fits(_names(run), wanted.healthy):
        return Run(run.id, trace, trace.rows, kind=run.fault)
    named = Run(run.id, trace, run.start or 0, kind=run.fault)
    if run.diverged_at is None:
        return named
    return evolve(named, trouble=Trouble(run.start or 0, run.diverged_at, run.diverged_at + wanted.late))


def _of_trace(path: Path, wanted: Wanted) -> Run:
    trace = read_trace(path, {*wanted.columns, "loss"})
    run = Run(str(path), trace, trace.rows)
    if _fits(_names(path), wanted.healthy):
        return run
    if "loss" not in trace.columns:
        advice = "name runs that are healthy with --healthy"
        raise TraceError(f"{printable(str(path))}: expected a column `loss`, which tells whether it diverged; {advice}")
    steps = [row for row, loss in enumerate(trace.columns["loss"]) if loss is not None]
    became = outcome([trace.columns["loss"].values[row] for row in steps])
    end = became.undecided if became.diverged_at is None else became.diverged_at
    if end is None:
        return run
    event = steps[end]
    first = max(0, event - BEFORE)
    return evolve(run, healthy=first, trouble=_trouble(first, event, wanted) if became.undecided is None else None)


def _trouble(first: int, event: int, wanted: Wanted) -> Trouble:
    return Trouble(first, event, event + wanted.late)


def _path(where: Path | CorpusRun) -> Path:
    return where.folder / where.file if isinstance(where, CorpusRun) else where


def _names(where: Path | CorpusRun) -> set[str]:
    """Return what a run goes by: its id, its path, its file's name."""
    path = _path(where)
    return {str(path), path.name, *([where.id] if isinstance(where, CorpusRun) else [])}


def _fits(names: Collection[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


@frozen(eq=False)
class Parts:
    """The runs that params are chosen on, and those held out to see what the choice is worth."""

    chosen_on: tuple[Run, ...]
    held_out: tuple[Run, ...]


def part(runs: Sequence[Run], share: float, seed: int) -> Parts:
    """Hold out a share of the runs that diverged, and of the others; within each, of every kind of fault about as much.

    The same runs, in any order, share and seed give the same parts.
    """
    dice = random.Random(seed)  # noqa: S311 - repeatable, and no secret hangs on it
    held: set[str] = set()
    for troubled in (True, False):
        names = sorted(run.name for run in runs if (run.trouble is not None) is troubled)
        held |= _held(names, {run.name: run.kind for run in runs}, share, dice)
    chosen = tuple(run for run in runs if run.name not in held)
    return Parts(chosen, tuple(run for run in runs if run.name in held))


def _held(names: Sequence[str], kinds: Mapping[str, str], share: float, dice: random.Random) -> set[str]:
    """Draw a share of the names, evenly over their kinds; one at least is left."""
    order = {name: dice.random() for name in names}
    dealt = sorted(names, key=lambda name: (kinds[name], order[name]))
    offset = dice.random()
    places = (math.floor(number * share + offset) for number in range(len(dealt) + 1))
    held = {name for name, (before, after) in zip(dealt, itertools.pairwise(places), strict=True) if after > before}
    return held if len(held) < len(dealt) else held - set(dealt[:1])


def check_runs(runs: Sequence[Run]) -> None:
    """Raise TuneError where runs cannot tell good values from bad: none healthy, or none in trouble."""
    if not any(run.healthy for run in runs):
        raise TuneError(f"expected runs with healthy steps, found none among {_counted(runs)}; see --healthy")
    if not any(run.trouble for run in runs):
        raise TuneError(f"expected runs that diverge, found none among {_counted(runs)}: there is nothing to catch")


def _counted(runs: Sequence[Run]) -> str:
    return f"{len(runs)} run{'s' * (len(runs) != 1)}"


def composition(runs: Sequence[Run]) -> Counter[str]:
    """Return how many runs are healthy throughout, diverge, and had a fault or a crossing that is neither."""
    return Counter(
        "diverged" if run.trouble else "healthy" if run.healthy == run.trace.rows else "survived" for run in runs
    )
