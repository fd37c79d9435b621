"""A corpus is read as it was written, and a damaged one is refused in one line that tells where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbw_policy.corpora import MANIFEST, CorpusRun, read_manifest
from lbw_policy.errors import TraceError
from lbw_policy.traces import write_npz

ENTRY: dict[str, Any] = {
    "format": 1,
    "id": "0007-gpt-adamw-fp32-nan_batch",
    "file": "runs/0007-gpt-adamw-fp32-nan_batch.npz",
    "architecture": "gpt",
    "optimizer": "adamw",
    "precision": "fp32",
    "fault": "nan_batch",
    "group": "data",
    "split": "train",
    "seed": 7,
    "steps": 4,
    "start": 2,
    "diverged": True,
    "diverged_at": 3,
    "healed": False,
    "recipe": {"rate": 0.003},
    "version": "0.1.0",
}


def _corpus(folder: Path, *entries: object) -> Path:
    (folder / "runs").mkdir(exist_ok=True)
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (folder / MANIFEST).write_text("".join(line + "\n" for line in lines))
    return folder


def _refused(folder: Path) -> str:
    with pytest.raises(TraceError) as caught:
        read_manifest(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix(str(folder / MANIFEST))


def test_a_run_is_read_with_its_telemetry(tmp_path: Path) -> None:
    loss, ratio = [4.0, 3.5, 3.0, float("inf")], [None, 0.1, 0.2, 0.3]
    (run,) = read_manifest(_corpus(tmp_path, ENTRY))
    write_npz(tmp_path / run.file, {"loss": loss, "update_ratio": ratio, "no_signal": loss})

    assert run.telemetry() == {"loss": loss, "update_ratio": ratio}
    assert (run.fault, run.start, run.diverged_at, run.lead) == ("nan_batch", 2, 3, 1)
    assert run.entry() == ENTRY


def test_a_clean_run_has_no_start_and_no_lead(tmp_path: Path) -> None:
    clean = ENTRY | {"fault": "none", "group": "benign", "start": None, "diverged": False, "diverged_at": None}
    (run,) = read_manifest(_corpus(tmp_path, clean))
    assert run.lead is None
    assert run.start is None


def test_a_later_field_does_no_harm(tmp_path: Path) -> None:
    assert read_manifest(_corpus(tmp_path, ENTRY | {"note": [1]}))[0] == CorpusRun(
        tmp_path, **{name: value for name, value in ENTRY.items() if name != "format"}
    )


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{", ":1: expected a JSON object, found other text"),
        ("[" * 100_000, ":1: expected a JSON object, found other text"),
        ("[1]", ":1: expected a run in format 1, found `none`"),
        (ENTRY | {"format": 2}, ":1: expected a run in format 1, found `2`"),
        ({k: v for k, v in ENTRY.items() if k != "seed"}, ":1: expected `seed` to be a whole number, found nothing"),
        (ENTRY | {"seed": True}, ":1: expected `seed` to be a whole number, found true"),
        (ENTRY | {"start": 2.5}, ":1: expected `start` to be a whole number or null, found 2.5"),
        (ENTRY | {"diverged": 1}, ":1: expected `diverged` to be true or false, found 1"),
        (ENTRY | {"recipe": None}, ":1: expected `recipe` to be an object, found null"),
        (ENTRY | {"start": 4}, ":1: expected `start` to be a step from 0 to 3, found 4"),
        (ENTRY | {"diverged_at": None}, ":1: expected `diverged_at` to be a step exactly where `diverged` is true"),
        (ENTRY | {"file": "/etc/passwd"}, ":1: expected `file` to lie in the corpus, found `/etc/passwd`"),
        (ENTRY | {"file": "runs/../../a.npz"}, ":1: expected `file` to lie in the corpus"),
    ],
)
def test_a_damaged_manifest_is_refused_with_its_line(tmp_path: Path, entry: object, expected: str) -> None:
    assert _refused(_corpus(tmp_path, entry)).startswith(expected)


def test_an_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    assert _refused(_corpus(tmp_path, ENTRY, ENTRY)) == f":2: expected each `id` once, found `{ENTRY['id']}` twice"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_corpus_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / MANIFEST).write_bytes(raw)
    try:
        assert read_manifest(folder) == []
    except TraceError as error:
        assert str(folder / MANIFEST) in str(error)  # noqa: PT017 - both ways are right


def test_what_is_not_there_or_not_as_long_as_promised_is_told(tmp_path: Path) -> None:
    assert _refused(tmp_path) == ": cannot be read: no such file or directory"
    (run,) = read_manifest(_corpus(tmp_path, ENTRY))
    with pytest.raises(TraceError, match="cannot be read: no such file"):
        run.telemetry()
    write_npz(tmp_path / run.file, {"loss": [1.0]})
    with pytest.raises(TraceError, match="expected 4 steps as in the manifest, found 1"):
        run.telemetry()
