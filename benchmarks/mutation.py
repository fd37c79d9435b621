"""Does the net catch? Seeds faults into the code that keeps the limits and runs the tests: `make mutants`.

The faults are listed in `benchmarks/mutants/*.toml`, one file for each module: what to replace, by what,
and what breaks. Each is put into a copy of the package, and the module's tests run there, two copies at a time.
A fault is killed when a test fails. One that no test notices is a missing test, or it is listed with the argument
why it changes nothing; such a one must survive. Everything drawn is drawn the same way each time, so the result does
not depend on luck. The exit code is 1 unless every fault fares as it should.
"""

from __future__ import annotations

import argparse
import enum
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from attrs import define, evolve, frozen

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT / "benchmarks" / "mutants"
PAGE = ROOT / "docs" / "mutation.md"
PARTS = ("lbw_policy", "grammar", "policies", "priors", "tests", "docs", "benchmarks", "pyproject.toml")
"""What a copy consists of."""
LIMIT = 300
"""Seconds after which the tests of a mutant are given up."""
COPIES = 2
PROBE = "mutation_probe"
PLUGIN = f'''"""Makes the tests of this copy test this copy, and draw the same cases each time."""
import lbw_policy
import pytest
from hypothesis import Phase, settings

settings.register_profile("{PROBE}", derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("{PROBE}")


def pytest_configure(config):
    if config.rootpath not in __import__("pathlib").Path(lbw_policy.__file__).resolve().parents:
        pytest.exit(f"the tests import {{lbw_policy.__file__}}", returncode=77)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: getattr(item.obj, "is_hypothesis_test", False))  # these take longer
'''


class Status(enum.Enum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    TIMEOUT = "timeout"
    STALE = "stale"
    """Its old text does not occur exactly once."""
    BROKEN = "broken"
    """The tests could not run at all."""


@frozen
class Mutant:
    """A fault: in `file`, the one place that reads `old` becomes `new`, and then what `breaks` says goes wrong.

    `equivalent` is the argument why nothing goes wrong after all, or empty.
    """

    name: str
    file: str
    tests: tuple[str, ...]
    old: str
    new: str
    breaks: str
    equivalent: str = ""

    def applied(self, text: str) -> str:
        """Return a module's text with the fault; raises ValueError unless the old text occurs exactly once."""
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"expected the old text of {self.name} once in {self.file}, found it {found} times")
        return text.replace(self.old, self.new)


@frozen
class Verdict:
    """What became of a mutant, by which test, and after how long."""

    mutant: Mutant
    status: Status
    by: str = ""
    seconds: float = 0.0

    @property
    def expected(self) -> bool:
        """Whether the mutant fared as it should: killed, or survived because it changes nothing."""
        return self.status is (Status.SURVIVED if self.mutant.equivalent else Status.KILLED)


def mutants(folder: Path = LISTS) -> tuple[Mutant, ...]:
    """Return all mutants, in the order of the lists."""
    return tuple(mutant for path in sorted(folder.glob("*.toml")) for mutant in _listed(path))


def _listed(path: Path) -> Iterator[Mutant]:
    found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    for entry in found["mutant"]:
        name = f"{path.stem}/{entry.pop('name')}"
        yield Mutant(name, found["file"], tuple(found["tests"]), **entry)


# Running


@frozen
class Net:
    """What is to catch the faults: a command that takes files, and where it names what failed."""

    command: tuple[str, ...]
    failed: str


TESTS = Net(
    ("pytest", "-x", "-q", "-n0", "--tb=no", "-rfE", "-p", "no:cacheprovider", "-p", PROBE),
    r"^FAILED (\S+?)(\[.*?\])?( - .*)?$",
)
CONTRACTS = Net(
    ("crosshair", "check", "--analysis_kind=PEP316", "--per_condition_timeout=10"),
    r"^\S+ error: (.*)$",
)


@define
class Copy:
    """A copy of the package and its tests, in which one fault at a time is seeded."""

    folder: Path
    net: Net = TESTS

    @classmethod
    def make(cls, folder: Path, net: Net = TESTS) -> Copy:
        """Copy this checkout into a new folder."""
        folder.mkdir()
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                shutil.copy2(source, folder / part)
        (folder / f"{PROBE}.py").write_text(PLUGIN, encoding="utf-8")
        return cls(folder, net)

    def judge(self, mutant: Mutant) -> Verdict:
        """Seed a fault, run its tests until one fails, and take the fault out again."""
        path = self.folder / mutant.file
        whole = path.read_text(encoding="utf-8")
        try:
            faulty = mutant.applied(whole)
        except ValueError as error:
            return Verdict(mutant, Status.STALE, str(error))
        try:
            self._write(path, faulty)
            return self._tested(mutant)
        finally:
            self._write(path, whole)

    def _write(self, path: Path, text: str) -> None:
        """Write a module, and forget its compiled form: that is told by a time too coarse for this."""
        path.write_text(text, encoding="utf-8")
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()

    def _tested(self, mutant: Mutant) -> Verdict:
        """Run a mutant's tests file by file: to load them all takes longer than most faults live."""
        began = time.monotonic()
        for test in mutant.tests:
            try:
                done = self.run((test,))
            except subprocess.TimeoutExpired:
                return Verdict(mutant, Status.TIMEOUT, test, time.monotonic() - began)
            if done.returncode:
                return self._failed(mutant, done, time.monotonic() - began)
        return Verdict(mutant, Status.SURVIVED, "", time.monotonic() - began)

    def _failed(self, mutant: Mutant, done: subprocess.CompletedProcess[str], seconds: float) -> Verdict:
        failed = re.search(self.net.failed, done.stdout, re.MULTILINE)
        if done.returncode != 1 or not failed:
            return Verdict(mutant, Status.BROKEN, (done.stdout + done.stderr)[-2_000:], seconds)
        return Verdict(mutant, Status.KILLED, failed[1], seconds)

    def run(self, tests: Sequence[str], *, first: bool = False) -> subprocess.CompletedProcess[str]:
        """Run the net over the copy, up to a failure; the `first` run takes longer and leaves compiled modules."""
        clean = {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(self.folder),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "" if first else "1",
        }
        return subprocess.run(  # noqa: S603 - our own interpreter, our own tests
            [sys.executable, "-m", *self.net.command, *tests],
            cwd=self.folder,
            env={**os.environ, **clean},
            capture_output=True,
            text=True,
            timeout=3 * LIMIT if first else LIMIT,
            check=False,
        )


