"""Findings: places in a text, how they are printed, and what was most likely meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbw_policy.diagnostics import Diagnostic, Related, Severity, Source, Span, as_json, nearest, render

texts = st.text(st.sampled_from("ab\n\r\t\f\x85\u2028é漢"), max_size=40)


@given(texts.flatmap(lambda text: st.tuples(st.just(text), st.integers(0, len(text)))))
def test_a_position_counts_newlines_and_characters(case: tuple[str, int]) -> None:
    text, offset = case
    before = text[:offset]
    assert Source("t", text).position(offset) == (before.count("\n") + 1, offset - before.rfind("\n"))


@given(texts)
def test_lines_are_what_newlines_separate(text: str) -> None:
    lines = text.split("\n")
    assert [Source("t", text).line(n + 1) for n in range(len(lines))] == [line.rstrip("\r") for line in lines]
    assert Source("t", text).line(len(lines) + 1) == ""


@given(texts, st.data())
def test_a_finding_anywhere_renders_and_its_carets_lie_under_the_line(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    span = Span(start, data.draw(st.integers(start, len(text))))
    head, shown, carets, *rest = render(Diagnostic("LBW999", "wrong", Source("t", text), span)).split("\n")
    line, column = Source("t", text).position(start)
    assert head == f"t:{line}:{column}: error[LBW999]: wrong"
    assert rest == []
    assert carets.count("^") >= 1
    assert len(carets) <= max(len(shown), len("    1 | ") + column)


def test_an_excerpt_shows_the_line_the_place_and_the_help() -> None:
    source = Source("p.lbw", "lbw 1\n\tlet a = b\n")
    finding = Diagnostic("LBW201", "undefined name `b`", source, Span(15, 16), "declare it", Severity.WARNING)
    assert render(finding).split("\n") == [
        "p.lbw:2:10: warning[LBW201]: undefined name `b`",
        "    2 | \tlet a = b",
        "      | \t        ^",
        "help: declare it",
    ]


def test_a_long_line_is_cut_around_the_place() -> None:
    text = "a" * 500 + "X" + "b" * 500
    shown, carets = render(Diagnostic("LBW999", "wrong", Source("t", text), Span(500, 501))).split("\n")[1:]
    assert len(shown) < 140
    assert shown[carets.index("^")] == "X"


def test_unprintable_characters_cannot_reach_the_terminal() -> None:
    finding = Diagnostic("LBW999", "wrong", Source("a\x1b[2J\nb", "x\x1b[2J\u202ey"), Span(1, 2))
    assert "\x1b" not in render(finding)
    assert "\u202e" not in render(finding)
    assert render(finding).count("\n") == 2


@pytest.mark.parametrize("severity", Severity)
def test_colour_only_adds_to_the_text(severity: Severity) -> None:
    finding = Diagnostic("LBW999", "wrong", Source("t", "text"), Span(0, 4), "help", severity)
    plain, coloured = render(finding), render(finding, colour=True)
    assert plain != coloured
    for sequence in ("\x1b[1;31m", "\x1b[1;33m", "\x1b[0m"):
        coloured = coloured.replace(sequence, "")
    assert coloured == plain


def test_plain_data_has_positions_from_one_and_none_for_a_whole_file() -> None:
    source = Source("p.lbw", "lbw 1\nlet a = b\n")
    assert as_json(Diagnostic("LBW201", "m", source, Span(14, 15), "h")) == {
        "path": "p.lbw", "line": 2, "column": 9, "end_line": 2, "end_column": 10,
        "severity": "error", "code": "LBW201", "message": "m", "help": "h", "related": [],
    }  # fmt: skip
    whole = as_json(Diagnostic("LBW005", "m", source))
    assert [whole[name] for name in ("line", "column", "end_line", "end_column", "help")] == [None] * 5


def test_findings_sort_by_place() -> None:
    source = Source("t", "text")
    spans = [None, Span(0, 1), Span(0, 2), Span(1, 1)]
    findings = [Diagnostic("LBW999", "m", source, span) for span in spans]
    assert sorted([*findings[2:], *findings[:2]], key=Diagnostic.sort_key) == findings


@pytest.mark.parametrize(
    ("word", "meant"), [("zscroe", "zscore"), ("MEDIAN", "median"), ("mdian", "median"), ("spread", None), ("", None)]
)
def test_only_a_near_word_is_suggested(word: str, meant: str | None) -> None:
    assert nearest(word, ("zscore", "median", "mean", "std")) == meant


def test_another_place_is_shown_under_its_own_line_and_with_its_file_where_that_differs() -> None:
    here, there = Source("a.lbw", "let x = 1\nlet x = 2"), Source("b.lbw", "let x = 3")
    near, far = Related("first declared here", here, Span(4, 5)), Related("and here", there, Span(4, 5))
    finding = Diagnostic("LBW202", "twice", here, Span(14, 15), related=(near, far))

    assert render(finding).splitlines() == [
        "a.lbw:2:5: error[LBW202]: twice",
        "    2 | let x = 2",
        "      |     ^",
        "    1 | let x = 1",
        "      |     - first declared here",
        "b.lbw:1:5:",
        "    1 | let x = 3",
        "      |     - and here",
    ]
    assert [other["path"] for other in as_json(finding)["related"]] == ["a.lbw", "b.lbw"]
