"""A replay decides what a guard decided on the same readings, and reads a trace as the policy means it."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import nn

import lbw_policy as lbw
from lbw_policy.cli.main import main
from lbw_policy.errors import TraceError
from lbw_policy.machine import Turn
from lbw_policy.risk import STANDARD_SOURCES
from lbw_policy.runtime import Guard
from lbw_policy.runtime.replaying import Binding, Replay, readings
from lbw_policy.traces import Trace, read_trace
from tests.runtime.loops import loss_of, small

Row = dict[str, float | None]

POLICY = """lbw 1
policy whole { doc "Every kind of rule, so that every part of a decision is compared." }
signal loss  = telemetry.loss
signal grad  = telemetry.grad_norm
signal leap  = telemetry.update_ratio
signal noise = observed.temperature { every 3 steps  missing hold 5 steps }
signal shape = telemetry.activation_variance { every 4 steps  missing hold 8 steps }
let surprise = zscore(loss, 32 steps)
let jump     = grad / median(grad, 32 steps)
let drift    = slope(ewma(loss, 10 steps), 20 steps)
risk divergence {
  horizon 8 steps   features standard, surprise, log(shape)   model baseline
  alarm at most 20 false per 1_000 steps   trust after 30 steps   fallback 0%
}
reflex broken { when not finite(loss) or not finite(grad)  do skip }
reflex tall   { when jump > 3  do clip to 2 * median(grad, 32 steps) }
levels normal -> caution -> recover
level caution {
  enter when divergence.alarm or divergence > 10% or surprise > 6   for 1 of 3 steps
  leave when surprise < 2 and not divergence.alarm                  for 5 steps
  do freeze top 50% of layers by activation_variance
  do scale_lr by 0.5  restore over 5 steps
}
level recover {
  enter when loss > 3 * median(loss, 32 steps) or noise > 50  for 2 of 3 steps
  leave when surprise < 3                                     for 3 steps
  stay at most 20 steps
  do rollback at most 20 steps
}
limits {
  scale_lr  within [0.1, 1]
  skip      at most 3 in a row, at most 10 per 100 steps
  clip      at most 5 per 100 steps
  rollback  at most 20 steps back, at most 2 per 100 steps
  freeze    at most 50% of layers, for at most 20 steps
  intervene at most 20 per 100 steps
}
alert drifting warning when drift > 0 and surprise > 1  for 2 of 4 steps  "drift {drift} of {loss}"
alert busy info when rate(interventions, 50 steps) > 3  "busy"
"""
SPIKES = {60: 40.0, 61: math.nan, 90: 5.0, 91: 6.0, 92: 7.0, 140: math.inf, 200: 30.0, 201: 30.0, 202: 30.0, 203: 30.0}


def _watched(steps: int) -> tuple[Guard, list[Row], list[Turn]]:
    """Train in shadow mode; return the guard, what it read and what it decided at every tick."""
    model, optimizer = small(lr=0.003)
    guard = lbw.attach(optimizer, lbw.load(POLICY), model=model, mode="shadow")
    rows: list[Row] = []
    turns: list[Turn] = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, step) * SPIKES.get(step, 1.0)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0 if step != 90 else 500.0)
        if not loss.isfinite():
            model.zero_grad()  # the weights of a shadowed run must live
        guard.observe(loss=loss.detach())
        if step % 2:
            guard.observe(temperature=torch.tensor(60.0 if 100 < step < 110 else 20.0))
        optimizer.step()
        rows.append(dict(guard._readings.values))
        assert guard._turn is not None
        turns.append(guard._turn)
    return guard, rows, turns


@pytest.fixture(scope="module")
def watched() -> tuple[Guard, list[Row], list[Turn]]:
    return _watched(260)


def _save(path: Path, rows: list[Row]) -> Path:
    if path.suffix == ".jsonl":
        present = ({name: value for name, value in row.items() if value is not None} for row in rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in present))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _opened(policy: lbw.Policy, path: Path) -> tuple[Trace, Binding]:
    trace = read_trace(path, Binding.wanted(policy))
    return trace, Binding.of(policy, trace.names)


def _turns(replay: Replay, path: Path) -> Iterator[Turn]:
    for values, sources in readings(replay.policy, *_opened(replay.policy, path)):
        yield replay.tick(values, sources)


@pytest.mark.parametrize("name", ["run.csv", "run.jsonl"])
def test_a_replay_decides_what_the_guard_decided(
    tmp_path: Path, watched: tuple[Guard, list[Row], list[Turn]], name: str
) -> None:
    """Same readings: every decision and grant, every count and the whole state of session and risk are equal."""
    guard, rows, turns = watched
    replay = Replay(guard.policy)

    found = [repr(turn) for turn in _turns(replay, _save(tmp_path / name, rows))]

    assert found == [repr(turn) for turn in turns]
    assert replay.ledger.counts == guard._parts.ledger.counts
    assert repr(replay.session.state_dict()) == repr(guard._parts.session.state_dict())
    assert repr(replay.deciding.risks["divergence"].state_dict()) == repr(guard._parts.risks["divergence"].state_dict())


def test_the_compared_run_has_every_kind_of_decision(watched: tuple[Guard, list[Row], list[Turn]]) -> None:
    """Else the comparison would say little."""
    guard, rows, turns = watched
    outcomes = set(guard._parts.ledger.counts)

    assert {action for action, _ in outcomes} == {"skip", "clip", "scale_lr", "rollback", "freeze", "alert"}
    assert any(outcome == "refused" for _, outcome in outcomes)
    assert {turn.decision.level for turn in turns} == {"normal", "caution", "recover"}
    assert {message.alert for turn in turns for message in turn.decision.messages} == {"drifting", "busy"}
    assert any(row["loss"] != row["loss"] for row in rows)
    assert guard.risk_status("divergence").startswith(("trusted", "not trusted"))


def test_a_guard_in_shadow_reads_all_that_one_that_acts_reads(watched: tuple[Guard, list[Row], list[Turn]]) -> None:
    """Also what is measured around the update: its norm, and the curvature along it."""
    _, rows, _ = watched
    assert all(any(row[source] is not None for row in rows) for source in STANDARD_SOURCES)


def test_a_resumed_tick_count_keeps_slow_signals_in_step(
    tmp_path: Path, watched: tuple[Guard, list[Row], list[Turn]]
) -> None:
    """A trace that begins later says so in its `tick` column; what is due is what was due then."""
    guard, rows, _ = watched
    numbered = [{"tick": float(tick), **row} for tick, row in enumerate(rows)][5:]
    path = _save(tmp_path / "late.csv", numbered)
    policy = guard.policy
    trace, binding = _opened(policy, path)

    assert trace.first == 5
    due = [
        tick for tick, (_, sources) in enumerate(readings(policy, trace, binding), 5) if sources["activation_variance"]
    ]
    assert due == [tick for tick, row in enumerate(rows) if row["activation_variance"] and tick >= 5]
    replay = Replay(policy, trace.first)
    assert [turn.decision.tick for turn in islice(_turns(replay, path), 3)] == [5, 6, 7]


# Columns

TWO = """lbw 1
policy two { doc "" }
signal loss = telemetry.loss
signal step = telemetry.update_ratio
signal mine = observed.temperature
alert high warning when loss > 1 and step > 1 and mine > 1  "x"
"""


def _bound(text: str, *names: str) -> Binding:
    return Binding.of(lbw.load(text), names)


def test_a_signals_own_name_comes_before_its_sources() -> None:
    binding = _bound(TWO, "loss", "step", "update_ratio", "temperature", "other")

    assert binding.signals == {"loss": "loss", "step": "step", "mine": "temperature"}
    assert binding.doubtful == (("step", "update_ratio"),)


def test_every_missing_column_is_named_with_the_nearest() -> None:
    with pytest.raises(TraceError) as caught:
        _bound(TWO, "los", "update_ration", "x")

    assert str(caught.value).splitlines() == [
        "no column `loss`, which signal `loss` reads; did you mean `los`?",
        "no column `update_ratio` or `step`, which signal `step` reads; did you mean `update_ration`?",
        "no column `temperature` or `mine`, which signal `mine` reads; the trace has `los`, `update_ration`, `x`",
    ]


def test_the_tick_column_is_no_reading() -> None:
    with pytest.raises(TraceError, match="no column `temperature` or `tick`"):
        _bound(TWO.replace("mine", "tick"), "tick", "loss", "step")


def test_standard_features_go_without_what_the_trace_lacks() -> None:
    """Only the policy's own signals are needed; the rest of the standard sources may be absent, and is listed."""
    binding = _bound(POLICY, "loss", "grad", "update_ratio", "temperature", "shape", "param_norm")

    assert binding.sources == {
        "loss": "loss",
        "grad_norm": "grad",
        "update_ratio": "update_ratio",
        "activation_variance": "shape",
        "param_norm": "param_norm",
    }
    assert set(binding.absent) == set(STANDARD_SOURCES) - set(binding.sources)


