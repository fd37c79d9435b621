"""`lbw risk`: trains, evaluates and learns, and tells every mistake in one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lbw_policy.cli.main import main
from lbw_policy.risk import read_prior
from lbw_policy.risk.prior import shipped


def test_train_writes_priors_that_can_be_read(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command makes the file, with where it comes from; the same corpus gives the same bytes."""
    words = ["risk", "train", str(corpus), "--model", "logistic", "--out"]
    assert main([*words, str(tmp_path / "one")]) == 0
    assert main([*words, str(tmp_path / "two")]) == 0
    one, two = (tmp_path / name / "logistic.json" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    prior = read_prior(one)
    assert (prior.kind, prior.origin["runs"], prior.origin["diverged"]) == ("logistic", 30, 9)
    assert prior.digest[:12] in capsys.readouterr().out


def test_evaluate_prints_tables_and_writes_figures(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both splits, every rule, asked and realised rates; the JSON has the same, and a picture of the reliability."""
    figures, picture = tmp_path / "f.json", tmp_path / "r.png"
    words = ["risk", "evaluate", str(corpus), "--model", "logistic", "--json", str(figures), "--picture", str(picture)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    for words in (
        "## Unseen architectures",
        "## Unseen faults",
        "| SkipStep 6 sigma |",
        "| ZClip z > 2.5 |",
        "us a step",
    ):
        assert words in shown
    found = json.loads(figures.read_text())
    assert [split["name"] for split in found["splits"]] == ["unseen architectures", "unseen faults"]
    best = found["splits"][0]["rows"][0]
    assert (best["name"], best["detection"]["least_3"]) == ("logistic", 1.0)
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_learn_folds_traces_and_corpora_into_a_local_prior(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It starts from what ships, says what it learned from, and can go on from its own file."""
    out, trace = tmp_path / "own.json", next(corpus.glob("*.npz"))
    assert main(["risk", "learn", str(corpus), "--out", str(out)]) == 0
    assert "30 runs," in capsys.readouterr().out
    base = shipped("logistic")
    assert base is not None
    assert read_prior(out).base == base.digest
    assert main(["risk", "learn", str(trace), "--from", str(out), "--out", str(out)]) == 0
    assert read_prior(out).base == base.digest
    shutil.copy(out, tmp_path / "kept.json")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["train", "nowhere"], "cannot be read"),
        (["evaluate", "nowhere"], "cannot be read"),
        (["learn", "nowhere.csv", "--out", "x.json"], "cannot be read"),
        (["learn", "nowhere.csv", "--from", "missing.json", "--out", "x.json"], "missing.json: cannot be read"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and `lbw risk: error: ...`, never a traceback."""
    monkeypatch.chdir(tmp_path)
    assert main(["risk", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("lbw risk: error: ")
    assert reason in lines[-1]


@pytest.mark.parametrize("words", [[], ["evaluate", "c", "--budget", "0"], ["train", "c", "--horizon", "0"], ["other"]])
def test_wrong_usage_exits_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Argparse says what was expected."""
    with pytest.raises(SystemExit) as left:
        main(["risk", *words])
    assert left.value.code == 2
    assert capsys.readouterr().err
