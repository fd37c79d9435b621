"""Wheel, source distribution, editable install and plain checkout all find grammar, policies and priors."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lbw_policy.resources import presets

ROOT = Path(__file__).resolve().parents[2]
_SHOW = "import lbw_policy as l; print(l.__file__); print(sorted(l.presets())); print(l.load('monitor').name)"
_PRIORS = "from lbw_policy.risk.prior import shipped; print(shipped('logistic').digest, shipped('trees').kind)"

_EXPLAIN = "import sys; from lbw_policy.cli.main import main; sys.exit(main(['explain', 'lbw204']))"


def _run(*words: str | Path, cwd: Path, **environment: str) -> str:
    found = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _run("-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return folder


def test_a_wheel_carries_grammar_and_policies(built: Path, tmp_path: Path) -> None:
    wheel = next(built.glob("*.whl"))
    site = tmp_path / "site"
    _run("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel, cwd=tmp_path)

    shown = _run("-c", _SHOW, cwd=tmp_path, PYTHONPATH=str(site)).splitlines()

    assert shown[0].startswith(str(site))
    assert shown[1:] == [str(sorted(presets())), "monitor"]
    told = _run("-c", _PRIORS, cwd=tmp_path, PYTHONPATH=str(site))
    assert told == _run("-c", _PRIORS, cwd=tmp_path, PYTHONPATH=str(ROOT))
    page = _run("-c", _EXPLAIN, cwd=tmp_path, PYTHONPATH=str(site))
    assert page == (ROOT / "docs" / "codes" / "LBW204.md").read_text(encoding="utf-8")
    assert len(list(site.glob("lbw_policy/codes/*.md"))) == len(list((ROOT / "docs" / "codes").glob("*.md")))


def test_the_source_distribution_builds_and_carries_the_tests(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {
        "grammar/lbw.lark",
        "policies/monitor.lbw",
        "priors/logistic.json",
        "Makefile",
        "constraints.txt",
        "LICENSE",
    } <= names
    assert any(name.startswith("tests/") for name in names)


def test_a_plain_checkout_and_an_editable_install_find_them_too(tmp_path: Path) -> None:
    shown = _run("-c", _SHOW, cwd=tmp_path, PYTHONPATH=str(ROOT)).splitlines()

    assert shown[0].startswith(str(ROOT))
    assert shown[2] == "monitor"


def test_an_editable_install_reads_the_working_tree(tmp_path: Path) -> None:
    script = "from lbw_policy.resources import folder; print(folder('policies'))"
    found = _run("-c", script, cwd=tmp_path)

    assert Path(found.strip()) == ROOT / "policies"
