"""What the grammar itself derives: the parser takes all of it, and the checker answers whatever stands beside it."""

from __future__ import annotations

import functools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.lark import from_lark

from benchmarks.fuzz import Cases, Derivations, corpus, live, sound
from lbw_policy.diagnostics import Source
from lbw_policy.resources import grammar_path
from lbw_policy.semantics import check_bytes, check_source
from lbw_policy.syntax import grammar, parse

BUILT = grammar.build(grammar_path().read_text(encoding="utf-8"))
DERIVATIONS = Derivations(BUILT)
MISREAD = {"LBW100", "LBW101", "LBW102", "LBW103"}
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@functools.cache
def texts() -> st.SearchStrategy[str]:
    """Draw derivations of the grammar, with strays and comments between, and words that run together."""
    return from_lark(BUILT, start="start")


@SETTINGS
@given(st.data())
def test_every_text_of_the_grammar_is_answered(data: st.DataObject) -> None:
    sound(check_source(Source("t", data.draw(texts()))))


@settings(SETTINGS, max_examples=150)
@given(st.integers(0, 2**32), st.sampled_from((" ", "\n", "\r\n", " # note\n")))
def test_every_derivation_with_spaces_is_read_without_complaint(seed: int, space: str) -> None:
    words = DERIVATIONS.draw(random.Random(seed))  # noqa: S311 - repeatable on purpose
    found = parse(Source("t", space.join(words))).diagnostics
    assert not [finding for finding in found if finding.code in MISREAD]


@pytest.mark.parametrize("kind", ["derived", "mutated", "bytes"])
def test_cases_of_the_long_fuzzing_are_answered(kind: str) -> None:
    draw = random.Random(11)  # noqa: S311 - repeatable on purpose
    cases = Cases(draw, DERIVATIONS, corpus())
    for _ in range(60):
        checked = check_bytes("t", getattr(cases, kind)())
        sound(checked)
        if checked.policy is not None:
            live(checked.policy, draw)
