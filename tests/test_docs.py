"""The documents: policies in them check, and the reference of the language says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lbw_policy
from lbw_policy.diagnostics import render
from lbw_policy.resources import grammar_path
from lbw_policy.semantics import ceilings, check, types
from lbw_policy.semantics.functions import FUNCTIONS
from lbw_policy.semantics.signals import LAYER_STATISTICS, OWN, SIGNALS
from lbw_policy.syntax.recovery import RESERVED

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE = ROOT / "docs" / "language.md"
RECOVERY_ONLY = {"SPACE", "SLASHES", "UNTERMINATED", "STRAY"}
"""Terminals for layout and for texts in error; they are no part of the language."""


def blocks(page: Path, kind: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of a kind, each with the line it begins on."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start()) + 1, match[1]) for match in found]


POLICIES = [
    pytest.param(text, id=f"{page.name}:{line}") for page in PAGES for line, text in blocks(page, "lbw")
]  # fmt: skip


@pytest.mark.parametrize("text", POLICIES)
def test_every_policy_in_a_document_is_clean(text: str) -> None:
    assert "\n".join(render(finding) for finding in check(text).diagnostics) == ""


def test_the_documents_show_policies() -> None:
    assert len(POLICIES) >= 5


def notation(grammar: str) -> str:
    """Return the grammar as the reference prints it: without the names of alternatives and marks for the parser."""
    lines = [line for line in grammar.split("\n") if line.strip() and not line.startswith(("//", "%"))]
    plain = [re.sub(r"\s*-> \w+$", "", line).rstrip() for line in lines]
    plain = [re.sub(r"^[?!]*(\w+)(\.-?\d+)?: ", r"\1 = ", line) for line in plain]
    return "\n".join(line for line in plain if line.partition(" = ")[0] not in RECOVERY_ONLY) + "\n"


def test_the_reference_prints_the_grammar(rewrite_cases: bool) -> None:
    expected = notation(grammar_path().read_text(encoding="utf-8"))
    ((_, printed),) = blocks(PAGE, "ebnf")
    if rewrite_cases:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(text.replace(f"```ebnf\n{printed}```", f"```ebnf\n{expected}```"), encoding="utf-8")
        printed = expected
    assert printed == expected


def rows(heading: str) -> set[str]:
    """Return the words in backticks that open the rows of the tables under a heading."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    return {word for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for word in re.findall(r"`(\w+)", row)}


def test_the_reference_has_every_function() -> None:
    assert rows("## Functions") == set(FUNCTIONS)


def test_the_reference_has_every_signal() -> None:
    assert rows("## Signals") == {*SIGNALS, *OWN}


def test_the_reference_has_every_unit() -> None:
    assert rows("## Types and units") == set(types.NAMED)


def test_the_reference_names_reserved_words_and_layer_statistics() -> None:
    text = PAGE.read_text(encoding="utf-8")
    reserved = re.search(r"Reserved words: (.*?)\.\n", text, re.DOTALL)
    assert reserved is not None
    assert set(re.findall(r"`(\w+)`", reserved[1])) == {word.lower() for word in RESERVED}
    assert all(f"`{name}`" in text for name in LAYER_STATISTICS)


def test_the_reference_has_every_ceiling() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Ceilings\n")[2].partition("\n## ")[0]
    values = [value for name, value in vars(ceilings).items() if name.isupper()]
    assert all(f"| {value:_}" in section for value in values), values


def test_the_reference_has_every_code() -> None:
    package = Path(lbw_policy.__file__).parent
    used = {
        code for path in package.rglob("*.py") for code in re.findall(r"LBW\d{3}", path.read_text(encoding="utf-8"))
    }
    assert rows("## Diagnostics") == used
