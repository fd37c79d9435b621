from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.diagnostics import Span
from lbw_policy.errors import TuneError
from lbw_policy.resources import presets
from lbw_policy.semantics import check
from lbw_policy.syntax.formatter import format_text
from lbw_policy.tuning.params import Tunable, rewritten, space
from tests.tuning.subjects import KINDS, LEAP, subject

TEXTS = {"leap": LEAP, "kinds": KINDS} | {
    name: text for name, path in presets().items() if "\nparam " in (text := path.read_text(encoding="utf-8"))
}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_what_is_written_is_the_policy_with_those_params_set(data: st.DataObject) -> None:
    """The written text means what the old one means under these params, in canonical layout; comments stay."""
    text = data.draw(st.sampled_from(sorted(TEXTS.values())))
    one = subject(text)
    tuned = space(one)
    setting = {p.name: p.snapped(data.draw(st.floats(p.low, p.high))) for p in tuned.params}
    after = rewritten(one, tuned, setting)
    before, found = check(format_text(text), params=setting).policy, check(after).policy
    assert before is not None
    assert found is not None
    assert evolve(found, digest=before.digest) == before
    assert format_text(after) == after
    assert [line.partition("#")[2] for line in after.splitlines() if "#" in line] == [
        line.partition("#")[2] for line in text.splitlines() if "#" in line
    ]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_present_values_are_not_written_anew(text: str) -> None:
    """A number stays as its author wrote it where its value does: the text is only formatted."""
    one = subject(text)
    assert rewritten(one, space(one), space(one).present) == format_text(text)


def _ranges(low: float, high: float, *, percent: bool) -> Tunable:
    return Tunable("x", low, high, low, Span(0, 0), percent=percent)


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), st.floats(0, 1), st.booleans())
def test_a_chosen_value_lies_in_its_range_and_is_written_exactly(a: float, b: float, at: float, percent: bool) -> None:
    """Rounding never leaves the range, and the literal reads back as the very number that was tried."""
    one = _ranges(min(a, b), max(a, b), percent=percent)
    value = one.snapped(min(max(one.low + at * (one.high - one.low), one.low), one.high))
    assert one.low <= value <= one.high
    literal = one.literal(value).replace("_", "")
    assert "e" not in literal
    assert float(literal.removesuffix("%")) / (100 if literal.endswith("%") else 1) == value


@given(st.floats(0.01, 1e6))
def test_a_value_has_three_digits_where_the_range_allows_it(value: float) -> None:
    """What lies well inside a range is rounded to three significant digits, and by no more than half a unit of them."""
    found = _ranges(0.001, 1e7, percent=False).snapped(value)
    assert float(f"{found:.3g}") == found
    assert found == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [("span", 1_500.0, "1_500 steps"), ("many", 3.0, "3"), ("share", 0.0523, "5.23%"), ("back", -1.25, "-1.25"),
     ("wide", 43_200.0, "43_200"), ("tiny", 0.00000123, "0.00000123")],
)  # fmt: skip
def test_values_are_written_as_their_param_is(name: str, value: float, written: str) -> None:
    """Steps have their unit, counts and steps are whole, percentages stay so, nothing has an exponent."""
    one = next(each for each in space(subject(KINDS)).params if each.name == name)
    assert one.snapped(value) == pytest.approx(value)
    assert one.literal(one.snapped(value)) == written


def test_what_cannot_be_tuned_is_left_alone_with_the_reason(tmp_path: Path) -> None:
    """A param of one value, and one of another file, are not touched."""
    (tmp_path / "shared.lbw").write_text("lbw 1\nparam there : ratio in [1, 9] = 3\n", encoding="utf-8")
    text = LEAP.replace("\npolicy leap", '\nimport "shared.lbw"\n\npolicy leap').replace(
        "1e9 * fixed", "1e9 * fixed * there"
    )
    found = space(subject(text, tmp_path / "mine.lbw"))
    assert [one.name for one in found.params] == ["most"]
    assert found.left == {"fixed": "has one possible value", "there": "is declared in another file"}


@pytest.mark.parametrize(
    ("only", "said"),
    [("mosst", "unknown param `mosst`; did you mean `most`?"),
     ("z", "unknown param `z`; the policy has `most`, `fixed`"),
     ("fixed", "param `fixed` cannot be tuned: it has one possible value")],
)  # fmt: skip
def test_asking_for_what_cannot_be_tuned_is_refused(only: str, said: str) -> None:
    with pytest.raises(TuneError) as caught:
        space(subject(LEAP), [only])
    assert str(caught.value) == said


def test_a_policy_without_params_is_refused() -> None:
    text = 'lbw 1\npolicy p { doc "x" }\n'
    with pytest.raises(TuneError, match="policy `p` has no param to tune: it declares none"):
        space(subject(text))
