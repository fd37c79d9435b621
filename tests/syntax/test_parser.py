"""Text -> tree: words as names, line ends, positions, and many mistakes found in one pass."""

from __future__ import annotations

import re

import pytest
from lark import Lark

from lbw_policy.diagnostics import Source
from lbw_policy.resources import grammar_path
from lbw_policy.syntax import MAX_CHARACTERS, Parsed, nodes, parse
from lbw_policy.syntax.build import TreeBuilder
from lbw_policy.syntax.recovery import RESERVED

GRAMMAR = grammar_path().read_text(encoding="utf-8")
WORDS = sorted(set(re.findall(r'"([a-z_]+)"', GRAMMAR)))


def read(text: str) -> Parsed:
    return parse(Source("policy.lbw", text))


def codes(text: str) -> list[str]:
    return [finding.code for finding in read(text).diagnostics]


def lines(text: str) -> list[int]:
    return [finding.source.position(finding.span.start)[0] for finding in read(text).diagnostics if finding.span]


def test_grammar_has_no_conflict_and_no_colliding_terminals() -> None:
    Lark(GRAMMAR, parser="lalr", lexer="basic", strict=True)


def test_every_rule_of_the_grammar_makes_a_node() -> None:
    """A rule all of whose alternatives have names of their own needs no method."""
    rules = re.split(r"\n(?=[?!]*[a-z_]+: )", re.sub(r"^(//|%|[A-Z]).*\n?", "", GRAMMAR, flags=re.MULTILINE))
    named = {rule.partition(":")[0] for rule in rules if all("-> " in line for line in rule.strip().split("\n"))}
    made = {rule.partition(":")[0].strip() for rule in rules if rule.strip() and not rule.startswith("?")}
    made |= set(re.findall(r"-> ([a-z_]+)$", GRAMMAR, re.MULTILINE))
    assert len(made) > 80
    assert {name.lstrip("!") for name in made - named} - set(dir(TreeBuilder)) == set()


@pytest.mark.parametrize("word", [word for word in WORDS if word.upper() not in RESERVED])
def test_word_of_an_option_may_be_a_name(word: str) -> None:
    parsed = read(f"lbw 1 policy p {{ }} signal {word} = telemetry.loss let a = {word} + 2 * {word}")
    assert parsed.diagnostics == ()
    signal = parsed.tree.statements[1]
    assert isinstance(signal, nodes.Signal)
    assert signal.name.text == word


@pytest.mark.parametrize("word", [word for word in WORDS if word.upper() in RESERVED])
def test_word_that_opens_a_statement_is_no_name(word: str) -> None:
    (finding,) = read(f"lbw 1 policy p {{ }} let {word} = 2").diagnostics
    assert finding.code == "LBW100"
    assert finding.help == f"`{word}` is a word of the language and cannot be a name"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\f", " ", "\t"])
def test_layout_does_not_matter(end: str) -> None:
    text = end.join(
        [
            "lbw",
            "1",
            "policy",
            "p",
            "{",
            "}",
            "signal",
            "loss",
            "=",
            "telemetry.loss",
            "let",
            "a",
            "=",
            "loss",
            "+",
            "1",
        ]
    )
    assert [type(node).__name__ for node in read(text).tree.statements] == ["Policy", "Signal", "Let"]
    assert read(text).diagnostics == ()


def test_numbers_read_as_written() -> None:
    tree = read("lbw 1 policy p { } let a = 1_000 let b = 2.5e-3 let c = 30% let d = 20 steps let e = -1 step").tree
    numbers = [node.expression for node in tree.statements if isinstance(node, nodes.Let)]
    found = [(n.value, n.percent, n.steps) for n in numbers if isinstance(n, nodes.Number)]
    assert found == [(1000, False, False), (0.0025, False, False), (0.3, True, False), (20, False, True),
                     (-1, False, True)]  # fmt: skip


