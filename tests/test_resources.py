"""The files that ship with the package are found beside it or inside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbw_policy import resources
from lbw_policy.errors import ResourceError


def test_presets_and_grammar_are_found_from_any_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(resources.presets()) == [
        "aggressive", "conservative", "diffusion", "finetuning", "mixture_of_experts", "monitor", "state_space",
        "transformer_pretraining", "vision",
    ]  # fmt: skip
    assert resources.grammar_path().read_text(encoding="utf-8").startswith("// The policy language")


def test_the_folder_inside_of_a_wheel_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lbw_policy"
    for place in (package, tmp_path):
        (place / "policies").mkdir(parents=True)
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resources.folder("policies") == package / "policies"


def test_a_broken_install_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "lbw_policy")
    with pytest.raises(ResourceError, match="reinstall"):
        resources.folder("grammar")