def test_a_column_that_feeds_one_signal_is_not_taken_for_another_source() -> None:
    """`loss` here is the user's own number: it is not the loss that a risk model learns from."""
    text = POLICY.replace("telemetry.loss", "observed.validation")
    binding = _bound(text, "loss", "grad", "update_ratio", "temperature", "shape")

    assert "loss" in binding.absent
    assert binding.signals["loss"] == "loss"


def test_a_signal_over_a_group_has_a_column_of_its_own() -> None:
    """The column of the whole does not stand for that of a group, nor the other way round."""
    text = TWO.replace(
        "signal step = telemetry.update_ratio", 'layers a = "a.*"\nsignal step = telemetry.grad_norm of a'
    )
    names = ("loss", "temperature", "grad_norm")

    assert _bound(text, *names, "grad_norm of a").signals["step"] == "grad_norm of a"
    assert _bound(text, *names, "step").signals["step"] == "step"
    with pytest.raises(TraceError, match="no column `grad_norm of a` or `step`, which signal `step` reads"):
        _bound(text, *names)
    clips = text.replace(
        "alert", "reflex r { when loss > 9 do clip to 1 }\nlimits { clip at most 1 per 9 steps }\nalert"
    )
    with pytest.raises(TraceError, match="no column `grad_norm`, which `clip` needs"):
        _bound(clips, "loss", "temperature", "grad_norm of a")


