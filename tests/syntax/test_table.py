"""The shipped parse table is the grammar's own, and a table that is not leaves the parser to the grammar."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lark import Lark

from lbw_policy.diagnostics import Source
from lbw_policy.resources import grammar_path, presets
from lbw_policy.syntax import grammar, table
from lbw_policy.syntax.build import TreeBuilder
from lbw_policy.syntax.recovery import Driver
from tests.texts import policy_texts

GRAMMAR = grammar_path().read_text(encoding="utf-8")
SHIPPED = grammar.table_path().read_text(encoding="utf-8")
PRESETS = {name: path.read_text(encoding="utf-8") for name, path in presets().items()}
in_one_file = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def built() -> Lark:
    return grammar.build(GRAMMAR)


@pytest.fixture(scope="module")
def loaded() -> Lark:
    found = grammar.read(GRAMMAR, grammar.table_path())
    assert found is not None
    return found


def outcome(lark: Lark, text: str) -> object:
    """Return the nodes, with their spans, and the findings that one parser makes of a text."""
    source = Source("t", text)
    driver = Driver(lark, source)
    raw = driver.run(list(lark.lex(text)))
    return TreeBuilder(source).transform(raw) if raw else None, driver.diagnostics


def test_shipped_table_is_the_one_of_the_grammar() -> None:
    assert table.text(GRAMMAR) == SHIPPED, "run `make grammar`"


def test_table_is_the_same_whatever_the_order_of_sets() -> None:
    show = "from lbw_policy.resources import grammar_path; from lbw_policy.syntax import table;"
    show += "print(table.text(grammar_path().read_text()), end='')"
    found = subprocess.run([sys.executable, "-c", show], env={"PYTHONHASHSEED": "7"}, capture_output=True, check=True,
                           cwd=grammar_path().parents[1])  # fmt: skip
    assert found.stdout.decode() == SHIPPED


@pytest.mark.parametrize("name", PRESETS)
def test_both_parsers_read_a_preset_alike(name: str, built: Lark, loaded: Lark) -> None:
    tree, findings = found = outcome(loaded, PRESETS[name])
    assert tree is not None
    assert findings == []
    assert found == outcome(built, PRESETS[name])


@in_one_file
@given(policy_texts())
def test_both_parsers_read_a_drawn_policy_alike(built: Lark, loaded: Lark, text: str) -> None:
    assert outcome(loaded, text) == outcome(built, text)


@in_one_file
@given(st.sampled_from(sorted(PRESETS)), st.data())
def test_both_parsers_find_the_same_mistakes(built: Lark, loaded: Lark, name: str, data: st.DataObject) -> None:
    words = PRESETS[name].split(" ")
    for place in data.draw(st.lists(st.integers(0, len(words) - 1), min_size=1, max_size=4)):
        words[place] = data.draw(st.sampled_from(["", "{", "}", "do", "stps", *words]))
    text = " ".join(words)
    assert outcome(loaded, text) == outcome(built, text)


# Tables that do not fit

DAMAGE: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "cut off": lambda text: text[: len(text) // 2],
    "one character short": lambda text: text[:-1],
    "another lark": lambda text: text.replace('"lark":"', '"lark":"0', 1),
    "another grammar": lambda text: text.replace('"grammar":"', '"grammar":"0', 1),
    "another state": lambda text: text.replace("[1,", "[2,"),
    "no stamp": lambda text: text.partition("\n")[2],
    "another key": lambda text: text.replace('"table":', '"more":1,"table":', 1),
    "something else": lambda _: "[]\n{}",
    "nested without end": lambda _: "[" * 100_000,
    "twice": lambda text: text + text,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_table_leaves_the_parser_to_the_grammar(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: Lark
) -> None:
    path = tmp_path / "lbw.table.json"
    path.write_text(DAMAGE[kind](SHIPPED), encoding="utf-8")
    monkeypatch.setattr(grammar, "table_path", lambda: path)

    assert grammar.read(GRAMMAR, path) is None
    assert outcome(grammar.parser(), PRESETS["monitor"]) == outcome(built, PRESETS["monitor"])


def test_table_that_cannot_be_read_leaves_the_parser_to_the_grammar(tmp_path: Path) -> None:
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")

    assert grammar.read(GRAMMAR, binary) is None
    assert grammar.read(GRAMMAR, tmp_path / "missing.json") is None
    assert grammar.read(GRAMMAR, tmp_path) is None


def test_table_of_an_older_grammar_is_not_used() -> None:
    assert grammar.read(GRAMMAR + "\n// changed\n", grammar.table_path()) is None


@in_one_file
@given(st.integers(0, len(SHIPPED) - 1), st.characters(codec="utf-8", exclude_characters="\r"))
def test_no_changed_character_goes_unseen(tmp_path: Path, place: int, char: str) -> None:
    changed = SHIPPED[:place] + char + SHIPPED[place + 1 :]
    path = tmp_path / "lbw.table.json"
    path.write_text(changed, encoding="utf-8", newline="")

    assert (grammar.read(GRAMMAR, path) is None) == (changed != SHIPPED)
