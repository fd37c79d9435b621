"""Offsets and the columns an editor counts are each other's inverse, in every encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbw_policy.editors.positions import Lines

TEXTS = st.text(st.sampled_from("aé€😀\n\r\t\ud800 "), max_size=40)
ENCODINGS = st.sampled_from(["utf-8", "utf-16", "utf-32"])


@pytest.mark.parametrize(("encoding", "column"), [("utf-8", 9), ("utf-16", 4), ("utf-32", 3)])
def test_a_character_beyond_the_basic_plane_counts_as_its_code_units(encoding: str, column: int) -> None:
    lines = Lines("\n😀é€x", encoding)

    assert lines.position(4) == (1, column)
    assert lines.offset(1, column) == 4


def test_all_three_line_ends_end_a_line_and_nothing_else_does() -> None:
    lines = Lines("a\r\nb\rc\u2028\x0b\x85d\ne")

    assert [lines.position(lines.text.index(char))[0] for char in "abcde"] == [0, 1, 2, 2, 3]


@given(TEXTS, ENCODINGS, st.integers(0, 40))
def test_a_position_leads_back_to_its_offset(text: str, encoding: str, at: int) -> None:
    at = min(at, len(text))
    lines = Lines(text, encoding)
    within_line_end = text[at - 1 : at + 1] == "\r\n"

    assert lines.offset(*lines.position(at)) == at - within_line_end


@given(TEXTS, ENCODINGS, st.integers(-5, 60), st.integers(-5, 60))
def test_any_position_is_some_offset_of_the_text(text: str, encoding: str, line: int, column: int) -> None:
    assert 0 <= Lines(text, encoding).offset(line, column) <= len(text)


@given(TEXTS, ENCODINGS, st.lists(st.integers(0, 40), min_size=2, max_size=2))
def test_positions_keep_the_order_of_offsets(text: str, encoding: str, pair: list[int]) -> None:
    low, high = sorted(pair)
    lines = Lines(text, encoding)

    assert lines.position(low) <= lines.position(high)
