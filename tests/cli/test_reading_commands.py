"""`lbw graph`, `lbw explain` and `lbw diff` from the command line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lbw_policy import resources
from lbw_policy.cli.main import main

TEXT = """lbw 1
policy p { }
param most : ratio in [2, 50] = 6
signal loss = telemetry.loss
reflex spike { when loss / median(loss, 9 steps) > most do skip }
limits { skip at most 2 in a row, at most 9 per 100 steps }
"""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "p.lbw"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def ran(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = main(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


@pytest.mark.parametrize(("form", "start"), [("mermaid", "stateDiagram-v2\n"), ("dot", 'digraph "p" {\n')])
def test_graph_prints_a_diagram(policy: str, form: str, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ran(capsys, "graph", policy, "--format", form)
    assert (code, err) == (0, "")
    assert out.startswith(start)


def test_explain_prints_text_markdown_or_json(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Reflex `spike`: when `loss` divided by the median of" in ran(capsys, "explain", policy)[1]
    assert "## What it can never exceed\n" in ran(capsys, "explain", policy, "--format", "markdown")[1]
    plain = json.loads(ran(capsys, "explain", policy, "--format", "json")[1])
    assert (plain["version"], plain["policy"], plain["bounds"]["most_skipped"]) == (1, "p", 9)


def test_a_param_set_on_the_command_line_is_explained(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "`most` is 8 here" in ran(capsys, "explain", policy, "--param", "most=8")[1]


def test_diff_tells_by_its_exit_code(policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.lbw"
    other.write_text(f"# a comment\n{TEXT}", encoding="utf-8")
    assert ran(capsys, "diff", policy, str(other)) == (0, "no difference in meaning\n", "")
    other.write_text(TEXT.replace("2 in a row", "3 in a row"), encoding="utf-8")
    code, out, _ = ran(capsys, "diff", policy, str(other))
    assert (code, out) == (1, "limits\n  ! looser  skip in a row: 2 -> 3\n1 difference, 1 looser (marked !)\n")


def test_diff_as_json_has_every_difference(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "diff", policy, "monitor", "--format", "json")
    found = json.loads(out)
    assert (code, found["before"]["policy"], found["after"]["policy"]) == (1, "p", "monitor")
    assert {"part", "what", "kind", "before", "after", "direction", "loosens"} == set(found["differences"][0])


def test_a_param_goes_to_the_policies_that_have_it(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "diff", policy, policy, "--param", "most=8")[0] == 0
    assert ran(capsys, "diff", policy, "monitor", "--param", "most=8")[0] == 1
    code, _, err = ran(capsys, "diff", policy, policy, "--param", "least=8")
    assert (code, err) == (2, "lbw diff: error: neither policy has a param `least`\n")


def test_one_side_may_come_from_standard_input(
    policy: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert ran(capsys, "diff", policy, "-", "--param", "most=8")[0] == 0
    assert ran(capsys, "diff", "-", "-")[0] == 2


@pytest.mark.parametrize("command", ["graph", "explain", "diff"])
def test_a_policy_that_does_not_check_is_told_on_stderr(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.lbw"
    broken.write_text(TEXT.replace("loss >", "loss> "), encoding="utf-8")
    broken.write_text(TEXT.replace("> most", "> least"), encoding="utf-8")
    for word, expected in ((str(broken), "undefined name `least`"), ("no_such", "no such file"), ("", "an empty word")):
        words = (command, word, "monitor") if command == "diff" else (command, word)
        code, out, err = ran(capsys, *words)
        assert (code, out) == (2, "")
        assert expected in err


@pytest.mark.parametrize("param", ["most", "=3", "most=x", "most=inf", "most=3=4"])
def test_a_param_that_is_none_is_wrong_usage(policy: str, param: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ran(capsys, "graph", policy, "--param", param)
    assert code == 2
    assert "expected NAME=VALUE with a number" in err


# Pages about codes


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "lbw_policy")
    folder = tmp_path / "docs" / "codes"
    folder.mkdir(parents=True)
    (folder / "LBW204.md").write_text("# LBW204: units do not meet\n", encoding="utf-8")
    (folder / "LBW205.md").write_text("# LBW205\n", encoding="utf-8")
    return folder


def test_a_code_is_explained_by_its_page(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "explain", "lbw204") == (0, "# LBW204: units do not meet\n", "")
    assert json.loads(ran(capsys, "explain", "LBW204", "--format", "json")[1])["code"] == "LBW204"


def test_a_code_without_a_page_is_told_with_the_one_most_likely_meant(
    pages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = ran(capsys, "explain", "LBW206")
    assert (code, out) == (2, "")
    assert err == "lbw explain: error: there is no page about `LBW206`; did you mean `LBW205`?\n"
    assert "from `LBW204` to `LBW205`" in ran(capsys, "explain", "LBW999")[2]


def test_without_pages_it_says_so(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for page in pages.iterdir():
        page.unlink()
    code, _, err = ran(capsys, "explain", "LBW204")
    assert code == 2
    assert "are not part of this installation" in err


def test_a_wheel_has_its_pages_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path)
    (tmp_path / "codes").mkdir()
    (tmp_path / "codes" / "LBW101.md").write_text("x", encoding="utf-8")
    (tmp_path / "codes" / "README.md").write_text("x", encoding="utf-8")
    assert list(resources.code_pages()) == ["LBW101"]


def test_the_commands_load_no_torch_river_or_numpy() -> None:
    script = (
        "import sys; from lbw_policy.cli.main import main; main(['diff', 'monitor', 'conservative']);"
        "main(['graph', 'monitor']); main(['explain', 'monitor']);"
        "sys.exit(bool({'torch', 'river', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode == 0
