"""`lbw-check` as a user meets it: words on the command line, exit codes, both formats, files that are no policies.

Besides, the codes that no small text can give: LBW001, LBW002, LBW003 and LBW006.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import lbw_policy
from lbw_policy.cli import check as command
from lbw_policy.cli import main as umbrella
from lbw_policy.errors import ResourceError

CLEAN = 'lbw 1\npolicy p { }\nsignal loss = telemetry.loss\nalert a info when loss > 3 "a"\n'
WRONG = CLEAN.replace("loss > 3", "lss > 3")
WARNING = CLEAN + "let unused = loss\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to work in, with a clean policy, a wrong one and one with a warning."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for name, text in (("clean.lbw", CLEAN), ("wrong.lbw", WRONG), ("warning.lbw", WARNING)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = command.main(words)
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, captured.out


def process(words: Sequence[str], given: bytes = b"", **settings: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(lbw_policy.__file__).parents[1]), **settings}
    line = [sys.executable, "-m", "lbw_policy.cli.check", *words]
    return subprocess.run(line, input=given, capture_output=True, env=environment, check=False)


# Exit codes


@pytest.mark.parametrize(("name", "code"), [("clean.lbw", 0), ("wrong.lbw", 1), ("warning.lbw", 1), ("none.lbw", 2)])
def test_the_exit_code_tells_clean_findings_and_unreadable_apart(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    assert run(capsys, name)[0] == code


def test_the_process_ends_with_the_exit_code(folder: Path) -> None:
    for name, code in (("clean.lbw", 0), ("wrong.lbw", 1), ("none.lbw", 2)):
        done = process([name])
        assert (done.returncode, done.stderr) == (code, b"")


@pytest.mark.parametrize("words", [[], ["--format", "yaml", "clean.lbw"], ["--colour", "clean.lbw"]])
def test_wrong_usage_ends_with_two(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(words)
    assert caught.value.code == 2
    assert "usage: lbw-check" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"lbw-check {lbw_policy.__version__}\n"


def test_one_unreadable_file_outweighs_the_findings_of_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "clean.lbw", "wrong.lbw", "none.lbw")
    assert code == 2
    assert "wrong.lbw:4:19: error[LBW201]: undefined name `lss`" in out
    assert out.endswith("3 files checked: 2 errors, 0 warnings\n")


def test_the_umbrella_command_is_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "wrong.lbw", "clean.lbw")
    assert umbrella.main(["check", "wrong.lbw", "clean.lbw"]) == code
    assert capsys.readouterr().out == out


# What words name


def test_a_preset_is_checked_by_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "conservative")[0] == 0


def test_a_file_of_a_presets_name_comes_before_the_preset(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "conservative").write_text(WRONG, encoding="utf-8")
    assert run(capsys, "conservative")[0] == 1


@pytest.mark.parametrize("pattern", ["*.lbw", "w*.lbw", "**/wrong.lbw", "[w]rong.lbw", "wron?.lbw"])
def test_a_glob_names_every_file_that_matches(folder: Path, capsys: pytest.CaptureFixture[str], pattern: str) -> None:
    code, out = run(capsys, pattern)
    assert (code, "LBW201" in out) == (1, True)


def test_a_glob_that_matches_nothing_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "-q", "clean.lbw", "*.policy") == (
        2,
        "*.policy: error[LBW006]: the glob matches no file\n\n2 files checked: 1 error, 0 warnings\n",
    )


def test_a_file_may_have_the_signs_of_a_glob_in_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "run[1].lbw").write_text(CLEAN, encoding="utf-8")
    assert run(capsys, "-q", "run[1].lbw") == (0, "1 file checked: no findings\n")


def test_a_folder_stands_for_every_policy_in_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "p.lbw").write_text(CLEAN, encoding="utf-8")
    (folder / "deep" / "notes.txt").write_text("no policy", encoding="utf-8")
    assert run(capsys, "--quiet", "deep") == (0, "1 file checked: no findings\n")


def test_a_folder_without_policies_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty").mkdir()
    code, out = run(capsys, "empty")
    assert (code, "empty: error[LBW006]: the folder has no `.lbw` file" in out) == (2, True)


def test_a_file_named_twice_is_checked_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "link.lbw").symlink_to(folder / "wrong.lbw")
    code, out = run(capsys, "wrong.lbw", "./wrong.lbw", str(folder / "wrong.lbw"), "wro*", "link.lbw")
    assert (code, out.count("LBW201"), out.splitlines()[-1]) == (1, 1, "1 file checked: 1 error, 0 warnings")


@pytest.mark.parametrize("word", ["", "x" * 5000, "a\0b", "no/such/folder/p.lbw", "clean.lbw/p.lbw"])
def test_odd_words_are_findings(folder: Path, capsys: pytest.CaptureFixture[str], word: str) -> None:
    code, out = run(capsys, word)
    assert (code, "error[LBW001]" in out) == (2, True)


@pytest.mark.parametrize(("text", "code"), [(CLEAN, 0), (WRONG, 1), ("", 1)])
def test_a_dash_stands_for_the_standard_input(text: str, code: int) -> None:
    done = process(["-"], text.encode())
    assert (done.returncode, done.stderr) == (code, b"")
    if code:
        assert done.stdout.startswith(b"<stdin>:")


def test_a_closed_standard_input_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    code, out = run(capsys, "-")
    assert (code, "<stdin>: error[LBW001]" in out) == (2, True)


# Files that are no policies


@pytest.mark.parametrize(
    ("raw", "finding", "code"),
    [
        (b"", "LBW005", 1),
        (b"\xef\xbb\xbf", "LBW005", 1),
        (b" \n\n", "LBW005", 1),
        (b"\x7fELF\x02\x01\x01\x00", "LBW004", 1),
        (b"\x89PNG\r\n\x1a\n", "LBW002", 2),
        (CLEAN.encode("utf-16"), "LBW002", 2),
        (CLEAN.encode("utf-16-le"), "LBW004", 1),
        (b"lbw 1\n# caf\xe9\n", "LBW002", 2),
        (b"#" * 300_000, "LBW003", 1),
        (b"\xe2\x82\xac" * 2_000_000, "LBW003", 1),
        (b"lbw 1\npolicy p { }\nlet a = " + b"(" * 100_000, "LBW106", 1),
        (b"lbw 1\n" + b"policy p {\n" * 20_000, "LBW103", 1),
        (b"\r".join(CLEAN.encode().split(b"\n")), "LBW004", 1),
    ],
)
def test_what_is_no_policy_is_a_finding(
    folder: Path, capsys: pytest.CaptureFixture[str], raw: bytes, finding: str, code: int
) -> None:
    (folder / "p.lbw").write_bytes(raw)
    found, out = run(capsys, "p.lbw")
    assert (found, f"error[{finding}]" in out) == (code, True), out[:300]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_a_finding(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "clean.lbw").chmod(0)
    code, out = run(capsys, "clean.lbw")
    assert (code, "clean.lbw: error[LBW001]: cannot read the file: permission denied" in out) == (2, True)


def test_a_broken_install_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> dict[str, Path]:
        raise ResourceError("the folder `policies` is missing")

    monkeypatch.setattr(command, "presets", missing)
    assert command.main(["nowhere"]) == 2
    assert capsys.readouterr().err == "lbw-check: the folder `policies` is missing\n"


# How findings are shown


def test_the_text_shows_place_message_line_carets_and_help(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "wrong.lbw") == (
        1,
        "wrong.lbw:4:19: error[LBW201]: undefined name `lss`\n"
        '    4 | alert a info when lss > 3 "a"\n'
        "      |                   ^^^\n"
        "help: did you mean `loss`?\n\n"
        "1 file checked: 1 error, 0 warnings\n",
    )


def test_the_json_has_files_and_findings_as_plain_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "--format", "json", "clean.lbw", "wrong.lbw", "warning.lbw", "none.lbw")
    found = json.loads(out)
    assert code == 2
    assert found["version"] == 1
    assert [(file["path"], file["ok"]) for file in found["files"]] == [
        ("clean.lbw", True), ("wrong.lbw", False), ("warning.lbw", True), ("none.lbw", False),
    ]  # fmt: skip
    assert found["findings"][0] == {
        "path": "wrong.lbw", "line": 4, "column": 19, "end_line": 4, "end_column": 22,
        "severity": "error", "code": "LBW201", "message": "undefined name `lss`", "help": "did you mean `loss`?",
        "related": [],
    }  # fmt: skip
    assert [finding["severity"] for finding in found["findings"]] == ["error", "warning", "error"]


def test_the_json_of_nothing_wrong_has_no_findings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "--format=json", "clean.lbw")
    assert (code, json.loads(out)["findings"]) == (0, [])


class Terminal(io.StringIO):
    """A standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("settings", "terminal", "coloured"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colour_is_for_terminals(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], terminal: bool, coloured: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    assert command.main(["wrong.lbw"]) == 1
    assert ("\x1b[" in out.getvalue()) == coloured


def test_what_the_terminal_cannot_show_is_no_accident(folder: Path) -> None:
    (folder / "odd.lbw").write_text(WRONG.replace('"a"', '"é漢\U0001f600"'), encoding="utf-8")
    done = process(["odd.lbw"], PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"\\xe9" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_accident(folder: Path) -> None:
    (folder / "many.lbw").write_text(CLEAN + "let a = b\n" * 3000, encoding="utf-8")
    line = f"{sys.executable} -m lbw_policy.cli.check many.lbw many.lbw wrong.lbw | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(Path(lbw_policy.__file__).parents[1])}
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, env=environment, check=False)
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1


# What it costs


def test_nothing_heavy_is_imported(folder: Path) -> None:
    code = (
        "import sys; from lbw_policy.cli.check import main; main(['wrong.lbw', 'conservative']);"
        "found = {name.partition('.')[0] for name in sys.modules} & {'torch', 'river', 'numpy', 'rich', 'matplotlib'};"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(lbw_policy.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
