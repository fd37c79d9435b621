"""Findings for machines: GitHub's workflow commands and SARIF 2.1.0, held to the published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy.cli import check as command
from lbw_policy.cli.formats import as_github, as_sarif
from lbw_policy.diagnostics import Diagnostic, Severity, Source, Span
from lbw_policy.semantics import check_bytes

SCHEMA = json.loads((Path(__file__).parent / "sarif-schema-2.1.0.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
CASES = sorted(path for path in (Path(__file__).parents[1] / "cases").iterdir() if path.is_dir())
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)


def finding(message: str = "odd", help_: str | None = None, name: str = "p.lbw") -> Diagnostic:
    return Diagnostic("LBW204", message, Source(name, "lbw 1\npolicy p { }\n"), Span(6, 12), help_)


def errors(log: dict[str, Any]) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(log)]


# SARIF


def test_the_schema_is_a_schema_and_refuses_what_is_no_log() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    wrong = as_sarif([finding()])
    wrong["runs"][0]["results"][0]["level"] = "fatal"

    assert errors({"version": "2.1.0"})
    assert errors(wrong)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_findings_of_every_case_are_a_valid_log(case: Path) -> None:
    found = check_bytes("policy.lbw", (case / "policy.lbw").read_bytes()).diagnostics
    log = as_sarif(found)

    assert errors(json.loads(json.dumps(log))) == []
    assert [result["ruleId"] for result in log["runs"][0]["results"]] == [one.code for one in found]


@settings(max_examples=25)
@given(WORDS, st.none() | WORDS, WORDS.filter(bool))
def test_any_text_makes_a_valid_log(message: str, help_: str | None, name: str) -> None:
    assert errors(as_sarif([finding(message, help_, name)])) == []


def test_a_result_names_its_rule_level_and_region() -> None:
    whole = Diagnostic("LBW005", "empty", Source("my policy.lbw", ""), severity=Severity.WARNING)
    run = as_sarif([finding("odd", "mend it"), whole])["runs"][0]
    first, second = run["results"]

    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["LBW005", "LBW204"]
    assert (first["ruleIndex"], first["level"], first["message"]["text"]) == (1, "error", "odd; mend it")
    assert first["locations"][0]["physicalLocation"]["region"] == {
        "startLine": 2, "startColumn": 1, "endLine": 2, "endColumn": 7,
    }  # fmt: skip
    assert second["level"] == "warning"
    assert second["locations"][0]["physicalLocation"] == {"artifactLocation": {"uri": "my%20policy.lbw"}}


def test_the_command_prints_one_log_for_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.lbw", "b.lbw"):
        (tmp_path / name).write_text("lbw 1\npolicy p { }\nsignal loss = telemetry.loss\n", encoding="utf-8")
    code = command.main(["--format", "sarif", str(tmp_path)])
    log = json.loads(capsys.readouterr().out)

    assert (code, errors(log)) == (1, [])
    assert [result["ruleId"] for result in log["runs"][0]["results"]] == ["LBW401", "LBW401"]


# GitHub


def test_an_annotation_has_its_place_and_title() -> None:
    assert as_github(finding()) == "::error file=p.lbw,line=2,col=1,endLine=2,endColumn=7,title=LBW204::odd"


def test_a_finding_about_a_whole_file_has_no_line() -> None:
    whole = Diagnostic("LBW005", "empty", Source("p.lbw", ""), severity=Severity.WARNING)

    assert as_github(whole) == "::warning file=p.lbw,title=LBW005::empty"


def test_a_message_escapes_percent_and_line_ends_only() -> None:
    assert as_github(finding("90%: a, b\nc", "d\r")).endswith("::90%25: a, b%0Ac%0Ahelp: d%0D")


def test_a_property_escapes_colon_and_comma_too() -> None:
    assert "file=a%3Ab%2C%25%0A.lbw," in as_github(finding(name="a:b,%\n.lbw"))


@settings(max_examples=50)
@given(WORDS, WORDS)
def test_an_annotation_is_one_line_that_can_be_read_back(message: str, name: str) -> None:
    shown = as_github(finding(message, name=name))
    head, _, text = shown.removeprefix("::error ").partition("::")
    back = dict(one.split("=", 1) for one in head.split(","))

    assert "\n" not in shown
    assert "\r" not in shown
    assert unescaped(text) == message
    assert unescaped(back["file"]) == name


def unescaped(text: str) -> str:
    for code, char in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(code, char)
    return text


def test_the_command_prints_an_annotation_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.lbw").write_text("lbw 1\npolicy p { }\nsignal loss = telemetry.loss\n", encoding="utf-8")
    code = command.main(["--format", "github", str(tmp_path / "a.lbw")])
    lines = capsys.readouterr().out.splitlines()

    assert code == 1
    assert lines[0].startswith("::warning file=")
    assert lines[1:] == ["1 file checked: 0 errors, 1 warning"]
