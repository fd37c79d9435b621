"""One source for every word of the language: both highlighters, hover and the grammar agree."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygments import token
from pygments.lexers import get_lexer_for_filename

from lbw_policy.editors import textmate
from lbw_policy.editors.highlight import LbwLexer
from lbw_policy.editors.meanings import KEYWORDS, UNITS
from lbw_policy.editors.words import words
from lbw_policy.resources import grammar_path, presets
from lbw_policy.semantics.functions import FUNCTIONS
from lbw_policy.semantics.types import NAMED

ROOT = Path(__file__).resolve().parents[2]
_SOURCE = re.sub(r"^\s*//.*$", "", grammar_path().read_text(encoding="utf-8"), flags=re.MULTILINE)
QUOTED = set(re.findall(r'"([A-Za-z_]\w*)"', _SOURCE))
"""The keywords as the grammar file writes them, read without its parser."""


def _kinds(text: str) -> list[tuple[object, str]]:
    return [(kind, value) for kind, value in LbwLexer().get_tokens(text) if value.strip()]


def test_the_keywords_are_those_of_the_grammar_file() -> None:
    assert words().keywords == QUOTED


def test_every_keyword_is_in_one_group_and_has_a_meaning() -> None:
    known = words()
    groups = [known.statements, known.actions, known.logic, known.durations, known.constants, known.clauses]

    assert sum(map(len, groups)) == len(known.keywords)
    assert set(KEYWORDS) == known.keywords
    assert set(UNITS) == set(NAMED)
    assert all(groups)
    assert {"policy", "lbw", "test"} <= known.statements
    assert {"skip", "scale_lr", "halt"} <= known.actions
    assert known.durations == {"step", "steps"}


def test_the_textmate_file_is_the_generated_one() -> None:
    """After a change of the grammar, run `python -m lbw_policy.editors.textmate`."""
    assert (ROOT / textmate.DEFAULT).read_text(encoding="utf-8") == textmate.text()


def test_the_textmate_file_colours_exactly_the_keywords() -> None:
    content = json.loads((ROOT / textmate.DEFAULT).read_text(encoding="utf-8"))

    assert textmate.keywords_of(content) == QUOTED


def test_every_textmate_pattern_is_a_regular_expression_with_its_captures() -> None:
    for rule in textmate.grammar()["patterns"]:
        pattern = re.compile(rule.get("match") or rule["begin"])
        assert len(rule.get("captures", {})) <= pattern.groups


def test_writing_the_textmate_file_gives_its_text(tmp_path: Path) -> None:
    assert textmate.main([str(tmp_path / "x.json")]) == 0
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == textmate.text()


@pytest.mark.parametrize("name", sorted(presets()))
def test_a_preset_highlights_without_an_error_and_without_loss(name: str) -> None:
    text = presets()[name].read_text(encoding="utf-8")
    found = list(LbwLexer(stripnl=False, ensurenl=False).get_tokens(text))

    assert not [value for kind, value in found if kind is token.Error]
    assert "".join(value for _, value in found) == text


def test_each_keyword_is_highlighted_as_one() -> None:
    for word in QUOTED:
        ((kind, _),) = _kinds(word)
        assert kind in token.Keyword or kind is token.Operator.Word


def test_names_functions_and_signals_are_told_apart() -> None:
    assert _kinds("signal grad = telemetry.grad_norm")[:2] == [
        (token.Keyword.Declaration, "signal"),
        (token.Name.Variable, "grad"),
    ]
    assert (token.Name.Builtin, "grad_norm") in _kinds("signal grad = telemetry.grad_norm")
    assert _kinds("divergence.alarm")[-1] == (token.Name.Attribute, "alarm")
    assert (token.String.Interpol, "{loss}") in _kinds('"it is {loss}"')
    assert (token.Error, "$") in _kinds("let a = $")
    assert all(_kinds(f"{name}(")[0][0] is token.Name.Function for name in FUNCTIONS)
    assert _kinds("median")[0][0] is token.Name


@given(st.text(max_size=200))
def test_highlighting_loses_nothing_of_any_text(text: str) -> None:
    found = LbwLexer(stripnl=False, ensurenl=False).get_tokens_unprocessed(text)

    assert "".join(value for _, _, value in found) == text


def test_pygments_finds_the_lexer_by_file_name() -> None:
    assert any(entry.name == "lbw" for entry in entry_points(group="pygments.lexers"))
    assert type(get_lexer_for_filename("x.lbw")) is LbwLexer
    assert LbwLexer.analyse_text("# hello\nlbw 1\n") == 1.0
    assert LbwLexer.analyse_text("import lbw") == 0.0


@pytest.mark.parametrize("module", ["highlight", "server", "textmate"])
def test_editors_load_no_torch_river_or_numpy(module: str) -> None:
    script = (
        f"import lbw_policy.editors.{module}, sys; print([m for m in ('torch', 'river', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