def test_operators_bind_as_in_arithmetic() -> None:
    (_, let) = read("lbw 1 policy p { } let a = not b > 1 + 2 * -c and d or e").tree.statements
    assert isinstance(let, nodes.Let)
    assert _spelled(let.expression) == "(((not (b > (1 + (2 * (- c))))) and d) or e)"


def _spelled(node: nodes.Expression) -> str:
    match node:
        case nodes.Binary(op, left, right):
            return f"({_spelled(left)} {op} {_spelled(right)})"
        case nodes.Unary(op, operand):
            return f"({op} {_spelled(operand)})"
        case nodes.Number(value):
            return f"{value:g}"
        case _:
            return node.text if isinstance(node, nodes.Reference) else "?"


def test_every_mistake_of_a_text_is_found_in_one_pass_and_in_its_place() -> None:
    text = (
        "lbw 1\npolicy p { }\n"
        "signal loss telemetry.loss\n"  # =
        "let jump = loss / median(loss, 128 stps)\n"  # steps
        "let half = (loss + 1\n"  # )
        'alert a info loss > 4 "a"\n'  # when
        'alert b info when loss = 4 "b"\n'  # ==
        "level caution {\n"
        "  entr when loss > 4 for 3\n"  # enter, steps
        "  cooldown\n"  # a duration
        "  do scale_lr 0.5\n"  # by
        "limits { skip at most 4 }\n"  # level unclosed; `in a row`
    )
    assert lines(text) == [3, 4, 5, 6, 7, 8, 9, 9, 10, 11, 12]


def test_a_name_declared_in_a_broken_statement_is_known() -> None:
    assert "jump" in read("lbw 1 policy p { } let jump = ) let a = jump").declared


@pytest.mark.parametrize("text", ["x" * (MAX_CHARACTERS + 1), "#" * (MAX_CHARACTERS + 1)])
def test_a_text_beyond_the_limit_is_refused(text: str) -> None:
    assert codes(text) == ["LBW003"]


@pytest.mark.parametrize("char", ["\x00", "\x1b", "\x7f", "\x9b", "\r", "\u202e", "\u2066", "\u2028"])
def test_what_a_reader_cannot_see_is_refused(char: str) -> None:
    assert codes(f'lbw 1 policy p {{ doc "a{char}b" }}') == ["LBW004"]


@pytest.mark.parametrize(
    "inner", ["(" * 51 + "1" + ")" * 51, "-" * 51 + "1", "not " * 51 + "a", "abs(-" * 26 + "1" + ")" * 26]
)
def test_deep_nesting_is_a_finding(inner: str) -> None:
    assert codes(f"lbw 1 policy p {{ }} let a = {inner}") == ["LBW106"]


@pytest.mark.parametrize(
    "inner", ["1" + " - 1" * 60, "not a and " * 60 + "a", "(a) + " * 60 + "a", "(" * 50 + "1" + ")" * 50]
)
def test_width_is_not_depth(inner: str) -> None:
    assert codes(f"lbw 1 policy p {{ }} let a = {inner}") == []


@pytest.mark.parametrize("kind", ["reflex", "level", "limits", "policy", "signal", "risk"])
@pytest.mark.parametrize("end", ["", "let b = 1", "}"])
def test_a_block_may_break_off_anywhere(kind: str, end: str) -> None:
    whole = {
        "reflex": "reflex r { when a > 1 do skip",
        "level": "level l { enter when a > 1 for 3 of 5 steps each 2 steps do rollback at most 5 steps",
        "limits": "limits { skip at most 4 in a row, at most 20 per 1_000 steps",
        "policy": 'policy p { doc "d" quarantine at most 3 steps',
        "signal": "signal a = telemetry.loss { every 2 steps missing hold 3 steps",
        "risk": "risk r { horizon 2 steps features standard, a alarm at most 1 false per 9 steps",
    }[kind].split(" ")
    for size in range(whole.index("{") + 1, len(whole) + 1):
        parsed = read(f"lbw 1 {' '.join(whole[:size])} {end}")
        assert parsed.diagnostics or end == "}"
