"""Reads a corpus: labelled recorded runs in one folder, a manifest and one NPZ a run (`docs/corpus.md`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from attrs import field, fields, frozen

from lbw_policy.diagnostics import printable
from lbw_policy.errors import TraceError
from lbw_policy.semantics.signals import SIGNALS
from lbw_policy.traces import Trace, read_trace

MANIFEST = "manifest.jsonl"
FORMAT = 1
"""The version of the manifest's format; another one is refused."""
TRAIN, TEST = "train", "test"
"""Every run belongs to one of the two splits; no seed is in both."""
BENIGN = "benign"
"""The group of runs in which nothing is wrong: clean ones, and harmless shifts."""


def _is(*kinds: type) -> Callable[[object], bool]:
    # A bool is an int to Python, not to a manifest.
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _one(what: str, *kinds: type) -> dict[str, object]:
    return {"what": what, "fits": _is(*kinds)}


_TEXT = _one("text", str)
_STEP = _one("a whole number or null", int, type(None))
_WHOLE = _one("a whole number", int)
_TRUTH = _one("true or false", bool)


@frozen
class CorpusRun:
    """One run of a corpus, unguarded: what was trained, what struck it and when, and what became of it.

    `file` is relative to `folder`. `steps` is the length of every column, `start` the step at which the fault or
    shift strikes (None in a clean run), `diverged_at` the step of the divergence. `healed` tells that the loss
    crossed the bar and came back by itself. `recipe` has the learning rate, the schedule and the fault's severity.
    """

    folder: Path = field(repr=False)
    id: str = field(metadata=_TEXT)
    file: str = field(metadata=_TEXT, repr=False)
    architecture: str = field(metadata=_TEXT)
    optimizer: str = field(metadata=_TEXT)
    precision: str = field(metadata=_TEXT)
    fault: str = field(metadata=_TEXT)
    group: str = field(metadata=_TEXT)
    split: str = field(metadata=_TEXT)
    seed: int = field(metadata=_WHOLE)
    steps: int = field(metadata=_WHOLE)
    start: int | None = field(metadata=_STEP)
    diverged: bool = field(metadata=_TRUTH)
    diverged_at: int | None = field(metadata=_STEP)
    healed: bool = field(metadata=_TRUTH)
    recipe: Mapping[str, Any] = field(metadata=_one("an object", dict), repr=False)
    version: str = field(metadata=_TEXT, repr=False)

    @property
    def lead(self) -> int | None:
        """Return how many steps lie between the fault and the divergence; None where either is not there."""
        return None if self.start is None or self.diverged_at is None else self.diverged_at - self.start

    def telemetry(self) -> dict[str, list[float | None]]:
        """Return the readings of every signal of the run, one a step; None where there was none.

        Raises TraceError where the file cannot be read or is not as long as the manifest says.
        """
        return {name: list(column) for name, column in self.trace(SIGNALS).columns.items()}

    def trace(self, wanted: Collection[str]) -> Trace:
        """Return the run's trace with the wanted columns; raises TraceError as `telemetry` does."""
        found = read_trace(self.folder / self.file, wanted)
        if found.rows != self.steps:
            place = printable(str(found.path))
            raise TraceError(f"{place}: expected {self.steps} steps as in the manifest, found {found.rows}")
        return found

    def entry(self) -> dict[str, object]:
        """Return the run's line of the manifest, as plain data."""
        return {"format": FORMAT} | {name: getattr(self, name) for name in _CHECKED}


_CHECKED = {one.name: one.metadata for one in fields(CorpusRun) if one.metadata}


def read_manifest(folder: Path) -> list[CorpusRun]:
    """Return the runs that a corpus lists, in its order; raises TraceError, telling where, if it is damaged."""
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TraceError(f"{printable(str(path))}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise TraceError(f"{printable(str(path))}: expected UTF-8 text, found other bytes") from error
    return list(_runs(folder, text))


def _runs(folder: Path, text: str) -> Iterator[CorpusRun]:
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            run = run_of(folder, _parsed(line))
            if run.id in seen:
                raise ValueError(f"expected each `id` once, found `{printable(run.id)}` twice")
        except ValueError as error:
            raise TraceError(f"{printable(str(folder / MANIFEST))}:{number}: {error}") from error
        seen.add(run.id)
        yield run


def run_of(folder: Path, entry: object) -> CorpusRun:
    """Return the run that a line of the manifest describes; ValueError, saying what was expected, if none does."""
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        found = entry.get("format", "none") if isinstance(entry, dict) else "none"
        raise ValueError(f"expected a run in format {FORMAT}, found `{printable(str(found))}`")
    for name, check in _CHECKED.items():
        if name not in entry or not check["fits"](entry[name]):
            found = printable(json.dumps(entry[name])[:60]) if name in entry else "nothing"
            raise ValueError(f"expected `{name}` to be {check['what']}, found {found}")
    _check_sense(entry)
    return CorpusRun(folder, **{name: entry[name] for name in _CHECKED})


def _parsed(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("expected a JSON object, found other text") from None


def _check_sense(entry: Mapping[str, Any]) -> None:
    path = PurePosixPath(entry["file"])
    # INVARIANT: nothing outside the corpus's folder is ever read.
    if path.is_absolute() or ".." in path.parts or "\\" in entry["file"]:
        raise ValueError(f"expected `file` to lie in the corpus, found `{printable(entry['file'])}`")
    if entry["diverged"] is not (entry["diverged_at"] is not None):
        raise ValueError("expected `diverged_at` to be a step exactly where `diverged` is true")
    for name in ("start", "diverged_at"):
        if entry[name] is not None and not 0 <= entry[name] < entry["steps"]:
            raise ValueError(f"expected `{name}` to be a step from 0 to {entry['steps'] - 1}, found {entry[name]}")
