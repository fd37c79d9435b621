"""The hooks for pre-commit name commands that exist and that find what is wrong."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_KEYS = {"id", "name", "description", "entry", "language", "files"}


def _hooks() -> dict[str, dict[str, str]]:
    """Read the file, which is a plain list of plain mappings."""
    entries = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8").split("- id: ")[1:]
    found = [dict(line.strip().split(": ", 1) for line in f"id: {entry}".strip().splitlines()) for entry in entries]
    return {hook["id"]: hook for hook in found}


def _run(entry: str, path: Path) -> subprocess.CompletedProcess[str]:
    command, *words = shlex.split(entry)
    program = Path(sys.executable).with_name(command)
    return subprocess.run([program, *words, path], capture_output=True, text=True, check=False)


def test_each_hook_has_its_keys_and_a_variant_for_the_path() -> None:
    hooks = _hooks()

    assert set(hooks) == {"lbw-check", "lbw-fmt", "lbw-check-use-path", "lbw-fmt-use-path"}
    for name, hook in hooks.items():
        assert set(hook) == _KEYS
        assert hook["language"] == ("system" if name.endswith("-use-path") else "python")
        assert hook["entry"] == hooks[name.removesuffix("-use-path")]["entry"]


def test_the_hooks_take_policy_files_only() -> None:
    patterns = {hook["files"] for hook in _hooks().values()}

    assert len(patterns) == 1
    assert re.search(next(iter(patterns)), "policies/a.lbw")
    assert not re.search(next(iter(patterns)), "policies/a.lbwrun")


@pytest.mark.parametrize(("text", "code"), [("lbw 1\npolicy p { }\n", 0), ("lbw 1\npolicy p { dok }\n", 1)])
def test_the_check_hook_passes_a_good_file_and_fails_a_bad_one(tmp_path: Path, text: str, code: int) -> None:
    path = tmp_path / "a.lbw"
    path.write_text(text, encoding="utf-8")

    assert _run(_hooks()["lbw-check"]["entry"], path).returncode == code


def test_the_format_hook_brings_a_file_into_its_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.lbw"
    path.write_text("lbw 1\npolicy   p {}\n", encoding="utf-8")

    assert _run(_hooks()["lbw-fmt"]["entry"], path).returncode == 0
    assert "policy p {" in path.read_text(encoding="utf-8")


def test_every_hook_starts_a_command_of_the_package() -> None:
    scripts = re.findall(
        r'^([\w-]+) = "lbw_policy', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
    )

    assert {shlex.split(hook["entry"])[0] for hook in _hooks().values()} <= set(scripts)
