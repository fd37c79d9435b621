"""Canonical layout: the policy stays what it was, comments stay where they were, and a second time changes nothing."""

from __future__ import annotations

from pathlib import Path
from random import Random

import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lbw_policy.diagnostics import Source
from lbw_policy.errors import PolicyError
from lbw_policy.resources import presets
from lbw_policy.semantics import check_source
from lbw_policy.syntax import parse
from lbw_policy.syntax.formatter import format_text
from lbw_policy.syntax.layout import WIDTH
from lbw_policy.syntax.parser import lexemes
from tests.texts import policy_texts

TESTS = Path(__file__).parent.parent
CASES = TESTS / "cases_fmt"
NAMES = sorted(path.name for path in CASES.iterdir() if path.is_dir())


def read_all(*patterns: str) -> list[str]:
    paths = [path for pattern in patterns for path in sorted(TESTS.parent.glob(pattern))]
    return [path.read_text(encoding="utf-8") for path in paths]


def parses(text: str) -> bool:
    return not parse(Source("policy.lbw", text)).diagnostics


CORPUS = [text for text in read_all("policies/*.lbw", "tests/cases_fmt/*/input.lbw", "tests/cases/*/policy.lbw",
                                    "examples/*.lbw") if parses(text)]  # fmt: skip


def plain(node: object) -> object:
    """Return a tree without its spans; a NaN equals itself in it."""
    if isinstance(node, tuple):
        return [plain(one) for one in node]
    if attrs.has(type(node)):
        names = [part.name for part in attrs.fields(type(node)) if part.name != "span"]
        return type(node).__name__, {name: plain(getattr(node, name)) for name in names}
    return repr(node)


def tree(text: str) -> object:
    parsed = parse(Source("policy.lbw", text))
    assert parsed.diagnostics == ()
    return plain(parsed.tree)


def comments(text: str) -> list[str]:
    return [token.rstrip() for token in lexemes(text) if token.type == "COMMENT"]


def spelled(text: str) -> list[str]:
    """Return the tokens as written, but for the number of a unit."""
    singular = {"steps": "step", "times": "time"}
    return [singular.get(token, str(token)) for token in lexemes(text) if token.type not in {"COMMENT", "SPACE"}]


def obeys_the_laws(text: str) -> None:
    formatted = format_text(text)
    assert tree(formatted) == tree(text)
    assert format_text(formatted) == formatted
    assert comments(formatted) == comments(text)
    assert spelled(formatted) == spelled(text)
    assert formatted.endswith("\n")
    assert "\n\n\n" not in formatted
    assert not any(line != line.rstrip() for line in formatted.replace("\r\n", "\n").split("\n"))


def apart(left: str, right: str) -> bool:
    """Tell whether two tokens stay two without a blank between them."""
    return [str(token) for token in lexemes(left + right)] == [left, right]


@st.composite
def scattered(draw: st.DrawFn) -> str:
    """Draw a policy of the corpus with other blanks, and more comments, between its tokens."""
    random = Random(draw(st.integers(0, 2**32)))  # noqa: S311 - one draw a gap would be too many for hypothesis
    text = draw(st.sampled_from([text for text in CORPUS if "{" in text]))
    odd = draw(st.sampled_from((0.02, 0.1, 0.5)))
    tokens = [str(token) for token in lexemes(text) if token.type not in {"COMMENT", "SPACE"}]
    found = ""
    for number, (left, right) in enumerate(zip(["", *tokens], [*tokens, ""], strict=True)):
        usual = "\n" if right in {"do", "let", "signal", "level", "limits", "enter", "}"} else " "
        choices = [" ", "\n", "\n\n\n", "\t \f", f" # beside {number} \n", f"#touching {number}\n\n",
                   f"\n# above {number}\n", f"\n\n  # {number} {{\n\n\n# twice {number} }}\n"]  # fmt: skip
        if not left or not right or apart(left, right):
            choices.append("")
        found += (random.choice(choices) if random.random() < odd else usual) + right
    return found


