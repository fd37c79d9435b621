"""Hover, completion, definition, outline and quick fixes, as pure functions of a text and an offset."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.diagnostics import Source
from lbw_policy.editors.completion import Item, completions
from lbw_policy.editors.document import Document
from lbw_policy.editors.fixes import fixes
from lbw_policy.editors.formatting import formatted
from lbw_policy.editors.hover import hover
from lbw_policy.editors.navigation import definition, outline
from lbw_policy.resources import presets
from lbw_policy.semantics import check_source
from lbw_policy.semantics.functions import FUNCTIONS
from lbw_policy.semantics.signals import SIGNALS

TEXT = """\
lbw 1
policy p { doc "d" }
param cut : ratio in [2, 50] = 6
signal grad = telemetry.grad_norm
signal loss = telemetry.loss
let jump = grad / median(grad, 128 steps)
risk trouble {
  horizon 10 steps  features standard, jump  model logistic
  alarm at most 0.3 false per 1_000 steps  trust after 200 steps
}
reflex spike { when jump > cut do skip }
levels normal -> caution
level caution {
  enter when trouble.alarm or not finite(loss) for 3 of 5 steps
  leave when jump < 2 for 20 steps
  do scale_lr by 0.5
}
limits {
  skip at most 4 in a row, at most 20 per 1_000 steps
  scale_lr within [0.1, 1]
}
alert tell warning when trouble > 30% "the loss is {loss}"
"""


def _document(text: str) -> Document:
    return Document(Source("here.lbw", text))


def _at(text: str, mark: str, shift: int = 0) -> int:
    assert text.count(mark) == 1, mark
    return text.index(mark) + shift


def _hover(mark: str, shift: int = 0) -> str:
    found = hover(_document(TEXT), _at(TEXT, mark, shift))
    return found.markdown if found else ""


def _complete(before: str, after: str = "") -> dict[str, Item]:
    return {item.label: item for item in completions(_document(before + after), len(before))}


def _target(mark: str, shift: int = 0) -> str | None:
    found = definition(_document(TEXT), _at(TEXT, mark, shift))
    return TEXT[found.span.start :].splitlines()[0] if found else None


def test_the_text_of_these_tests_is_a_policy() -> None:
    assert check_source(Source("here.lbw", TEXT)).policy is not None


# Hover


def test_limits_tell_the_most_that_the_policy_can_ever_do() -> None:
    found = _hover("limits {")
    assert "authority of `p`: the most it can ever do to a run\n" in found
    assert "  updates skipped       20 in any 1_000 steps" in found
    broken = TEXT.replace("telemetry.loss", "telemetry.los")
    shown = hover(_document(broken), _at(broken, "limits {"))
    assert shown is not None
    assert "authority" not in shown.markdown


def test_a_signal_tells_its_unit_meaning_and_need() -> None:
    found = _hover("telemetry.grad_norm", 12)

    assert "norm" in found
    assert SIGNALS["grad_norm"].meaning in found
    assert "the optimizer" in found


def test_a_function_tells_its_signature_meaning_and_readiness() -> None:
    found = _hover("median(")

    assert "median(x, N steps) : the unit of x" in found
    assert FUNCTIONS["median"].meaning in found
    assert "not ready" in found


@pytest.mark.parametrize(
    ("mark", "shift", "shown"),
    [
        ("jump > cut", 7, "param cut : ratio in [2, 50] = 6"),
        ("jump < 2", 0, "let jump = grad / median(grad, 128 steps)"),
        ("{loss}", 2, "signal loss = telemetry.loss"),
        ("-> caution", 5, "enter when trouble.alarm"),
        ("trouble > 30%", 3, "horizon 10 steps"),
        ("trouble.alarm", 9, "false-alarm budget"),
        ("levels normal", 1, "order of escalation"),
        ("do scale_lr", 5, "limit here: `scale_lr within [0.1, 1]`"),
        ("do skip", 4, "limit here: `skip at most 4 in a row"),
        ("ratio in", 1, "without dimension"),
        ("model logistic", 8, "logistic regression"),
        ("tell warning", 7, "severity"),
        ("standard", 1, "shipped prior"),
    ],
)
def test_a_word_tells_what_it_stands_for(mark: str, shift: int, shown: str) -> None:
    assert shown in _hover(mark, shift)


def test_a_keyword_used_as_a_name_is_that_name() -> None:
    text = "lbw 1\nsignal model = telemetry.loss\nlet twice = model * 2\n"
    found = hover(_document(text), text.index("model * 2"))

    assert found is not None
    assert "signal model = telemetry.loss" in found.markdown


@pytest.mark.parametrize("mark", ["128 steps)", "= 6", "{ doc", "> 30%"])
def test_numbers_and_signs_tell_nothing(mark: str) -> None:
    assert _hover(mark) == ""


# Completion


def test_keywords_are_those_that_fit_the_block() -> None:
    assert set(_complete("lbw 1 policy p { ")) >= {"doc", "extends", "quarantine", "snapshot"}
    assert "enter" not in _complete("lbw 1 policy p { ")
    assert set(_complete("lbw 1 level a { ")) >= {"enter", "leave", "stay", "settles", "cooldown", "do", "each"}
    assert set(_complete("lbw 1 limits { ")) >= {"skip", "scale_lr", "rollback", "intervene"}
    assert set(_complete("lbw 1 level a { do ", " }")) >= {"skip", "clip", "freeze", "halt"}
    assert set(_complete("lbw 1\n")) >= {"policy", "signal", "level", "limits"}


def test_an_expression_offers_declared_names_and_functions_with_windows() -> None:
    found = _complete(TEXT + "let more = ", "\nlet other = jump\n")

    assert {"cut", "grad", "loss", "jump", "trouble", "other", *FUNCTIONS} <= set(found)
    assert "spike" not in found
    assert found["median"].snippet == "median(${1:x}, ${2:128} steps)"
    assert found["jump"].kind == "let"


def test_a_word_begun_does_not_change_what_fits() -> None:
    assert set(_complete("lbw 1 level a { ent")) == set(_complete("lbw 1 level a { "))


def test_dots_offer_parts() -> None:
    assert set(_complete("signal s = telemetry.")) == set(SIGNALS)
    assert set(_complete(TEXT + "let more = trouble.")) == {"alarm", "probability", "trusted"}
    assert _complete(TEXT + "let more = jump.") == {}


@pytest.mark.parametrize(
    ("before", "offered"),
    [
        ("policy p { extends ", set(presets())),
        ("policy p { on failure ", {"continue", "halt"}),
        ("param p : ", {"ratio", "steps", "norm"}),
        ("risk r { model ", {"logistic", "baseline"}),
        ("signal s = ", {"telemetry", "observed"}),
        ("level a { do freeze top 10% of layers by ", {"activation_variance", "grad_norm"}),
        ("level a { do skip else ", {"halt", "scale_lr", "rollback", "clip"}),
        ("level a { do skip else freeze top 10% of layers by ", {"activation_variance", "grad_norm"}),
        ("limits { rollback at most 9 steps back, at most 3 per 9 steps, at least 3 steps ", {"apart"}),
        ("alert a ", {"info", "warning", "critical"}),
        ("levels normal -> ", {"caution"}),
        ("limits { ", {"skip", "intervene", "overhead"}),
        ("limits { overhead ", {"at"}),
        ("signal s = telemetry.grad_norm ", {"of"}),
        ('layers experts = "*.experts.*"\nsignal s = telemetry.grad_norm of ', {"experts"}),
        ("level ", {"caution", "normal"}),
        ("level a { cooldown ", {"N steps"}),
        ("level a { settles after ", {"N steps"}),
        ("risk r { features ", {"standard", "jump", "zscore"}),
        ('alert a info when jump > 2 "it is {', {"jump", "loss"}),
    ],
)
def test_each_place_offers_its_words(before: str, offered: set[str]) -> None:
    assert offered <= set(_complete(TEXT + before))


@pytest.mark.parametrize("before", ["# a comment ", 'policy p { doc "some text ', 'let x = 1 # "a'])
def test_comments_and_texts_offer_nothing(before: str) -> None:
    assert _complete(before) == {}


# Definition and outline


@pytest.mark.parametrize(
    ("mark", "shift", "line"),
    [
        ("jump > cut", 0, "jump = grad"),
        ("jump > cut", 8, "cut : ratio"),
        ("{loss}", 1, "loss = telemetry.loss"),
        ("-> caution", 3, "caution {"),
        ("trouble.alarm", 2, "trouble {"),
        ("spike {", 0, "spike {"),
        ("finite(loss)", 8, "loss = telemetry.loss"),
        ("levels normal", 8, "normal -> caution"),
        ("finite(loss)", 1, None),
        ("leave when", 1, None),
    ],
)
def test_a_name_leads_to_its_declaration(mark: str, shift: int, line: str | None) -> None:
    found = _target(mark, shift)

    assert found == line if line is None else (found or "").startswith(line)


def test_a_group_is_told_from_a_signal_of_the_same_name() -> None:
    text = TEXT + 'layers part = "*.0"\nsignal part = telemetry.grad_norm of part\nlet more = part'
    document, at = _document(text), text.index("norm of part") + 9

    found, shown = definition(document, at), hover(document, at)
    assert found is not None
    assert text[found.span.start :].startswith('part = "*.0"')
    assert shown is not None
    assert 'layers part = "*.0"' in shown.markdown
    value = definition(document, len(text) - 1)
    assert value is not None
    assert text[value.span.start :].startswith("part = telemetry")


def test_a_group_offers_no_signals_and_a_signal_no_groups() -> None:
    text = TEXT + 'layers part = "*.0"\n'
    assert set(_complete(text + "signal s = telemetry.grad_norm of ")) == {"part"}
    assert "part" not in _complete(text + "let more = ")


def test_names_in_a_fallback_lead_to_their_declarations() -> None:
    rule = "reflex r { when jump > 9 do skip else freeze top 10% of experts by grad_norm else clip to 2 * grad }\n"
    text = TEXT + 'layers experts = "*.experts.*"\n' + rule
    document = _document(text)
    for name in ("experts", "grad"):
        found = definition(document, text.index(name, text.index(rule) + (90 if name == "grad" else 0)))
        assert found is not None
        assert text[found.span.start : found.span.end] == name


def test_a_preset_and_an_imported_file_lead_to_their_files(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "shared.lbw").write_text("lbw 1\n", encoding="utf-8")
    text = 'lbw 1\nimport "shared.lbw"\nimport "absent.lbw"\npolicy p { extends conservative }\n'
    document = Document(Source("here.lbw", text), folder / "here.lbw")
    found = [definition(document, text.index(mark)) for mark in ("shared", "conserv", "absent")]

    assert [target and target.path for target in found] == [folder / "shared.lbw", presets()["conservative"], None]


def test_imported_and_inherited_names_lead_to_their_files(tmp_path: Path) -> None:
    (tmp_path / "shared.lbw").write_text("lbw 1\nsignal far = telemetry.grad_norm\n", encoding="utf-8")
    text = 'lbw 1\nimport "shared.lbw"\npolicy p { extends conservative }\nlet mine = far + surprise * far\n'
    document = Document(Source(str(tmp_path / "here.lbw"), text), tmp_path / "here.lbw")
    far, surprise = (definition(document, text.index(name)) for name in ("far +", "surprise"))

    assert far is not None
    assert far.path == tmp_path / "shared.lbw"
    assert (tmp_path / "shared.lbw").read_text(encoding="utf-8")[far.span.start : far.span.end] == "far"
    assert surprise is not None
    assert surprise.path == presets()["conservative"]
    shown = hover(document, text.index("far +"))
    assert shown is not None
    assert SIGNALS["grad_norm"].meaning in shown.markdown
    offered = {item.label for item in completions(document, text.index("far +"))}
    assert {"far", "surprise", "mine", "interventions", "lr_factor"} <= offered


def test_the_outline_has_every_statement_with_its_name_inside_it() -> None:
    found = outline(_document(TEXT))

    assert [symbol.name for symbol in found][:5] == ["p", "cut", "grad", "loss", "jump"]
    assert {"levels", "limits"} <= {symbol.name for symbol in found}
    for symbol in found:
        assert symbol.span.start <= symbol.name_span.start <= symbol.name_span.end <= symbol.span.end


# Quick fixes


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("let jump = grad / medain(grad, 128 steps)", "let jump = grad / median(grad, 128 steps)"),
        ("let jump = gard / median(grad, 128 steps)", "let jump = grad / median(grad, 128 steps)"),
        ("signal loss = telemetry.los", "signal loss = telemetry.loss"),
        ("signal loss = telemtry.loss", "signal loss = telemetry.loss"),
        ("  leave when jump < 2 for 20 stps", "  leave when jump < 2 for 20 steps"),
        ("  leave when jump < 2 for 20", "  leave when jump < 2 for 20 steps"),
        ("  leave when jump = 2", "  leave when jump == 2"),
        ("  leave when jump < 2&&jump > 1", "  leave when jump < 2 and jump > 1"),
        ("  leave when trouble < 5", "  leave when trouble < 5%"),
        ("level caution {\n  entr when jump > 2", "level caution {\n  enter when jump > 2"),
    ],
)
def test_a_fix_puts_the_mistake_right(wrong: str, right: str) -> None:
    found = [fix for _, fix in fixes(_document(_with(wrong)).checked.diagnostics)]
    text = _with(wrong)
    mended = {text[: fix.span.start] + fix.text + text[fix.span.end :] for fix in found}

    assert " ".join(_with(right).split()) in {" ".join(each.split()) for each in mended}


def _with(line: str) -> str:
    """Return the text with the line that begins like this one replaced."""
    if "caution" in line:
        return TEXT.replace("level caution {\n  enter when trouble.alarm or not finite(loss) for 3 of 5 steps", line)
    lines = TEXT.splitlines(keepends=True)
    at = next(i for i, each in enumerate(lines) if each.split()[:2] == line.split()[:2])
    return "".join([*lines[:at], line + "\n", *lines[at + 1 :]])


def test_help_that_is_no_replacement_is_no_fix() -> None:
    text = TEXT.replace("jump < 2 for", "1 < jump < 2 for").replace("scale_lr within [0.1, 1]", "")

    assert fixes(_document(text).checked.diagnostics) == []


# Any text, any place


@st.composite
def broken_texts(draw: st.DrawFn) -> str:
    """Draw a preset, or the text above, after some cuts, copies and insertions."""
    sources = [TEXT, *(path.read_text(encoding="utf-8") for path in presets().values())]
    text = draw(st.sampled_from(sources))[: draw(st.integers(200, 1500))]
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 30))
        junk = draw(
            st.one_of(st.text(max_size=4), st.sampled_from(['"', "{", "}", "(", ".", "😀", "\r", "\x00", "@id("]))
        )
        text = text[:start] + junk + text[draw(st.sampled_from([start, end])) :]
    return text


@settings(max_examples=150, deadline=None)
@given(st.one_of(broken_texts(), st.text(max_size=60)), st.integers(-2, 1600))
def test_nothing_raises_on_any_text_at_any_place(text: str, offset: int) -> None:
    document = _document(text)
    shown = hover(document, offset)
    offered = completions(document, offset)
    target = definition(document, offset)

    assert shown is None or 0 <= shown.span.start < shown.span.end <= len(text)
    assert len({item.label for item in offered}) == len(offered)
    assert all(item.label.strip() for item in offered)
    assert target is None or 0 <= target.span.start <= target.span.end <= len(text)
    assert all(0 <= s.span.start <= s.span.end <= len(text) and s.name.strip() for s in outline(document))
    assert all(0 <= fix.span.start <= fix.span.end <= len(text) for _, fix in fixes(document.checked.diagnostics))
    assert formatted(document) != text


@pytest.mark.parametrize(
    "text", ["(" * 5000, "{" * 5000, '"' * 5000, "a." * 5000, "x" * 300_000, "let a = " + "-" * 9000]
)
def test_hostile_texts_are_answered_too(text: str) -> None:
    document = _document(text)

    assert hover(document, len(text)) is None
    assert isinstance(completions(document, len(text)), list)
    assert outline(document) is not None
