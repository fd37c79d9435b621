"""`lbw demo` from the command line: a real guard on a real run, and one clear line for every mistake."""

import importlib.util
import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from lbw_policy.cli import demo
from lbw_policy.lab.faults import FAULTS
from tests.cli.refusals import refused


def test_the_faults_of_the_demo_are_faults_of_the_lab() -> None:
    assert set(demo.FAULT_NAMES) <= set(FAULTS)


def test_the_guard_saves_the_run_that_a_nan_batch_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "folder"
    arguments = ["--quick", "--steps", "80", "--faults", "nan_batch", "--policy", "conservative", "--out", str(out)]
    assert demo.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "crashed: 1 of 1 unguarded, 0 of 1 guarded" in printed
    assert "step-time overhead of the guard" in printed
    pairs = json.loads((out / "results.json").read_text())["pairs"]
    assert [pair["fault"] for pair in pairs] == ["none", "nan_batch"]
    assert {"tick": 40, "action": "skip", "outcome": "granted", "rule": "reflex broken"} in pairs[1]["guarded"][
        "interventions"
    ]
    assert pairs[0]["plain"]["losses"][:40] == pairs[1]["plain"]["losses"][:40]
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--policy", "no_such_policy"), "no_such_policy"),
        (("--faults", "earthquake"), "unknown fault `earthquake`"),
        (("--steps", "3"), "expected a whole number of at least 80, found `3`"),
        (("--steps", "many"), "found `many`"),
        (("--seed", "-1"), "found `-1`"),
        (("--seed", str(2**80)), "expected a whole number from 0 to 4294967295"),
    ],
)
def test_a_mistake_is_told_in_words(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(demo.main, capsys, *arguments)


def test_a_policy_that_does_not_check_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "broken.lbw"
    policy.write_text("lbw 1\npolicy broken {")
    assert "broken.lbw" in refused(demo.main, capsys, "--policy", str(policy), "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert f"`{tmp_path / 'file'}" in refused(demo.main, capsys, "--out", str(tmp_path / "file" / "out"))


@pytest.mark.parametrize("missing", ["rich", "matplotlib"])
def test_without_the_extra_it_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == missing else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    line = f'lbw demo: error: `{missing}` is not installed; pip install "lbw_policy[demo]"\n'
    assert refused(demo.main, capsys) == line


def test_the_command_is_mounted_without_importing_torch_or_the_extra() -> None:
    code = (
        "import sys, lbw_policy.cli.demo as demo, argparse; demo.add_arguments(argparse.ArgumentParser());"
        "sys.exit(bool({'torch', 'rich', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
