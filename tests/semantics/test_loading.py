"""Finding policies: a path, a preset's name, or a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbw_policy.errors import PolicyError
from lbw_policy.resources import presets
from lbw_policy.semantics import MOST_BYTES, check, check_bytes, load

TEXT = 'lbw 1\npolicy p { doc "p" }\nsignal loss = telemetry.loss\nalert a info when loss > 3 "a"\n'


def test_a_policy_loads_from_a_path_a_name_or_a_text(tmp_path: Path) -> None:
    path = tmp_path / "p.lbw"
    path.write_text(TEXT, encoding="utf-8")
    assert load(path).digest == load(str(path)).digest == load(TEXT).digest
    assert load("conservative").name == "conservative"


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_clean(name: str) -> None:
    assert check(name).diagnostics == ()


def test_an_error_carries_every_finding() -> None:
    with pytest.raises(PolicyError) as caught:
        load(TEXT + "let a = b\nlet c = d\n")
    assert [finding.code for finding in caught.value.diagnostics] == ["LBW201", "LBW201"]
    assert str(caught.value).count("undefined name") == 2


def test_a_misspelt_preset_is_named() -> None:
    (finding,) = check("conservativ").diagnostics
    assert (finding.code, finding.help) == ("LBW001", "did you mean `conservative`?")


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "no/such/file.lbw", ".", "/"])
def test_odd_names_are_findings(name: str) -> None:
    assert {finding.code for finding in check(name).diagnostics} == {"LBW001"}


def test_a_file_longer_than_any_policy_is_not_read_to_its_end() -> None:
    assert [finding.code for finding in check_bytes("p", b"\xff" * (MOST_BYTES + 1)).diagnostics] == ["LBW003"]


def test_a_place_is_the_file_and_line_of_the_rule() -> None:
    place = load(TEXT).alerts[0].place
    assert (place.path, place.line) == ("<text>", 4)


def test_a_wrong_byte_is_found_by_its_line() -> None:
    (finding,) = check_bytes("p", b"lbw 1\n# caf\xe9\n").diagnostics
    assert finding.message == "expected UTF-8 text, found byte 0xE9 on line 2"
