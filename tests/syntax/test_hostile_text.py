"""Whatever a file holds, the checker answers with findings inside of it, and in time that grows with its size."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.diagnostics import Source, as_json, render
from lbw_policy.resources import presets
from lbw_policy.semantics import Checked, check, check_bytes, check_source
from tests.texts import policy_texts

PRESETS = [path.read_text(encoding="utf-8") for path in presets().values()]
HEAD = "lbw 1\npolicy p { }\nsignal loss = telemetry.loss\n"
TOKENS = sorted(
    {word for text in PRESETS for word in text.split()} | set("{}[](),.=:+-*/<>%\"'#") | {"lbw", "1e999", "->"}
)


def sound(checked: Checked) -> None:
    """Assert what holds for every outcome of a check."""
    for finding in checked.diagnostics:
        length = len(finding.source.text)
        if finding.span is not None:
            assert 0 <= finding.span.start <= finding.span.end <= length
        assert render(finding)
        assert as_json(finding)["code"] == finding.code
    errors = [finding for finding in checked.diagnostics if finding.severity.value == "error"]
    assert (checked.policy is None) == bool(errors)


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    sound(check_source(Source("t", text)))


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(raw: bytes) -> None:
    sound(check_bytes("t", raw))


@settings(max_examples=100)
@given(st.lists(st.sampled_from(TOKENS), max_size=40).map(" ".join))
def test_any_heap_of_words_is_answered(text: str) -> None:
    sound(check_source(Source("t", HEAD + text)))


@st.composite
def mutations(draw: st.DrawFn, unit: Callable[[str], list[str]], joined_by: str) -> str:
    """Draw a preset or a policy some parts of which are left out, doubled or swapped."""
    parts = unit(draw(st.sampled_from(PRESETS) | policy_texts()))
    for _ in range(draw(st.integers(1, 4))):
        one, other = (draw(st.integers(0, len(parts) - 1)) for _ in range(2))
        match draw(st.sampled_from(("drop", "double", "swap", "insert"))):
            case "drop":
                parts[one : one + 1] = [""]
            case "double":
                parts.insert(one, parts[other])
            case "swap":
                parts[one], parts[other] = parts[other], parts[one]
            case _:
                parts.insert(one, draw(st.sampled_from(TOKENS) | st.characters()))
    return joined_by.join(parts)


@settings(max_examples=40, deadline=None)
@given(mutations(list, ""))
def test_mutated_characters_are_answered(text: str) -> None:
    sound(check_source(Source("t", text)))


@settings(max_examples=40, deadline=None)
@given(mutations(lambda text: text.split(" "), " "))
def test_mutated_words_are_answered(text: str) -> None:
    sound(check_source(Source("t", text)))


@settings(max_examples=40, deadline=None)
@given(mutations(lambda text: text.split("\n"), "\n"))
def test_mutated_lines_are_answered(text: str) -> None:
    sound(check_source(Source("t", text)))


# Size

HUGE: dict[str, Callable[[int], str]] = {
    "braces": lambda n: "{" * n,
    "closing": lambda n: "}" * n,
    "parentheses": lambda n: "let a = " + "(" * n,
    "signs": lambda n: "let a = " + "-" * n,
    "dots": lambda n: "let a = loss" + ".a" * n,
    "operands": lambda n: "let a = loss" + " + loss" * n,
    "strays": lambda n: "$" * n,
    "quotes": lambda n: '"\n' * n,
    "open blocks": lambda n: "level a {\n" * n,
    "misspelt words": lambda n: "sginal " * n,
    "lets": lambda n: "".join(f"let a{i} = loss\n" for i in range(n)),
    "undefined names": lambda n: "".join(f"let a{i} = b{i}\n" for i in range(n)),
    "names declared twice": lambda n: "let a = loss\n" * n,
    "lets in a row": lambda n: "let a0 = loss\n" + "".join(f"let a{i + 1} = a{i} + 1\n" for i in range(n)),
    "lets in a row, last first": lambda n: "".join(f"let a{i} = a{i + 1} + 1\n" for i in range(n)),
    "fallbacks": lambda n: "reflex a { when loss > 1 do skip" + " else halt" * n + " }",
    "levels": lambda n: "levels normal" + "".join(f" -> a{i} " for i in range(n))
    + "".join(f"level a{i} {{ enter when loss > 1 }}\n" for i in range(n)),
    "alerts on one large value": lambda n: "let big = " + " + ".join(f"median(loss, {i + 2} steps)" for i in range(60))
    + "\n" + "".join(f'alert a{i} info when big > {i} "{{big}}"\n' for i in range(n)),
}  # fmt: skip


def work(text: str) -> int:
    """Return how many calls a check makes, C functions included."""
    count = 0

    def tally(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(tally)
    try:
        check_source(Source("t", text))
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("kind", HUGE)
def test_work_grows_with_the_size_of_the_text(kind: str) -> None:
    small, large = (HEAD + HUGE[kind](size) for size in (300, 900))
    work(small)  # the grammar is read once
    assert work(large) < 3.6 * work(small)


@pytest.mark.parametrize("kind", ["lets", "undefined names", "strays", "closing", "names declared twice"])
def test_findings_are_cut_off(kind: str) -> None:
    assert len(check_source(Source("t", HEAD + HUGE[kind](1800))).diagnostics) <= 400


def test_lets_that_multiply_are_refused() -> None:
    lets = "let a0 = loss > 1\n" + "".join(f"let a{i + 1} = a{i} and a{i}\n" for i in range(60))
    checked = check(HEAD + lets + 'alert x info when a60 "x"')
    assert {finding.code for finding in checked.diagnostics} == {"LBW217"}


def test_chains_in_parentheses_are_refused_where_they_grow_too_deep() -> None:
    deep = "(" * 45 + "loss" + (")" + " + loss" * 60) * 45
    assert {finding.code for finding in check(f"{HEAD}let a = {deep}").diagnostics} == {"LBW217"}
