"""A corpus is the same whoever makes it, can be stopped at any time, and tells of its runs what happened in them."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import pytest

from lbw_policy.corpora import CorpusRun, read_manifest
from lbw_policy.errors import TraceError
from lbw_policy.lab import corpus
from lbw_policy.lab.architectures import ARCHITECTURES, task_of
from lbw_policy.lab.corpus import Order, generate
from lbw_policy.lab.data_faults import NanBatch
from lbw_policy.lab.faults import BENIGN_SHIFTS, FAULTS, Fault
from lbw_policy.lab.plan import Planned, plan
from lbw_policy.lab.rate_faults import LrGlitch
from lbw_policy.lab.recipes import OPTIMIZERS, Recipe
from lbw_policy.lab.recording import AFTER, record
from lbw_policy.lab.training import Run
from lbw_policy.lab.trouble import CALM
from lbw_policy.semantics.signals import SIGNALS

_STEPS = 60


def _planned(fault: Fault, architecture: str = "mlp", **recipe: object) -> Planned:
    return Planned(0, 3, architecture, Recipe(_STEPS, 3, rate=1e-3, warmup=5, **recipe), fault, "train")


# The plan


def test_every_round_of_the_plan_is_balanced() -> None:
    """A quarter is benign, and over the rounds every fault meets every architecture and optimizer it can."""
    runs = list(itertools.islice(plan(0), 8 * 35))
    rounds = [runs[start : start + 35] for start in range(0, len(runs), 35)]
    for each in rounds:
        kinds = Counter(run.fault.name for run in each)
        assert all(kinds[name] in (1, 2) for name in FAULTS)
        assert kinds["none"] == 2
        assert sum(kinds[name] for name in BENIGN_SHIFTS) == 7
        assert len({run.split for run in each}) == 1
    for name in set(FAULTS) - {"router_collapse", "logit_growth"}:
        assert {run.architecture for run in runs if run.fault.name == name} == set(ARCHITECTURES)
    counts = Counter(run.recipe.optimizer for run in runs)
    assert set(counts) == set(OPTIMIZERS)
    assert min(counts.values()) > len(runs) / 5
    assert {run.split for run in runs} == {"train", "test"}


def test_no_seed_and_no_name_comes_twice_not_even_in_other_plans() -> None:
    runs = [run for seed in (0, 1) for run in itertools.islice(plan(seed), 500)]
    assert len({run.seed for run in runs}) == 1000
    assert len({run.id for run in runs[:500]}) == 500


def test_a_plan_is_known_from_its_seed_and_what_cannot_strike_is_not_planned() -> None:
    one, same, other = (list(itertools.islice(plan(seed), 300)) for seed in (4, 4, 5))
    assert [(run.id, run.recipe, run.fault.severity()) for run in one] == [
        (run.id, run.recipe, run.fault.severity()) for run in same
    ]
    assert [run.id for run in one] != [run.id for run in other]
    for run in one:
        assert ARCHITECTURES[run.architecture].fits(type(run.fault), run.recipe.optimizer)
        assert 300 <= run.recipe.steps <= 600


# One run


@pytest.mark.parametrize("name", ["mlp", "moe"])
def test_a_recording_has_every_reading_of_every_step_and_changes_no_bit_of_the_run(name: str) -> None:
    recording = record(_planned(CALM, name))
    plain = Run(task_of(name), _planned(CALM, name).recipe, CALM)
    for _ in range(_STEPS):
        plain.step()
    assert recording.columns["loss"] == plain.losses
    assert all(len(column) == _STEPS for column in recording.columns.values())
    never = {"step_time", "gradient_curvature", "hessian_trace"}
    special = {"attention_logit_max", "router_load", "router_entropy", "router_dead"}
    expected = set(SIGNALS) - never - (set() if name == "moe" else special)
    assert set(recording.columns) == expected
    assert recording.columns["update_ratio"][0] is None
    assert all(value is not None for value in recording.columns["grad_norm"])
    assert (recording.start, recording.outcome.diverged_at, recording.outcome.healed) == (None, None, False)


def test_a_run_ends_thirty_steps_after_its_divergence() -> None:
    recording = record(_planned(NanBatch(start=20)))
    assert (recording.start, recording.outcome.diverged_at, recording.steps) == (20, 20, 20 + 1 + AFTER)
    assert all(math.isnan(loss) for loss in recording.columns["loss"][20:] if loss is not None)


def test_a_divergence_near_the_end_is_followed_up() -> None:
    recording = record(_planned(NanBatch(start=_STEPS - 1)))
    assert recording.outcome.diverged_at == _STEPS - 1
    assert recording.steps == _STEPS + AFTER


def test_readings_are_those_before_the_update_and_before_the_clip() -> None:
    fault = LrGlitch(start=20, length=3, factor=10.0)
    recording = record(_planned(fault, clip=0.01, schedule="constant"))
    rates = recording.columns["lr"]
    assert rates[19:24] == pytest.approx([1e-3, 1e-2, 1e-2, 1e-2, 1e-3])
    norms = [norm for norm in recording.columns["grad_norm"] if norm is not None]
    assert min(norms[:10]) > 0.02


# The folder


def _order(out: Path, runs: int = 5, **options: object) -> Order:
    return Order(out, runs, **({"steps": _STEPS, "only": frozenset({"mlp", "cnn"})} | options))


def _make(order: Order) -> list[CorpusRun]:
    made: list[CorpusRun] = []
    generate(order, lambda *_: None, made.append)
    return made


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_corpus_stopped_at_any_run_goes_on_where_it_stopped_and_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a run or of its writing: what is listed is whole, nothing is made twice."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = _make(_order(whole, 20))
    real, made = corpus.write_npz, []

    def write(path: Path, columns: object) -> None:
        made.append(path.name)
        real(path, columns)
        if len(made) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "write_npz", write)
    with pytest.raises(KeyboardInterrupt):
        _make(_order(broken, 20))
    assert [run.id for run in read_manifest(broken)] == [expected[0].id]
    assert len(list((broken / "runs").iterdir())) == 1
    rest = _make(_order(broken, 20))
    assert [run.id for run in rest] == [run.id for run in expected[1:]]
    assert _bytes(broken) == _bytes(whole)
    assert _make(_order(broken, 20)) == []


def test_more_runs_and_other_architectures_can_be_added_by_any_number_of_processes(tmp_path: Path) -> None:
    order = _order(tmp_path / "steps", 20)
    _make(_order(order.out, 20, only=frozenset({"cnn"})))
    _make(_order(order.out, 12))
    _make(_order(order.out, 20, jobs=2))
    _make(_order(tmp_path / "once", 20))
    assert _bytes(order.out) == _bytes(tmp_path / "once")
    runs = read_manifest(order.out)
    assert [run.id for run in runs] == sorted(run.id for run in runs)
    assert {run.architecture for run in runs} == {"mlp", "cnn"}


def test_two_calls_at_once_lose_nothing(tmp_path: Path) -> None:
    out, others = tmp_path / "both", iter(["mlp"])

    def meanwhile(_: CorpusRun) -> None:
        for name in others:
            _make(_order(out, 20, only=frozenset({name})))

    generate(_order(out, 20, only=frozenset({"cnn"})), lambda *_: None, meanwhile)
    _make(_order(tmp_path / "once", 20))
    assert _bytes(out) == _bytes(tmp_path / "once")


def test_the_manifest_says_what_the_run_was(tmp_path: Path) -> None:
    runs = _make(_order(tmp_path, 20))
    planned = {run.id: run for run in _order(tmp_path, 20).planned()}
    assert {run.id for run in runs} == set(planned)
    for run in runs:
        of = planned[run.id]
        told = run.telemetry()
        assert (run.seed, run.split, run.fault) == (of.seed, of.split, of.fault.name)
        assert run.recipe["fault"] == of.fault.severity()
        assert run.recipe["parameters"] > 1000
        assert len(told["loss"]) == run.steps
        assert run.start == (None if run.fault == "none" else of.fault.start)
        assert json.loads(json.dumps(run.entry(), allow_nan=False)) == run.entry()


@pytest.mark.parametrize(("other", "expected"), [({"seed": 1}, "seed 1"), ({"steps": 61}, "steps 61")])
def test_a_folder_is_never_gone_on_with_under_another_plan(
    tmp_path: Path, other: dict[str, int], expected: str
) -> None:
    _make(_order(tmp_path, 1))
    before = _bytes(tmp_path)
    with pytest.raises(TraceError, match=f"expected a new folder or a corpus with {expected}, found one with"):
        _make(_order(tmp_path, 1, **other))
    assert _bytes(tmp_path) == before
