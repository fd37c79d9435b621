from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from lbw_policy.corpora import MANIFEST
from lbw_policy.errors import TuneError
from lbw_policy.traces import Trace
from lbw_policy.tuning.runs import BEFORE, Run, Trouble, Wanted, check_runs, composition, part, read_runs
from tests.evaluation.small_corpus import LEAD, START, STEPS, write_corpus

WANTED = Wanted(("update_ratio",))
CALM = [2.0 + 0.01 * (row % 7) for row in range(300)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def _trace(folder: Path, name: str, losses: Sequence[float | None]) -> str:
    rows = "".join(f"{'' if loss is None else loss},0.001\n" for loss in losses)
    path = folder / name
    path.write_text("loss,update_ratio\n" + rows, encoding="utf-8")
    return str(path)


def test_a_corpus_says_what_its_runs_are(corpus: Path) -> None:
    """Benign runs are healthy throughout, others until their fault; what diverged is in trouble from the fault on."""
    runs = {run.name: run for run in read_runs([str(corpus)], evolve(WANTED, late=3))}
    healthy, lost, survived = runs["mlp-benign-6"], runs["mlp-lr-0"], runs["mlp-lr-1"]
    assert (healthy.healthy, healthy.trouble, healthy.rows) == (STEPS, None, STEPS)
    assert (lost.healthy, lost.trouble) == (START, Trouble(START, START + LEAD, START + LEAD + 3))
    assert lost.rows == START + LEAD + 4
    assert (survived.healthy, survived.trouble, survived.rows) == (START, None, START)
    assert composition(list(runs.values())) == {"healthy": 12, "diverged": 9, "survived": 9}


def test_a_trace_without_a_manifest_is_judged_by_its_loss(tmp_path: Path) -> None:
    """It is healthy, unless its loss leaves for good: then it is in trouble for 100 rows before, and healthy before."""
    calm = _trace(tmp_path, "calm.csv", CALM)
    lost = _trace(tmp_path, "lost.csv", [*CALM[:250], *([9.0] * 50)])
    gaps = _trace(tmp_path, "gaps.csv", [*CALM[:100], None, None, *CALM[:100], float("nan"), *CALM])
    late = _trace(tmp_path, "late.csv", [*CALM[:250], *([9.0] * 10)])
    found = read_runs([calm, lost, gaps, late], WANTED)
    assert [run.healthy for run in found] == [300, 250 - BEFORE, 202 - BEFORE, 250 - BEFORE]
    assert [run.trouble for run in found] == [
        None, Trouble(250 - BEFORE, 250, 255), Trouble(202 - BEFORE, 202, 207), None,
    ]  # fmt: skip


def test_runs_named_healthy_are_whatever_became_of_them(corpus: Path, tmp_path: Path) -> None:
    """A glob fits the id, the path, or the file's name; such a trace needs no loss."""
    mute = tmp_path / "mute.csv"
    mute.write_text("update_ratio\n0.001\n", encoding="utf-8")
    found = read_runs([str(corpus), str(mute)], evolve(WANTED, healthy=("mlp-lr-?", "mute*")))
    runs = {run.name: run for run in found}
    assert runs["mlp-lr-0"].trouble is None
    assert runs["mlp-lr-0"].healthy == STEPS
    assert runs[str(mute)].healthy == 1
    assert runs["gpt-lr-10"].trouble is not None


def test_ignored_runs_are_left_out(corpus: Path, tmp_path: Path) -> None:
    """All that a glob fits, and no others; they are not even read."""
    (tmp_path / "gpt.npz").write_bytes(b"torn")
    found = read_runs([str(corpus), str(tmp_path)], evolve(WANTED, ignored=("*-benign-*", "gpt*")))
    assert sorted({run.name.split("-")[0] for run in found}) == ["cnn", "mlp"]
    assert composition(found) == {"diverged": 6, "survived": 6}


def test_words_stand_for_traces_folders_and_globs_each_once(tmp_path: Path) -> None:
    """A folder stands for every trace in it, however deep; a run that several words name is there once."""
    (tmp_path / "deep").mkdir()
    names = [_trace(tmp_path, "a.csv", CALM), _trace(tmp_path / "deep", "b.csv", CALM)]
    (tmp_path / "notes.txt").write_text("no trace")
    found = read_runs([str(tmp_path), str(tmp_path / "*.csv"), names[1]], WANTED)
    assert [run.name for run in found] == names


def test_everything_that_cannot_be_read_is_told_at_once(corpus: Path, tmp_path: Path) -> None:
    """A missing file, an empty folder, a damaged trace, a damaged manifest, a glob of nothing: a line for each."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / MANIFEST).write_text(json.dumps({"format": 1}) + "\n", encoding="utf-8")
    (tmp_path / "torn.npz").write_bytes(b"PK")
    mute = tmp_path / "mute.csv"
    mute.write_text("update_ratio\n0.001\n", encoding="utf-8")
    words = [
        "none",
        str(tmp_path / "empty"),
        str(tmp_path / "torn.npz"),
        str(tmp_path / "bad"),
        "*.nothing",
        str(mute),
        "",
    ]
    with pytest.raises(TuneError) as caught:
        read_runs([*words, str(corpus)], WANTED)
    said = [line.removeprefix(str(tmp_path)) for line in str(caught.value).splitlines()]
    assert said[0] == "none: no such file or folder"
    assert said[1] == "/empty: the folder has no `.csv`, `.jsonl`, `.ndjson`, `.npz` file"
    assert said[2].startswith("/torn.npz: expected an NPZ file")
    assert said[3].startswith(f"/bad/{MANIFEST}:1: expected `id`")
    assert said[4] == "*.nothing: the glob has no `.csv`, `.jsonl`, `.ndjson`, `.npz` file"
    assert said[5].startswith("/mute.csv: expected a column `loss`")
    assert said[6] == "expected a path, found an empty word"


@pytest.mark.parametrize("option", ["healthy", "ignored"])
def test_a_glob_that_fits_no_run_is_told(corpus: Path, option: str) -> None:
    with pytest.raises(TuneError, match=r"the glob `nightly\*` matches none of the runs"):
        read_runs([str(corpus)], evolve(WANTED, **{option: ("nightly*",)}))


def _run(name: str, *, troubled: bool, kind: str) -> Run:
    return Run(name, Trace(Path(name), (), {}, 10), 5, Trouble(5, 6, 7) if troubled else None, kind)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=2, max_size=60),
    st.floats(0, 0.9), st.integers(0, 99), st.randoms(use_true_random=False),
)  # fmt: skip
def test_runs_are_held_out_evenly_and_always_alike(
    kinds: list[tuple[bool, str]], share: float, seed: int, dice: Random
) -> None:
    """Every run is in one part; of each sort the share is held out, to one run; order does not matter."""
    runs = [_run(str(number), troubled=troubled, kind=kind) for number, (troubled, kind) in enumerate(kinds)]
    parts = part(runs, share, seed)
    held = {run.name for run in parts.held_out}
    assert {run.name for run in parts.chosen_on} == {run.name for run in runs} - held
    for troubled in (True, False):
        those = [run.name for run in runs if (run.trouble is not None) is troubled]
        assert abs(len(held & set(those)) - share * len(those)) <= 1
        assert not those or not set(those) <= held
    shuffled = list(runs)
    dice.shuffle(shuffled)
    assert {run.name for run in part(shuffled, share, seed).held_out} == held


@pytest.mark.parametrize(
    ("runs", "said"),
    [([], "expected runs with healthy steps"),
     ([evolve(_run("a", troubled=True, kind=""), healthy=0)], "found none among 1 run;"),
     ([_run("a", troubled=False, kind=""), _run("b", troubled=False, kind="")], "none among 2 runs: there is")],
)  # fmt: skip
def test_runs_that_cannot_tell_good_from_bad_are_refused(runs: list[Run], said: str) -> None:
    with pytest.raises(TuneError, match=said):
        check_runs(runs)
