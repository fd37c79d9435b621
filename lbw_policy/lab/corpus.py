"""`lbw corpus`: trains the runs of a plan and keeps them in a folder, however often it is stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen

from lbw_policy.corpora import FORMAT, MANIFEST, CorpusRun, read_manifest, run_of
from lbw_policy.diagnostics import printable
from lbw_policy.errors import TraceError
from lbw_policy.lab.plan import Planned, plan
from lbw_policy.lab.recording import Recording, record
from lbw_policy.traces import write_npz
from lbw_policy.version import __version__

PLAN = "plan.json"
"""What a folder was begun with; it cannot be gone on with otherwise."""
RUNS = "runs"


@frozen
class Order:
    """A corpus to be made: where, how many runs of which plan, of which architectures, with how many processes.

    `only` leaves out runs of other architectures; a later call may add them. `steps` is None for lengths drawn at
    random.
    """

    out: Path
    runs: int
    seed: int = 0
    steps: int | None = None
    only: frozenset[str] = frozenset()
    jobs: int = 1

    def planned(self) -> list[Planned]:
        """Return the runs that belong to it."""
        found = islice(plan(self.seed, self.steps), self.runs)
        return [run for run in found if not self.only or run.architecture in self.only]


def generate(order: Order, begin: Callable[[int, int], None], after_run: Callable[[CorpusRun], None]) -> None:
    """Make every run of an order that the folder does not have yet.

    What is there stays as it is, to the byte. A run is first written under another name, and listed when it is whole.
    `begin` is told how many runs are there and how many there will be, `after_run` each run that is new.

    Raises:
        TraceError: the folder holds a corpus of another plan, or a damaged one.
        OSError: the folder cannot be written.
        ImportError: scikit-learn is needed and not installed.
    """
    (order.out / RUNS).mkdir(parents=True, exist_ok=True)
    _claim(order)
    wanted = order.planned()
    known = {run.id for run in _listed(order.out)}
    missing = [run for run in wanted if run.id not in known]
    begin(len(wanted) - len(missing), len(wanted))
    made: dict[str, dict[str, Any]] = {}
    for entry in _made(missing, order):
        made[entry["id"]] = entry
        _list(order.out, made)
        after_run(run_of(order.out, entry))


def make(planned: Planned, folder: Path) -> dict[str, Any]:
    """Train a run, write its telemetry into the folder, and return its line of the manifest."""
    torch.set_num_threads(1)
    recording = record(planned)
    path = folder / RUNS / f"{planned.id}.npz"
    hidden = path.with_name(f".{planned.id}.{os.getpid()}.part")
    try:
        write_npz(hidden, recording.columns)
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
    return _entry(recording, path.relative_to(folder).as_posix())


def _made(missing: Sequence[Planned], order: Order) -> Iterator[dict[str, Any]]:
    if order.jobs == 1:
        yield from (make(planned, order.out) for planned in missing)
        return
    # A forked process would inherit the threads of torch, which do not survive it.
    with ProcessPoolExecutor(order.jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(make, planned, order.out) for planned in missing]
        try:
            yield from (done.result() for done in as_completed(waiting))
        finally:
            pool.shutdown(cancel_futures=True)


def _entry(recording: Recording, file: str) -> dict[str, Any]:
    planned, found = recording.planned, recording.outcome
    recipe = {name: value for name, value in attrs.asdict(planned.recipe).items() if name not in ("seed", "optimizer")}
    return {
        "format": FORMAT,
        "id": planned.id,
        "file": file,
        "architecture": planned.architecture,
        "optimizer": planned.recipe.optimizer,
        "precision": planned.recipe.precision,
        "fault": planned.fault.name,
        "group": planned.fault.group,
        "split": planned.split,
        "seed": planned.seed,
        "steps": recording.steps,
        "start": recording.start,
        "diverged": found.diverged_at is not None,
        "diverged_at": found.diverged_at,
        "healed": found.healed,
        "recipe": recipe | {"parameters": recording.parameters, "fault": planned.fault.severity()},
        "version": __version__,
    }


def _listed(folder: Path) -> list[CorpusRun]:
    return read_manifest(folder) if (folder / MANIFEST).exists() else []


def _list(folder: Path, made: Mapping[str, dict[str, Any]]) -> None:
    """Add runs to the manifest, which is always whole and in the order of the plan."""
    # Read anew, and with all that this call has made: another call may be at work in the folder.
    entries = {run.id: run.entry() for run in _listed(folder)} | dict(made)
    _write(folder / MANIFEST, "".join(json.dumps(entries[name]) + "\n" for name in sorted(entries)))


def _claim(order: Order) -> None:
    """Note the plan of a new folder; refuse one that was begun with another."""
    path = order.out / PLAN
    asked = {"format": FORMAT, "seed": order.seed, "steps": order.steps}
    if not path.exists():
        _write(path, json.dumps(asked) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if found != asked:
        had = found if isinstance(found, dict) else {}
        differing = next((name for name, value in asked.items() if had.get(name) != value), "format")
        raise TraceError(
            f"{printable(str(order.out))}: expected a new folder or a corpus with {differing} {asked[differing]},"
            f" found one with {differing} {printable(str(had.get(differing, 'none')))}"
        )


def _write(path: Path, text: str) -> None:
    hidden = path.with_name(f".{path.name}.{os.getpid()}.part")
    hidden.write_text(text, encoding="utf-8")
    hidden.replace(path)
