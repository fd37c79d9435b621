"""The seeded faults still fit the code, and the command that seeds them tells a fault from none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from attrs import evolve

from benchmarks import mutation
from benchmarks.mutation import ROOT, Copy, Mutant, Status, Verdict, mutants

MUTANTS = mutants()
TESTS = ("tests/limits/test_budget.py",)
FAULT = Mutant(
    "budget/fault", "lbw_policy/limits/budget.py", TESTS, "self._ticks.append(tick)", "pass", "No budget runs out."
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_fits_the_code_once_and_changes_it(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    faulty = mutant.applied(text)

    assert compile(faulty, mutant.file, "exec") != compile(text, mutant.file, "exec")
    assert mutant.breaks[0].isupper() or mutant.breaks[0] in "`0123456789"
    assert mutant.breaks.endswith(".")
    assert all((ROOT / test).is_file() for test in mutant.tests)


def test_no_mutant_is_listed_twice_and_few_change_nothing() -> None:
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
    assert max(Counter((mutant.file, mutant.old, mutant.new) for mutant in MUTANTS).values()) == 1
    assert sum(bool(mutant.equivalent) for mutant in MUTANTS) <= len(MUTANTS) // 20


def test_the_page_has_every_mutant_and_no_survivor() -> None:
    rows = [line.split(" | ") for line in mutation.PAGE.read_text(encoding="utf-8").splitlines() if " | " in line]
    told = Counter(row[0].removeprefix("| ") for row in rows)

    assert not [m.name for m in MUTANTS if not told[m.name.partition("/")[2]]]
    assert sum(row[-1].startswith("**survived**") for row in rows) == sum(bool(m.equivalent) for m in MUTANTS)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy.make(tmp_path_factory.mktemp("mutation") / "copy")


def test_a_fault_is_killed_and_taken_out_again(copy: Copy) -> None:
    verdict = copy.judge(FAULT)

    assert (verdict.status, verdict.expected) == (Status.KILLED, True)
    assert verdict.by.startswith("tests/limits/test_budget.py::test_")
    assert (copy.folder / FAULT.file).read_bytes() == (ROOT / FAULT.file).read_bytes()


def test_no_fault_survives_and_is_expected_only_where_it_is_said_to_change_nothing(copy: Copy) -> None:
    verdict = copy.judge(evolve(FAULT, new="self._ticks.append(tick + 0)"))

    assert (verdict.status, verdict.expected) == (Status.SURVIVED, False)
    assert evolve(verdict, mutant=evolve(verdict.mutant, equivalent="it adds nothing")).expected


def test_a_fault_that_does_not_run_is_broken_and_not_killed(copy: Copy) -> None:
    assert copy.judge(evolve(FAULT, new="return = 1")).status is Status.BROKEN
    assert copy.judge(evolve(FAULT, tests=("tests/limits/no_such_test.py",))).status is Status.BROKEN


def test_a_fault_whose_place_is_gone_or_not_the_only_one_is_stale(copy: Copy) -> None:
    found = [copy.judge(evolve(FAULT, old=old)) for old in ("no such text", "self")]

    assert [verdict.status for verdict in found] == [Status.STALE] * 2
    assert "found it 0 times" in found[0].by


def test_tests_that_import_another_package_than_the_copy_are_refused(tmp_path: Path) -> None:
    copy = Copy.make(tmp_path / "copy")
    (copy.folder / "lbw_policy").rename(tmp_path / "lbw_policy")
    (copy.folder / "lbw_policy").symlink_to(tmp_path / "lbw_policy")

    assert copy.run(TESTS).returncode == 77


def test_the_score_leaves_out_what_changes_nothing() -> None:
    killed, missed = Verdict(FAULT, Status.KILLED, "tests/a.py::test_x"), Verdict(FAULT, Status.SURVIVED)
    same = Verdict(evolve(FAULT, equivalent="it adds nothing"), Status.SURVIVED)
    text = mutation.table([killed, missed, same])

    assert "**1 of 2 mutants are killed.** 1 more change nothing and survive." in text
    assert "| fault | No budget runs out. | `a.py::test_x` |" in text
    assert "| fault | No budget runs out. Changes nothing: it adds nothing | **survived** |" in text
