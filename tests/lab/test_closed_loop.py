"""A comparison's runs are real, told as they were, and never made twice."""

import json
import math
from pathlib import Path

import pytest
from attrs import evolve

from lbw_policy.lab import closed_loop, findings
from lbw_policy.lab.closed_loop import Finding, find, key
from lbw_policy.lab.contenders import NONE, PLAIN, Contender, clipped, ours
from lbw_policy.lab.findings import Findings, Wanted, make, missing
from lbw_policy.lab.language import ByteLanguage
from lbw_policy.lab.scenarios import SCENARIOS, Case
from lbw_policy.lab.trouble import CALM

SKIPS = """lbw 1
policy skips { doc "Skips what is not finite." }
signal grad = telemetry.grad_norm
reflex broken { when not finite(grad)  do skip }
limits { skip at most 4 in a row, at most 20 per 1_000 steps  intervene at most 20 per 1_000 steps }
"""
STEPS = 90
_START = 20


@pytest.fixture(autouse=True)
def _tiny(task: ByteLanguage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_loop, "task_of", lambda _: task)
    closed_loop.untrained.cache_clear()


def case(scenario: str) -> Case:
    fault = SCENARIOS[scenario].make(_START, STEPS)
    return Case("gpt", "adamw", "fp32", scenario, fault, 0, STEPS)


def test_an_unguarded_run_that_is_lost_is_given_up() -> None:
    found = find(case("grad_nan"), NONE)
    assert len(found.losses) == _START + 1 + closed_loop.LOST_FOR
    assert math.isnan(found.held_out)
    assert found.acts == {}


def test_losses_are_those_of_the_data_that_were_due() -> None:
    """A bad batch does not hide what the weights are worth."""
    struck, calm = find(case("corrupt_batches"), NONE), find(case("none"), NONE)
    assert struck.losses[:_START] == calm.losses[:_START]
    assert struck.losses[_START] == pytest.approx(calm.losses[_START], rel=1e-4)
    assert struck.losses[_START + 1] != calm.losses[_START + 1]


def test_a_guard_that_skips_is_told_of_by_step() -> None:
    found = find(case("grad_nan"), ours(SKIPS))
    assert found.acts == {"skip": (_START,)}
    assert math.isfinite(found.held_out)


def test_the_oracle_puts_the_run_back_ten_steps_late() -> None:
    found, calm = find(case("lr_high"), PLAIN["oracle"]()), find(case("none"), NONE)
    assert found.acts == {"rollback": (_START + 10,)}
    assert found.held_out == pytest.approx(calm.held_out, rel=0.2)


def test_the_oracle_has_nothing_to_do_where_there_is_no_trouble() -> None:
    assert find(case("none"), PLAIN["oracle"]()).losses == find(case("none"), NONE).losses


def test_a_guard_that_breaks_the_run_is_told_of() -> None:
    class Broken:
        interventions = ()

        def observe(self, *, loss: object) -> None:
            raise RuntimeError("out of order")

        def detach(self) -> None: ...

    found = find(case("none"), Contender("broken", "broken", "a test", lambda _: lambda *_: Broken()))
    assert found.raised == "RuntimeError: out of order"


def test_a_finding_survives_json() -> None:
    found = find(case("nan_batch"), NONE)
    told = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    back = Finding.of(told)
    assert back.as_dict() == found.as_dict()
    assert math.isnan(back.losses[_START + 1])


def test_a_key_names_everything_that_a_run_depends_on() -> None:
    usual = case("lr_glitch")
    others = [evolve(usual, seed=1), evolve(usual, steps=80), evolve(usual, fault=evolve(usual.fault, factor=3.0))]
    others += [evolve(usual, optimizer="adam"), evolve(usual, precision="bf16"), evolve(usual, fault=CALM)]
    keys = {key(each, NONE) for each in (usual, *others)} | {key(usual, clipped(NONE))}
    assert len(keys) == 8
    assert key(usual, NONE) == key(case("lr_glitch"), NONE)


def test_the_key_of_a_policy_changes_with_what_it_does_not_with_how_it_is_written(tmp_path: Path) -> None:
    text = 'lbw 1\npolicy mine { doc "" }\nsignal loss = telemetry.loss\nalert high info when loss > 9 "{loss}"\n'
    for name, content in (("a.lbw", text), ("b.lbw", f"# Why.\n\n{text}"), ("c.lbw", text.replace("> 9", "> 8"))):
        (tmp_path / name).write_text(content, encoding="utf-8")
    first, same, other = (key(case("none"), ours(str(tmp_path / name))) for name in ("a.lbw", "b.lbw", "c.lbw"))
    assert first == same != other


def _resolve(name: str) -> Contender:
    return {"none": NONE, "clip": PLAIN["clip"]()}[name]


def _scripted(case: Case, contender: Contender) -> Finding:
    return Finding(
        key(case, contender), contender.name, case.id, (1.0, math.nan), 2.0, math.nan, None, "", {"skip": (1,)}
    )


def test_what_is_in_the_folder_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "find", _scripted)
    wanted = [Wanted(case(name), guard) for name in ("none", "grad_nan", "lr_high") for guard in ("none", "clip")]
    folder = Findings.within(tmp_path / "out")
    for finding in make(wanted[:3], _resolve):
        folder.add(finding)
    again = Findings.within(tmp_path / "out")
    assert missing(again, wanted + wanted[:2], _resolve) == wanted[3:]
    for finding in make(missing(again, wanted, _resolve), _resolve):
        again.add(finding)
    assert missing(Findings.within(tmp_path / "out"), wanted, _resolve) == []


@pytest.mark.parametrize("damage", ['{"key": "x"', '{"key": "x"}\n', "[]\n", "no json\n"])
def test_a_line_that_is_no_finding_stays_in_the_file_and_its_run_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(findings, "find", _scripted)
    wanted = [Wanted(case(name), "none") for name in ("none", "grad_nan")]
    folder = Findings.within(tmp_path)
    folder.add(_scripted(wanted[0].case, NONE))
    with folder.path.open("a", encoding="utf-8") as file:
        file.write(damage)
    again = Findings.within(tmp_path)
    assert missing(again, wanted, _resolve) == wanted[1:]
    again.add(_scripted(wanted[1].case, NONE))
    assert len(Findings.within(tmp_path).known) == 2
    assert damage.strip() in folder.path.read_text(encoding="utf-8").splitlines()


def test_the_guard_is_not_told_of_the_look_at_due_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking changes nothing: the run is bit for bit the one that nobody looks at."""
    struck = case("corrupt_batches")
    looked = find(struck, NONE)
    monkeypatch.setattr(closed_loop, "_spoils", lambda *_: False)
    assert find(struck, NONE).held_out == looked.held_out
