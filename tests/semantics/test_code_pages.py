"""The pages about codes: one each, and their examples say what they claim."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lbw_policy
from lbw_policy.resources import code_pages
from lbw_policy.semantics import check

PAGES = code_pages()
USED = {
    code
    for path in Path(lbw_policy.__file__).parent.rglob("*.py")
    for code in re.findall(r"LBW\d{3}", path.read_text(encoding="utf-8"))
}
WITHOUT_EXAMPLE = {
    "LBW001", "LBW002", "LBW006",  # about a whole file
    "LBW003", "LBW004",  # too long to show, or invisible
    "LBW221",  # about a value given from outside
    "LBW601", "LBW603", "LBW604",  # need several files
    "LBW701", "LBW702", "LBW703",  # need a plugin
}  # fmt: skip
SHOWN = sorted(PAGES.keys() - WITHOUT_EXAMPLE)


def block(code: str, kind: str) -> str:
    """Return the one fenced block of a kind on a page."""
    text = PAGES[code].read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(found)


def findings(text: str) -> list[str]:
    return [finding.code for finding in check(text if "\n" in text else text + "\n").diagnostics]


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert set(PAGES) == USED


@pytest.mark.parametrize("code", sorted(PAGES))
def test_a_page_is_titled_and_short(code: str) -> None:
    lines = PAGES[code].read_text(encoding="utf-8").splitlines()

    assert re.fullmatch(rf"# {code}: \S.*", lines[0])
    assert "**Why it matters.**" in "\n".join(lines)
    assert 5 <= len(lines) <= 50
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("code", SHOWN)
def test_the_wrong_example_yields_the_code(code: str) -> None:
    assert set(findings(block(code, "lbw-wrong"))) == {code}


@pytest.mark.parametrize("code", SHOWN)
def test_the_right_example_is_clean(code: str) -> None:
    assert findings(block(code, "lbw")) == []


def test_there_are_at_least_25_lints_and_semantic_checks() -> None:
    assert len([code for code in USED if code.startswith(("LBW2", "LBW3", "LBW4"))]) >= 25