def test_a_column_of_a_group_is_read_as_it_is_due(tmp_path: Path) -> None:
    text = TWO.replace("signal step = telemetry.update_ratio",
                       'layers a = "a.*"\nsignal step = telemetry.grad_norm of a { every 2 steps }')  # fmt: skip
    rows: list[Row] = [{"loss": 1.0, "temperature": 1.0, "grad_norm of a": float(tick)} for tick in range(4)]
    policy = lbw.load(text)
    trace, binding = _opened(policy, _save(tmp_path / "a.csv", rows))

    assert [values["step"] for values, _ in readings(policy, trace, binding)] == [0.0, None, 2.0, None]


def test_clip_needs_the_gradient_norm() -> None:
    text = TWO.replace("alert", "reflex r { when loss > 9 do clip to 1 }\nlimits { clip at most 1 per 9 steps }\nalert")
    with pytest.raises(TraceError, match=r"no column `grad_norm`, which `clip` needs; did you mean `grad_nrm`\?"):
        _bound(text, "loss", "step", "mine", "grad_nrm")


def test_what_the_guard_counts_itself_needs_no_column() -> None:
    assert "interventions" not in Binding.wanted(lbw.load(POLICY))


def test_a_reading_that_is_not_due_is_not_read(tmp_path: Path) -> None:
    """As in training: `every 3 steps` reads what ticks 0, 3, 6 bring, whatever stands between."""
    rows: list[Row] = [
        {"loss": 1.0, "grad": 1.0, "leap": 1.0, "temperature": float(tick), "shape": 1.0} for tick in range(7)
    ]
    policy = lbw.load(POLICY)
    trace, binding = _opened(policy, _save(tmp_path / "a.csv", rows))

    noise = [values["noise"] for values, _ in readings(policy, trace, binding)]

    assert noise == [0.0, None, None, 3.0, None, None, 6.0]


# The open loop


def _constant(path: Path, **values: list[float]) -> Path:
    return _save(path, [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)])


def test_the_trace_does_not_react(tmp_path: Path) -> None:
    """Updates go on whatever is granted: a run of bad batches is skipped beyond `in a row`, within the budget."""
    text = """lbw 1
    policy p { doc "" }
    signal loss = telemetry.loss
    reflex bad { when loss > 10 do skip }
    reflex end { when loss > 1000 do halt }
    limits { skip at most 2 in a row, at most 5 per 100 steps }
    """
    replay = Replay(lbw.load(text))
    losses = [1.0] * 5 + [50.0] * 8 + [5000.0] + [1.0] * 5

    turns = list(_turns(replay, _constant(tmp_path / "a.csv", loss=losses)))

    assert [turn.decision.tick for turn in turns if turn.granted] == [5, 6, 7, 8, 9, 13]
    assert replay.session.progress == len(losses)


def test_alerts_of_a_replay_are_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are told by the replay; the log is for runs that happen now."""
    text = 'lbw 1\npolicy p { doc "" }\nsignal loss = telemetry.loss\nalert high critical when loss > 1 "x"\n'
    replay = Replay(lbw.load(text))
    found: list[Mapping[str, object]] = []
    for _ in _turns(replay, _constant(tmp_path / "a.csv", loss=[2.0, 2.0])):
        found += [record.as_dict() for record in replay.records]

    assert [(record["action"], record["outcome"], record["reason"]) for record in found] == [
        ("alert", "critical", "high: x")
    ]
    assert not caplog.records


def test_a_replay_needs_no_torch() -> None:
    code = "import sys, lbw_policy.runtime.replaying, lbw_policy.cli.timeline; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_the_documents_example_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "replay.md").read_text(encoding="utf-8")
    console, policy = (part.split("\n```", 1)[0] for part in (text.split("```console\n")[1], text.split("```lbw\n")[1]))
    rows, _, printed = console.removeprefix("$ cat run.csv\n").partition("$ lbw replay skip_nan.lbw run.csv\n")
    (tmp_path / "run.csv").write_text(rows)
    (tmp_path / "skip_nan.lbw").write_text(policy)
    monkeypatch.chdir(tmp_path)

    assert main(["replay", "skip_nan.lbw", "run.csv"]) == 0
    assert capsys.readouterr().out.split("\n\n")[0] == printed
