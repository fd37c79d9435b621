from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lbw_policy.cli.main import main
from lbw_policy.semantics import check, load
from lbw_policy.syntax.formatter import format_text
from tests.cli.refusals import refused
from tests.evaluation.small_corpus import write_corpus
from tests.tuning.subjects import LEAP

FAST = ("--trials", "12", "--budget", "1")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_corpus(tmp_path_factory.mktemp("corpus")))


@pytest.fixture
def leap(tmp_path: Path) -> Path:
    path = tmp_path / "leap.lbw"
    path.write_text(LEAP, encoding="utf-8")
    return path


def _told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["tune", *words]) == code
    return capsys.readouterr().out


def _json(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    return dict(json.loads(_told(capsys, *words, "--format", "json", code=code), parse_constant=pytest.fail))


def test_values_within_the_budget_are_found_and_shown(
    corpus: str, leap: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The present threshold alarms all the time; one that catches all and alarms never is found, and not written."""
    shown = _told(capsys, str(leap), corpus, *FAST)
    found = _json(capsys, str(leap), corpus, *FAST)
    assert shown.startswith("leap: `most` at 12 settings, at most 1 false alarms per 1_000 healthy steps\n")
    assert "note: param `fixed` is left as it is: it has one possible value" in shown
    assert "-param most  : ratio in [1, 100] = 1.1  # far too low\n+param most  : ratio in [1, 100] = " in shown
    assert 1.2 < found["chosen"]["most"] < 20
    row = next(row for row in found["trade_off"] if row["chosen"])
    assert (row["chosen_on"]["caught"], row["chosen_on"]["false_per_1000"]) == (1.0, 0.0)
    assert row["held_out"]["caught"] == 1.0
    assert next(row for row in found["trade_off"] if row["present"])["chosen_on"]["false_per_1000"] > 50
    assert leap.read_text(encoding="utf-8") == LEAP


def test_values_are_written_back_and_nothing_else(corpus: str, leap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file checks, is in canonical layout, has its comments and the chosen value; a preset's goes to a new file."""
    shown = _told(capsys, str(leap), corpus, *FAST, "--write")
    after = leap.read_text(encoding="utf-8")
    value = load(leap).params[0].value
    assert f"written: {leap}" in shown
    assert after == LEAP.replace("= 1.1  #", f"= {value:g}  #")
    assert format_text(after) == after
    assert [found.code for found in check(leap).diagnostics] == [found.code for found in check(LEAP).diagnostics]
    out = leap.with_name("copy.lbw")
    _told(capsys, "conservative", corpus, "--trials", "1", "--budget", "1000", "--out", str(out))
    assert load(out).params == load("conservative").params


def test_the_answer_depends_on_the_seed_alone(corpus: str, leap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One process or two, once or again: the same report."""
    first = _told(capsys, str(leap), corpus, *FAST)
    assert _told(capsys, str(leap), corpus, *FAST, "--jobs", "2") == first
    assert _told(capsys, str(leap), corpus, *FAST, "--seed", "1") != first


def test_without_a_setting_within_the_budget_nothing_is_written(
    corpus: str, leap: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, and what the cheapest setting would cost."""
    narrow = LEAP.replace("[1, 100]", "[1, 1.15]")
    leap.write_text(narrow, encoding="utf-8")
    shown = _told(capsys, str(leap), corpus, "--trials", "5", "--write", code=1)
    assert "nothing chosen: no setting tried is within the budget of 0.3; the lowest rate" in shown
    assert leap.read_text(encoding="utf-8") == narrow
    assert _json(capsys, str(leap), corpus, "--trials", "5", code=1)["chosen"] is None


def test_tests_of_the_policy_are_told_of_or_kept(corpus: str, leap: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A test that pins the present threshold would fail; with --keep-tests no such setting is tried."""
    pinned = LEAP + '\ntest "a rise by a fifth is left out" {\n  given step = 1 x 100, 1.2\n  expect skip 1 time\n}\n'
    leap.write_text(pinned, encoding="utf-8")
    assert 'its test "a rise by a fifth is left out" passes now, and fails' in _told(capsys, str(leap), corpus, *FAST)
    kept = _json(capsys, str(leap), corpus, *FAST, "--keep-tests", code=1)
    assert all(one["params"]["most"] < 1.2 for one in kept["tried"])
    assert list(kept["passed_over"]) == ['its test "a rise by a fifth is left out" fails']


def test_what_cannot_be_written_is_told_after_the_report(
    corpus: str, leap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy whose import is not found from its new place is not written; the search is not lost with it."""
    (tmp_path / "shared.lbw").write_text('lbw 1\n\nlayers all = "*"\n', encoding="utf-8")
    leap.write_text(LEAP.replace("\npolicy leap", '\nimport "shared.lbw"\n\npolicy leap'), encoding="utf-8")
    (tmp_path / "far").mkdir()
    out = tmp_path / "far" / "leap.lbw"
    assert main(["tune", str(leap), corpus, *FAST, "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert "<- chosen" in captured.out
    assert f"the policy does not check at `{out}`" in captured.err
    assert not out.exists()


def test_the_standard_input_is_tuned(
    corpus: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LEAP.encode())))
    assert "+++ <stdin> (tuned)" in _told(capsys, "-", corpus, *FAST)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("leap", "none"), "lbw tune: error: none: no such file or folder"),
        (("leap", "corpus", "--param", "mst"), "unknown param `mst`; did you mean `most`?"),
        (("leap", "corpus", "--healthy", "*"), "expected runs that diverge, found none among 30 runs"),
        (
            ("leap", "corpus", "--out", "no/such/folder.lbw"),
            "--out: `no/such/folder.lbw` lies in no folder",
        ),
        (("leap", "corpus", "--budget", "much"), "expected a number from 0 to 1000, found `much`"),
        (("leap", "corpus", "--hold-out", "95%"), "expected a share from 0% to 90%, found `95%`"),
        (("leap", "corpus", "--trials", "0"), "expected a whole number from 1 to 100000, found `0`"),
        (("leap", "corpus", "--alarm", "alerts"), "policy `leap` has no alert to count"),
        (("conservative", "corpus", "--write"), "--write: a preset cannot be written; name a file with --out"),
        (("conservativ", "corpus"), "did you mean `conservative`?"),
        (("mixture_of_experts", "corpus"), "has no param to tune: `spike_ratio` is declared in another file"),
        (("missing.lbw", "corpus"), "cannot read the file"),
    ],
)
def test_what_cannot_be_tuned_is_refused(
    words: tuple[str, ...], said: str, corpus: str, leap: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one clear line, no traceback."""
    places = {"leap": str(leap), "corpus": corpus}
    assert said in refused(main, capsys, "tune", *(places.get(word, word) for word in words))


def test_signals_that_runs_did_not_record_are_named(
    corpus: str, leap: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which signal, of how many runs; with --skip-incomplete such runs are left out, and said to be."""
    leap.write_text(LEAP.replace("telemetry.update_ratio", "telemetry.router_load"), encoding="utf-8")
    said = refused(main, capsys, "tune", str(leap), corpus)
    assert "no column `router_load` or `step`, which signal `step` reads: 30 of 30 runs" in said
    said = refused(main, capsys, "tune", str(leap), corpus, "--skip-incomplete")
    assert "no run recorded all that the policy reads" in said


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert 'pip install "lbw_policy[tune]"' in refused(main, capsys, "tune", "conservative", "runs")
