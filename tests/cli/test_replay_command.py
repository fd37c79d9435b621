"""`lbw replay` shows what a policy would decide, and tells every mistake in one clear line."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lbw_policy.cli.main import main

POLICY = """lbw 1
policy small { doc "" }
param most : ratio in [2, 50] = 10
signal loss = observed.loss
signal step = telemetry.update_ratio
reflex broken { when not finite(loss) do skip }
reflex end { when finite(loss) and loss > 1_000 do halt }
levels normal -> caution
level caution {
  enter when loss > most  for 2 of 3 steps
  leave when loss < most  for 2 steps
  do scale_lr by 0.5
}
limits { scale_lr within [0.1, 1]  skip at most 3 in a row, at most 1 per 100 steps }
alert high warning when loss > most "loss {loss}"
"""
LOSSES = (1.0, 1.0, math.nan, math.nan, 20.0, 20.0, 20.0, 1.0, 1.0, 2_000.0)
RISKY = """lbw 1
policy risky { doc "" }
signal loss = telemetry.loss
risk divergence { horizon 5 steps  features standard  model baseline  alarm at most 1 false per 100 steps
  trust after 10 steps  fallback 0% }
levels normal -> caution
level caution { enter when divergence.alarm  leave when not divergence.alarm  do scale_lr by 0.5 }
limits { scale_lr within [0.1, 1] }
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small.lbw").write_text(POLICY, encoding="utf-8")
    Path("run.csv").write_text("loss,update_ratio\n" + "".join(f"{loss},0.001\n" for loss in LOSSES))


def _shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["replay", *words]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.splitlines()


def test_an_alarm_that_acts_names_its_causes(capsys: pytest.CaptureFixture[str]) -> None:
    """An action of a level that reads a risk tells, in text and JSON, which features raised the risk."""
    Path("risky.lbw").write_text(RISKY, encoding="utf-8")
    noisy = [(2 + (step * 7 % 5) / 50, 0.001 * (1 + (step * 3 % 7) / 50)) for step in range(200)]
    noisy[150:160] = [(2.0, 0.5)] * 10
    Path("risky.csv").write_text("loss,update_ratio\n" + "".join(f"{a},{b}\n" for a, b in noisy))
    shown = _text_of(capsys, "risky.lbw", "risky.csv")
    lines = [line for line in shown if "scale_lr" in line and "divergence.alarm: standard.update_surprise +" in line]
    assert lines[0].startswith("tick 150: scale_lr to 0.5")
    records, summary = _records(capsys, "risky.lbw", "risky.csv")
    grants = [grant for record in records for grant in record["grants"] if grant["starts"]]
    assert grants[0]["drivers"][0].startswith("divergence.alarm: standard.update_surprise +")
    assert "labels" in summary["risks"]["divergence"]


def _text_of(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["replay", *words]) == 0
    return capsys.readouterr().out.splitlines()


