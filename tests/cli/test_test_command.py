"""`lbw test` from the command line: verdicts, the run around a miss, coverage, JUnit and exit codes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lbw_policy.cli.main import main

HEAD = """lbw 1
policy mine { }
param limit : ratio in [1, 50] = 10
signal grad = telemetry.grad_norm
signal loss = telemetry.loss
reflex broken { when not finite(grad)  do skip }
reflex tall   { when loss / median(loss, 20 steps) > limit  do skip }
limits { skip at most 2 in a row, at most 20 per 1_000 steps }
"""
GOOD = 'test "a NaN is skipped" {\n  given grad = 1 x 30, nan, 1 x 9\n  expect skip 1 times\n}\n'
BAD = 'test "a flood is <endless>" {\n  given grad = 1 x 30, nan x 4, 1 x 9\n  expect skip 4 times\n}\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.lbw").write_text(HEAD + GOOD)
    Path("bad.lbw").write_text(HEAD + GOOD + BAD)
    Path("none.lbw").write_text(HEAD)


def lbw(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = main(["test", *words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def read_xml(path: str) -> ET.Element:
    return ET.parse(path).getroot()  # noqa: S314 - written by this very test


def test_tests_that_pass_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = lbw(capsys, "good.lbw")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"1 passed, 0 failed in \d+\.\d\d s\n", out)


def test_a_failure_shows_what_was_done_instead(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.lbw").write_text(HEAD.replace("finite(grad)  do skip", "finite(grad)  do skip else halt") + BAD)
    _, out, _ = lbw(capsys, "bad.lbw")
    refused = "skip by reflex broken refused: 2 updates in a row were skipped, halt instead; halt by reflex broken\n"
    assert refused in out
    assert "the run was halted at step 32" in out


def test_a_failure_shows_the_run_around_the_miss(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = lbw(capsys, "bad.lbw")
    assert code == 1
    assert (
        out.partition("\n1 passed")[0]
        == """\
FAILED bad.lbw:13: a flood is <endless>

  bad.lbw:15: expect skip 4 times
    expected `skip` 4 times
    found    3 times, at steps 30, 31, 33; refused 1 time, at step 32

       step  level   grad  lr factor  progress  what happened
         29  normal     1          1        30
    >    30  normal   nan          1        30  skip by reflex broken
    >    31  normal   nan          1        30  skip by reflex broken
    >    32  normal   nan          1        31  skip by reflex broken refused: 2 updates in a row were skipped, \
nothing instead
    >    33  normal   nan          1        31  skip by reflex broken
         34  normal     1          1        32
    the run ends with step 42
