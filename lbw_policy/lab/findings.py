"""The findings of a comparison in a folder: what is there is not made again, however often it is stopped."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from attrs import define, field, frozen

from lbw_policy.lab.closed_loop import Finding, find, key
from lbw_policy.lab.contenders import Contender
from lbw_policy.lab.scenarios import Case

RESULTS = "results.jsonl"
"""One finding a line, in the order in which they were made."""
Resolve = Callable[[str], Contender]
"""Returns a contender by its name; a function of a module, so that other processes can call it."""


@frozen
class Wanted:
    """A run of a comparison: a case, and the name of a contender."""

    case: Case
    contender: str


@define
class Findings:
    """What a folder holds, by key."""

    path: Path
    known: dict[str, Finding] = field(factory=dict)

    @classmethod
    def within(cls, folder: Path) -> Findings:
        """Read a folder, which is made if there is none.

        A line that is no finding (a run that was stopped while it was written) is passed over, and its run made again.
        """
        folder.mkdir(parents=True, exist_ok=True)
        found = cls(folder / RESULTS)
        if found.path.exists():
            found._read()
        return found

    def add(self, finding: Finding) -> None:
        """Keep a finding."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finding.as_dict(), allow_nan=False) + "\n")
        self.known[finding.key] = finding

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        for line in text.splitlines():
            self._take(line)
        if text and not text.endswith("\n"):
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")

    def _take(self, line: str) -> None:
        # What is no finding to us may be one to another version, which can share the folder: it stays in the file.
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            finding = Finding.of(json.loads(line))
            self.known[finding.key] = finding


def missing(findings: Findings, wanted: Sequence[Wanted], resolve: Resolve) -> list[Wanted]:
    """Return the runs that are not there yet, each once."""
    contenders = {name: resolve(name) for name in dict.fromkeys(each.contender for each in wanted)}
    keys = {key(each.case, contenders[each.contender]): each for each in wanted}
    return [each for name, each in keys.items() if name not in findings.known]


def make(wanted: Sequence[Wanted], resolve: Resolve, jobs: int = 1) -> Iterator[Finding]:
    """Yield the findings of runs as they are made, by so many processes."""
    if jobs == 1:
        yield from (_made(each, resolve) for each in wanted)
        return
    # A forked process would inherit the threads of torch, which do not survive it.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(_made, each, resolve) for each in wanted]
        try:
            yield from (done.result() for done in as_completed(waiting))
        finally:
            pool.shutdown(cancel_futures=True)


def _made(wanted: Wanted, resolve: Resolve) -> Finding:
    return find(wanted.case, resolve(wanted.contender))