def judge_all(found: Sequence[Mutant], folder: Path, net: Net = TESTS) -> Iterator[Verdict]:
    """Judge mutants in copies that take turns; yields verdicts in order. Raises ValueError if a copy is at fault."""
    copies = SimpleQueue[Copy]()
    first = Copy.make(folder / "0", net)
    _sound(first, found)
    for index in range(1, COPIES):
        copies.put(Copy(Path(shutil.copytree(first.folder, folder / str(index))), net))
    copies.put(first)

    def turn(mutant: Mutant) -> Verdict:
        copy = copies.get()
        try:
            return copy.judge(mutant)
        finally:
            copies.put(copy)

    with ThreadPoolExecutor(COPIES) as pool:
        yield from pool.map(turn, found)


def _sound(copy: Copy, found: Sequence[Mutant]) -> None:
    """Check that without a fault all tests pass, so that a failure tells of the fault."""
    done = copy.run(sorted({test for mutant in found for test in mutant.tests}), first=True)
    if done.returncode:
        raise ValueError(f"expected the tests to pass without a fault:\n{done.stdout}{done.stderr}")


# Telling


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the score and all verdicts as markdown, without times."""
    real = [verdict for verdict in verdicts if not verdict.mutant.equivalent]
    killed = sum(verdict.status is Status.KILLED for verdict in real)
    same = len(verdicts) - len(real)
    lines = [f"**{killed} of {len(real)} mutants are killed.** {same} more change nothing and survive.", ""]
    for file in dict.fromkeys(verdict.mutant.file for verdict in verdicts):
        ours = [verdict for verdict in verdicts if verdict.mutant.file == file]
        lines += [f"### `{file}`: {len(ours)}", "", "| mutant | what breaks | killed by |", "|---|---|---|"]
        lines += [_row(verdict) for verdict in ours] + [""]
    return "\n".join(lines)


def _row(verdict: Verdict) -> str:
    mutant = verdict.mutant
    end = f"`{verdict.by.rpartition('/')[2]}`" if verdict.status is Status.KILLED else f"**{verdict.status.value}**"
    why = f" Changes nothing: {mutant.equivalent}" if mutant.equivalent else ""
    return f"| {mutant.name.partition('/')[2]} | {mutant.breaks}{why} | {end} |"


def write(verdicts: Sequence[Verdict], page: Path = PAGE) -> None:
    """Put the table into the page, between its two marks."""
    begin, end = "<!-- table: make mutants -->\n", "<!-- end of table -->"
    head, _, rest = page.read_text(encoding="utf-8").partition(begin)
    page.write_text(f"{head}{begin}{table(verdicts)}{end}{rest.partition(end)[2]}", encoding="utf-8")


def _line(verdict: Verdict) -> str:
    return f"{verdict.status.value:9}{verdict.seconds:6.1f} s  {verdict.mutant.name}  {verdict.by}"


def _chosen(arguments: argparse.Namespace) -> list[Mutant]:
    found = [mutant for mutant in mutants() if fnmatch(mutant.name, arguments.only)]
    if arguments.contracts:
        found = [evolve(mutant, tests=("benchmarks/contracts.py",)) for mutant in found]
    quick = random.Random(arguments.seed).sample(found, min(12, len(found)))  # noqa: S311 - a sample, not a secret
    return quick if arguments.quick else found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="judge the mutants whose name matches")
    parser.add_argument("--quick", action="store_true", help="judge a sample of 12")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--list", action="store_true", help="print the mutants and judge none")
    parser.add_argument("--contracts", action="store_true", help="let CrossHair judge, by contracts.py, and no test")
    parser.add_argument("--write", action="store_true", help=f"write the table into docs/{PAGE.name}")
    return parser.parse_args()


def main() -> int:
    """Judge mutants; return 1 unless each fared as it should."""
    arguments = _arguments()
    found = _chosen(arguments)
    if arguments.list:
        print("\n".join(f"{mutant.name}: {mutant.breaks}" for mutant in found))
        return 0
    verdicts, began, net = list[Verdict](), time.monotonic(), CONTRACTS if arguments.contracts else TESTS
    with tempfile.TemporaryDirectory(prefix="lbw_mutation_") as folder:
        for verdict in judge_all(found, Path(folder), net):
            print(_line(verdict), flush=True)
            verdicts.append(verdict)
    odd = [verdict for verdict in verdicts if not verdict.expected]
    print(f"{len(verdicts) - len(odd)} of {len(verdicts)} fared as they should, in {time.monotonic() - began:.0f} s")
    print("".join(f"\n{_line(verdict)}\n  {verdict.mutant.breaks}" for verdict in odd))
    if arguments.write and net is TESTS and len(found) == len(mutants()):
        write(verdicts)
    return 1 if odd or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
