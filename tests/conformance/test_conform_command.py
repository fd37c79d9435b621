"""`lbw conform` on plugins that conform, that do not, and that are not there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbw_policy.cli.main import main
from lbw_policy.semantics import plugins

ENTRIES = """
[lbw_policy.functions]
squash = tests.conformance.sample_plugins:FUNCTION
wrong_name = tests.conformance.sample_plugins:FUNCTION
"""
GOOD = "tests.conformance.sample_plugins:FUNCTION"


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    metadata = tmp_path / "sample_plugins-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sample_plugins\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "conform_bad.py").write_text(
        "import math\nfrom lbw_policy.plugins import FunctionPlugin\n"
        "class holder:\n    log = FunctionPlugin('log_of', None, math.log, 'logarithm')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.forget()
    yield
    plugins.forget()


def test_an_installed_plugin_and_an_object_that_conform(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "squash", GOOD]) == 0
    assert capsys.readouterr().out == f"squash (function): conforms\n{GOOD} (function): conforms\n"


def test_findings_are_printed_with_their_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "conform_bad:holder.log"]) == 1
    out = capsys.readouterr().out.splitlines()

    assert out[:2] == ["conform_bad:holder.log (function): 1 finding", "  raises"]
    assert out[2].startswith("    `log_of(0)` raised ValueError: math domain error; ")


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "--format", "json", "conform_bad:holder.log", "squash"]) == 1
    found = json.loads(capsys.readouterr().out)

    assert found["version"] == 1
    assert [(one["plugin"], one["kind"]) for one in found["plugins"]] == [
        ("conform_bad:holder.log", "function"), ("squash", "function"),
    ]  # fmt: skip
    assert [one["what"] for one in found["plugins"][0]["findings"]] == ["raises"]
    assert found["plugins"][1]["findings"] == []


def test_an_entry_point_that_policies_cannot_use_is_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", "wrong_name"]) == 1
    assert "the plugin calls itself `squash`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sqash"], "no installed package has a plugin `sqash`; did you mean `squash`?"),
        (["nowhere_at_all:x"], "`nowhere_at_all:x` cannot be imported: ModuleNotFoundError"),
        (["conform_bad:holder.sine"], "`conform_bad:holder.sine` cannot be imported: AttributeError"),
        ([":"], "`:` cannot be imported: ValueError"),
        (["squash", "--amounts", "1", "0"], "expected the lower amount first, found 1 and 0"),
    ],
)
def test_what_is_not_there_is_one_clear_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conform", *words]) == 2
    err = capsys.readouterr().err

    assert err.startswith(f"lbw conform: error: {told}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("words", [[], ["squash", "--amounts", "0", "nan"], ["squash", "--amounts", "0", "much"]])
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["conform", *words])

    assert stopped.value.code == 2
