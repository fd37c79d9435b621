"""`lbw corpus` from the command line: it says what it made, and one clear line for every mistake."""

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from lbw_policy.cli import corpus
from lbw_policy.corpora import read_manifest
from lbw_policy.lab.architectures import ARCHITECTURES
from tests.cli.refusals import refused


def test_the_command_knows_every_architecture_of_the_lab() -> None:
    assert set(corpus.ARCHITECTURE_NAMES) == set(ARCHITECTURES)


def test_it_makes_runs_and_shows_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "corpus"
    arguments = [str(out), "--runs", "12", "--steps", "60", "--only", "mlp"]
    assert corpus.main(arguments) == 0
    printed = capsys.readouterr().out
    runs = read_manifest(out)
    assert 0 < len(runs) < 12
    assert f"0 of {len(runs)} runs are there" in printed
    assert all(run.id in printed for run in runs)
    assert f"{len(runs)} runs, {sum(run.steps for run in runs):,} steps" in printed
    assert corpus.main(arguments) == 0
    assert f"{len(runs)} of {len(runs)} runs are there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--runs", "0"), "expected a whole number from 1 to 100000, found `0`"),
        (("--runs", "many"), "found `many`"),
        (("--steps", "3"), "expected a whole number from 60 to 100000, found `3`"),
        (("--seed", "-1"), "found `-1`"),
        (("--jobs", "9" * 30), "expected a whole number from 1 to 256"),
        (("--only", "cnn_bm"), "unknown architecture `cnn_bm`; did you mean `cnn_bn`?"),
        (("--only", "xyz"), "unknown architecture `xyz`; expected some of gpt, moe"),
    ],
)
def test_a_mistake_is_told_in_words(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(corpus.main, capsys, str(tmp_path / "out"), *arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert f"`{tmp_path / 'file'}" in refused(corpus.main, capsys, str(tmp_path / "file" / "out"))
    (tmp_path / "manifest.jsonl").write_text("{}\n")
    assert "manifest.jsonl:1: expected a run in format 1" in refused(corpus.main, capsys, str(tmp_path))


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "sklearn" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    line = 'lbw corpus: error: `scikit-learn` is not installed; pip install "lbw_policy[lab]"\n'
    assert refused(corpus.main, capsys, "out") == line


def test_the_command_is_mounted_without_importing_torch_or_the_extra() -> None:
    code = (
        "import sys, lbw_policy.cli.corpus as corpus, argparse; corpus.add_arguments(argparse.ArgumentParser());"
        "sys.exit(bool({'torch', 'rich', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