"""
    )


def test_the_same_table_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("twice.lbw").write_text(HEAD + BAD.replace("expect skip 4 times", "expect skip 4 times  expect skip 5 times"))
    _, out, _ = lbw(capsys, "twice.lbw")
    assert out.count("what happened") == 1
    assert out.count("found    3 times") == 2


def test_where_nothing_happened_the_table_shows_where_the_series_change(capsys: pytest.CaptureFixture[str]) -> None:
    Path("calm.lbw").write_text(HEAD + 'test "x" { given grad = 1 x 30, 2 x 9  expect skip 1 times }')
    _, out, _ = lbw(capsys, "calm.lbw")
    assert "found    never" in out
    assert re.search(r"^ +29  normal +1 .*\n +30  normal +2 ", out, re.MULTILINE)


def test_verbose_lists_every_test_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = lbw(capsys, "good.lbw", "-v")
    assert code == 0
    assert "passed good.lbw:9: a NaN is skipped (40 steps)" in out


@pytest.mark.parametrize("wanted", ["NaN", "nan is", "a * skipped", "[a] NaN*"])
def test_a_filter_is_part_of_a_name_or_a_glob(wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = lbw(capsys, "bad.lbw", "--filter", wanted)
    assert code == 0
    assert out.startswith("1 passed, 0 failed")


def test_a_filter_that_matches_nothing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = lbw(capsys, "bad.lbw", "--filter", "rollback")
    assert (code, out) == (2, "")
    assert (
        err
        == "lbw test: error: no test matches `rollback`\nhelp: tests here: `a NaN is skipped`, `a flood is <endless>`\n"
    )


def test_no_tests_found_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = lbw(capsys, "none.lbw")
    assert (code, out) == (2, "")
    assert err.startswith("lbw test: error: no tests found in none.lbw\nhelp: ")


def test_a_file_without_tests_beside_one_with_tests_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert lbw(capsys, "none.lbw", "good.lbw")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.lbw"], "LBW001"),
        (["no_preset"], "no such file, and no preset of this name"),
        (["*.nothing"], "the glob matches no file"),
        (["."], "undefined name `los`"),
        ([""], "expected a path, found an empty word"),
        (["good.lbw", "--param", "limit=99"], "param `limit` must lie in [1, 50], found `99.0`"),
        (["good.lbw", "--param", "limit"], "expected NAME=VALUE with a number, found `limit`"),
        (["good.lbw", "--fail-under", "200"], "expected a percentage from 0 to 100, found `200`"),
        (["good.lbw", "--fail-under", "nan"], "expected a percentage from 0 to 100, found `nan`"),
        (["good.lbw", "--junit", "no/folder/report.xml"], "cannot write `no/folder/report.xml`: no such file"),
        ([], "required: FILE"),
    ],
)
def test_what_cannot_be_tested_is_told_on_stderr(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("wrong.lbw").write_text("lbw 1\npolicy p { }\nreflex r { when los > 3 do halt }\n")
    code, out, err = lbw(capsys, *words)
    assert (code, out) == (2, "")
    assert said in err


def test_files_come_by_glob_folder_preset_and_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lbw(capsys, "goo*.lbw", "good.lbw", "./good.lbw")[1].startswith("1 passed")
    Path("bad.lbw").unlink()
    assert lbw(capsys, ".")[1].startswith("1 passed")
    assert lbw(capsys, "monitor")[0] == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((HEAD + GOOD).encode())))
    code, out, _ = lbw(capsys, "-", "-v")
    assert code == 0
    assert "passed <stdin>:9:" in out


def test_params_change_what_is_tested(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.lbw").write_text(HEAD + 'test "x" { given loss = 1 x 30, 5, 1 x 9  expect skip 1 times }')
    assert lbw(capsys, "p.lbw")[0] == 1
    assert lbw(capsys, "p.lbw", "--param", "limit=3")[0] == 0


def test_coverage_lists_what_was_never_exercised(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = lbw(capsys, "good.lbw", "--coverage")
    assert code == 0
    assert "coverage of mine: 1 of 3, 33.3%\n  never: reflex tall fires\n  never: limit skip holds back\n" in out


def test_too_little_coverage_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert lbw(capsys, "good.lbw", "--fail-under", "33")[0] == 0
    code, out, _ = lbw(capsys, "good.lbw", "--fail-under", "34%")
    assert code == 1
    assert out.endswith("coverage 33.3% is below the 34% asked for\n")


def test_the_tests_that_are_filtered_out_cover_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    out = lbw(capsys, "bad.lbw", "--coverage", "--filter", "NaN")[1]
    assert "never: limit skip holds back" in out


def test_json_has_every_expectation_and_the_coverage(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = lbw(capsys, "bad.lbw", "--format", "json", "--coverage")
    found = json.loads(out)
    assert code == 1
    assert (found["summary"]["passed"], found["summary"]["failed"]) == (1, 1)
    assert found["tests"][1] == {
        "policy": "mine",
        "path": "bad.lbw",
        "line": 13,
        "name": "a flood is <endless>",
        "passed": False,
        "steps": 43,
        "halted": False,
        "expectations": [
            {
                "line": 15,
                "text": "skip 4 times",
                "passed": False,
                "expected": "`skip` 4 times",
                "found": "3 times, at steps 30, 31, 33; refused 1 time, at step 32",
                "steps": [30, 31, 32, 33],
            }
        ],
    }
    assert found["coverage"][0]["never"] == ["reflex tall fires"]
    assert "coverage" not in json.loads(lbw(capsys, "good.lbw", "--format", "json")[1])


def test_junit_has_one_suite_a_policy_and_one_case_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    assert lbw(capsys, "good.lbw", "bad.lbw", "none.lbw", "--junit", "report.xml")[0] == 1
    root = read_xml("report.xml")
    assert (root.tag, root.get("tests"), root.get("failures"), root.get("errors")) == ("testsuites", "3", "1", "0")
    assert [suite.get("name") for suite in root] == ["good.lbw", "bad.lbw"]
    assert all(len(suite) == int(suite.get("tests", "0")) for suite in root)
    assert all(float(case.get("time", "-1")) >= 0 for case in root.iter("testcase"))
    (failure,) = root.iter("failure")
    assert failure.get("message", "").startswith("expected `skip` 4 times, found 3 times")
    assert "FAILED bad.lbw:13: a flood is <endless>" in (failure.text or "")
    assert [case.get("name") for case in root.iter("testcase") if len(case)] == ["a flood is <endless>"]


def test_a_name_that_no_terminal_or_xml_can_hold_is_shown_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    Path("odd.lbw").write_text(HEAD + BAD.replace("<endless>", "\ufffe & odd"), encoding="utf-8")
    code, out, _ = lbw(capsys, "odd.lbw", "--junit", "odd.xml")
    assert code == 1
    assert "\ufffe" not in out
    names = [case.get("name") for case in read_xml("odd.xml").iter("testcase")]
    assert names == ["a flood is \ufffd & odd"]


def test_the_command_needs_no_torch() -> None:
    script = "import lbw_policy.cli.test, sys; print([m for m in ('torch', 'river', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