def _records(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    lines = [json.loads(line, parse_constant=pytest.fail) for line in _shown(capsys, *words, "--format", "json")]
    return lines[:-1], lines[-1]["summary"]


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    try:
        code = main(["replay", *words])
    except SystemExit as stop:
        code = int(str(stop.code))
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_the_timeline_tells_what_happens_once_with_its_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    """Each change of level, each beginning, each new refusal and each alert has a line; held factors have none."""
    lines = _shown(capsys, "small.lbw", "run.csv")

    assert lines[: lines.index("")] == [
        "tick 2: skip granted, reflex broken: finite(loss = nan)",
        "tick 2: alert high: loss nan (warning)",
        "tick 3: level normal -> caution: loss = nan > 10",
        "tick 3: skip refused (1 per 100 steps are spent), reflex broken, nothing instead",
        "tick 3: scale_lr to 0.5 of its rate granted, level caution: loss = nan > 10",
        "tick 8: level caution -> normal",
        "tick 9: halt granted, reflex end: finite(loss = 2000), loss = 2000 > 1000",
        "tick 9: alert high: loss 2000 (warning)",
    ]
    assert "levels: 5 normal, 5 caution; at the end normal" in lines
    assert lines[-1] == "note: a guard would have halted the run at tick 9"


def test_what_is_asked_for_instead_is_shown_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    text = POLICY.replace("do skip }", "do skip else halt }")
    Path("else.lbw").write_text(text, encoding="utf-8")
    lines = _shown(capsys, "else.lbw", "run.csv", "--until", "3")
    records, summary = _records(capsys, "else.lbw", "run.csv", "--until", "3")

    assert lines[3:5] == [
        "tick 3: skip refused (1 per 100 steps are spent), reflex broken, halt instead",
        "tick 3: halt granted, reflex broken: finite(loss = nan)",
    ]
    assert "  skip: 1 granted, 1 refused (1 with halt instead)" in lines
    assert [grant["fallback"] for grant in records[1]["grants"]] == ["halt", ""]
    assert (summary["fallbacks"], summary["halted_at"]) == ({"skip": {"halt": 1}}, 3)


def test_the_summary_counts_what_the_timeline_shows(capsys: pytest.CaptureFixture[str]) -> None:
    records, summary = _records(capsys, "small.lbw", "run.csv")

    assert summary["ticks"] == len(LOSSES)
    assert summary["actions"]["skip"] == {"granted": 1, "refused": 1}
    assert summary["alerts"] == {"high": sum(len(record["messages"]) for record in records)}
    assert sum(summary["levels"].values()) == len(LOSSES)
    assert (summary["final_level"], summary["halted_at"]) == ("normal", 9)
    assert summary["columns"] == {"loss": "loss", "step": "update_ratio"}
    assert summary["seconds"] >= 0


def test_json_has_a_line_for_every_tick_that_matters(capsys: pytest.CaptureFixture[str]) -> None:
    """A tick with a change of level, a request or a message; NaN is a text, for JSON has no word for it."""
    records, _ = _records(capsys, "small.lbw", "run.csv")
    first = records[0]

    assert first["tick"] == 2
    assert [request["action"] for request in first["requests"]] == ["skip"]
    assert first["grants"][0] | {"evidence": []} == {
        "action": "skip",
        "rule": "reflex broken",
        "outcome": "granted",
        "amount": None,
        "reason": "",
        "starts": True,
        "left": 0,
        "fallback": "",
        "evidence": [],
        "drivers": [],
    }
    assert first["messages"][0]["alert"] == "high"
    assert {record["tick"] for record in records} >= {2, 3, 4, 5, 6, 7, 8, 9}
    assert 0 not in {record["tick"] for record in records}


def test_all_has_a_line_for_every_tick(capsys: pytest.CaptureFixture[str]) -> None:
    records, _ = _records(capsys, "small.lbw", "run.csv", "--all")
    assert [record["tick"] for record in records] == list(range(len(LOSSES)))

    lines = _shown(capsys, "small.lbw", "run.csv", "--all")
    assert lines[0] == "tick 0: level normal"


def test_from_shows_less_and_decides_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """What lies before is replayed all the same, so the rest is as it was; it is neither shown nor counted."""
    whole, _ = _records(capsys, "small.lbw", "run.csv")
    part, summary = _records(capsys, "small.lbw", "run.csv", "--from", "4", "--until", "7")

    assert part == [record for record in whole if 4 <= record["tick"] <= 7]
    assert (summary["ticks"], summary["first"], summary["last"]) == (4, 4, 7)
    assert "skip" not in summary["actions"]
    assert summary["halted_at"] is None


def test_params_reach_the_policy(capsys: pytest.CaptureFixture[str]) -> None:
    records, _ = _records(capsys, "small.lbw", "run.csv", "--param", "most=50", "--from", "4", "--until", "4")
    assert all(not record["messages"] for record in records)


def test_the_three_formats_give_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    ratio = [0.001] * len(LOSSES)
    np.savez("run.npz", loss=np.array(LOSSES), update_ratio=np.array(ratio))
    rows = [{"loss": loss, "update_ratio": 0.001} for loss in LOSSES]
    Path("run.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

    found = [_records(capsys, "small.lbw", f"run.{ending}")[0] for ending in ("csv", "jsonl", "npz")]

    assert found[0] == found[1] == found[2]


def test_a_policy_comes_from_standard_input_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(POLICY.encode())))
    expected, _ = _records(capsys, "small.lbw", "run.csv")
    assert _records(capsys, "-", "run.csv")[0] == expected