# Laws


@pytest.mark.parametrize("text", CORPUS)
def test_laws_hold_for_every_policy_of_the_repository(text: str) -> None:
    obeys_the_laws(text)


@given(scattered())
@settings(max_examples=60, deadline=None)
def test_laws_hold_however_blanks_and_comments_are_scattered(text: str) -> None:
    obeys_the_laws(text)


@given(policy_texts())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_laws_hold_for_drawn_policies_and_the_checker_finds_the_same(text: str) -> None:
    obeys_the_laws(text)
    assert codes(format_text(text)) == codes(text)


@pytest.mark.parametrize("text", CORPUS)
def test_checker_finds_the_same_in_every_policy_of_the_repository(text: str) -> None:
    assert codes(format_text(text)) == codes(text)


def codes(text: str) -> list[str]:
    return [finding.code for finding in check_source(Source("policy.lbw", text)).diagnostics]


@given(st.text(alphabet='lbw 1#{}()"-@\n\r\t,.=<', max_size=60))
@example("# only a comment")
@settings(max_examples=200, deadline=None)
def test_any_text_is_formatted_or_refused(text: str) -> None:
    findings = parse(Source("<text>", text)).diagnostics
    if not findings:
        obeys_the_laws(text)
        return
    with pytest.raises(PolicyError) as caught:
        format_text(text)
    assert caught.value.diagnostics == findings


# Cases


@pytest.mark.parametrize("name", NAMES)
def test_case_is_laid_out_as_written_beside_it(name: str, rewrite_cases: bool) -> None:
    expected = CASES / name / "output.lbw"
    found = format_text((CASES / name / "input.lbw").read_text(encoding="utf-8"))
    if rewrite_cases:
        expected.write_text(found, encoding="utf-8", newline="\n")
    assert found == expected.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", presets())
def test_presets_are_canonical(name: str) -> None:
    text = presets()[name].read_text(encoding="utf-8")
    assert format_text(text) == text


def test_lines_that_can_be_broken_are_within_the_width() -> None:
    lines = (CASES / "long_lines" / "output.lbw").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > WIDTH and "cannot_be_broken" not in line] == []


# Line ends and refusals


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_are_those_of_the_first_line(end: str) -> None:
    text = "lbw 1\npolicy p { }\nlet a = 1 # one\n".replace("\n", end)
    formatted = format_text(text)
    assert formatted == "lbw 1\n\npolicy p { }\n\nlet a = 1  # one\n".replace("\n", end)
    assert format_text(formatted) == formatted


def test_numbers_texts_and_parentheses_stay_as_written() -> None:
    line = r'alert a info when ((x)) > 1_000 and y < 0.30 or z == 5% or w > 1e-3  "\"{x}\" \\ # no comment"'
    assert line in format_text(f"lbw 1 policy p {{ }}\n{line}")


def test_a_unit_agrees_with_its_number() -> None:
    text = "lbw 1 policy p { snapshot every 1 steps quarantine at most 1_0 step } let a = 1.0 steps let b = 0 step"
    shown = "snapshot every 1 step  quarantine at most 1_0 steps }\n\nlet a = 1.0 step\nlet b = 0 steps\n"
    assert format_text(text).endswith(shown)


def test_a_syntax_error_is_refused_with_every_finding() -> None:
    with pytest.raises(PolicyError, match=r"p\.lbw:1:16: error\[LBW103\]") as caught:
        format_text("lbw 1 policy p {\nlet = 2\nlet b = )", "p.lbw")
    assert len(caught.value.diagnostics) == 3


def test_a_text_whose_canonical_layout_is_too_long_to_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "lbw 1 policy p{}let a=1 let long_name=1"
    monkeypatch.setattr("lbw_policy.syntax.formatter.MAX_CHARACTERS", len(format_text(text)) - 1)
    with pytest.raises(PolicyError, match="LBW003"):
        format_text(text)
