"""Golden cases: each folder of `tests/cases` has a policy with one kind of mistake, and what the checker says to it.

Other `.lbw` files in a folder are what its policy imports or extends.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lbw_policy
from lbw_policy.diagnostics import render
from lbw_policy.semantics import check_bytes

CASES = Path(__file__).parent.parent / "cases"
NAMES = sorted(path.name for path in CASES.iterdir() if path.is_dir())
ELSEWHERE = {
    "LBW001": "tests/cli/test_check.py",
    "LBW002": "tests/cli/test_check.py",
    "LBW003": "tests/cli/test_check.py",
    "LBW006": "tests/cli/test_check.py",
    "LBW221": "tests/semantics/test_params.py",
    "LBW604": "tests/semantics/test_linking.py",
    "LBW605": "tests/semantics/test_linking.py",
    "LBW701": "tests/semantics/test_plugins.py",
    "LBW702": "tests/semantics/test_plugins.py",
    "LBW703": "tests/semantics/test_plugins.py",
}
"""Codes that no small text can give, and the file that tests them."""


def codes_in(folder: Path, pattern: str) -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in folder.rglob(pattern))
    return {code for text in texts for code in re.findall(r"LBW\d{3}", text)}


@pytest.mark.parametrize("name", NAMES)
def test_case_gives_the_findings_written_beside_it(name: str, rewrite_cases: bool) -> None:
    expected = CASES / name / "diagnostics.txt"
    policy = CASES / name / "policy.lbw"
    checked = check_bytes("policy.lbw", policy.read_bytes(), path=policy)
    found = "".join(render(finding) + "\n\n" for finding in checked.diagnostics)
    if rewrite_cases:
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("clean_")])
def test_clean_case_has_no_finding(name: str) -> None:
    assert (CASES / name / "diagnostics.txt").read_text(encoding="utf-8") == ""


def test_every_code_has_a_case() -> None:
    used = codes_in(Path(lbw_policy.__file__).parent, "*.py")
    assert used - codes_in(CASES, "diagnostics.txt") == set(ELSEWHERE)


def test_codes_without_a_case_are_tested_elsewhere() -> None:
    root = CASES.parent.parent
    for code, path in ELSEWHERE.items():
        assert code in (root / path).read_text(encoding="utf-8"), code