def test_what_the_risk_models_go_without_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("risky.lbw").write_text(RISKY)
    lines = _shown(capsys, "risky.lbw", "run.csv")
    absent = [line for line in lines if line.startswith("note: the trace has no ")]

    assert len(absent) == 1
    assert "grad_norm" in absent[0]
    assert "update_ratio" not in absent[0]
    assert any(line.startswith("risk divergence: ") for line in lines)


def test_a_column_of_the_signals_name_is_taken_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A counter called `step` is easily taken for the signal `step`, so it is told."""
    Path("both.csv").write_text("step,update_ratio,loss\n0,0.001,1\n1,0.001,1\n")
    assert main(["replay", "small.lbw", "both.csv"]) == 0
    expected = "lbw replay: note: signal `step` is read from column `step`, not from column `update_ratio`\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("small.lbw", "none.csv"), "lbw replay: error: none.csv: cannot be read: no such file or directory\n"),
        (("none.lbw", "run.csv"), "cannot read the file"),
        (("conservatve", "run.csv"), "did you mean `conservative`?"),
        (("small.lbw", "small.lbw"), "expected a `.csv`, `.jsonl` or `.npz` file, found `small.lbw`"),
        (("small.lbw", "run.csv", "--param", "most"), "expected NAME=NUMBER, found `most`"),
        (("small.lbw", "run.csv", "--param", "most=1"), "param `most` must lie in [2, 50], found `1.0`"),
        (("small.lbw", "run.csv", "--param", "mots=5"), "unknown param `mots`"),
        (("small.lbw", "run.csv", "--from", "-1"), "expected a tick, a whole number from 0, found `-1`"),
        (("small.lbw", "run.csv", "--until", "soon"), "expected a tick, a whole number from 0, found `soon`"),
        (("small.lbw", "run.csv", "--from", "10"), "run.csv: expected ticks within 0 to 9, found 10\n"),
        (("small.lbw", "run.csv", "--from", "5", "--until", "4"), "expected ticks within 0 to 9, found 5 to 4\n"),
        (("small.lbw",), "the following arguments are required: TRACE"),
    ],
)
def test_a_mistake_is_told_in_words(words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in _refused(capsys, *words)


def test_every_missing_column_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.csv").write_text("los,x\n1,2\n")
    assert _refused(capsys, "small.lbw", "other.csv") == (
        "lbw replay: error: other.csv: no column `loss`, which signal `loss` reads; did you mean `los`?\n"
        "lbw replay: error: other.csv: no column `update_ratio` or `step`, which signal `step` reads; "
        "the trace has `los`, `x`\n"
    )


@pytest.mark.parametrize("ending", ["csv", "jsonl", "npz"])
def test_a_broken_trace_is_no_traceback(ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(f"bad.{ending}").write_bytes(b"\x00\xfe{[,\n" * 50)
    assert _refused(capsys, "small.lbw", f"bad.{ending}").count("\n") == 1


def test_the_command_loads_no_torch() -> None:
    code = (
        "import sys; from lbw_policy.cli.main import main; main(['replay', 'small.lbw', 'run.csv']); "
        "print([name for name in ('torch', 'river', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
