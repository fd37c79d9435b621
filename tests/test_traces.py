"""Recorded telemetry is read exactly, and a damaged file is refused in one line that tells where."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbw_policy import traces
from lbw_policy.errors import TraceError
from lbw_policy.traces import Trace, read_trace, write_npz

READING = st.none() | st.floats(allow_nan=True, allow_infinity=True)
ROWS = st.lists(st.tuples(READING, READING), min_size=1, max_size=30)


def _write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _refused(path: Path, wanted: tuple[str, ...] = ("loss", "grad_norm")) -> str:
    with pytest.raises(TraceError) as caught:
        read_trace(path, wanted)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path))


def _columns(trace: Trace) -> dict[str, list[str]]:
    return {name: [repr(value) for value in column] for name, column in trace.columns.items()}


def _csv(path: Path, names: tuple[str, ...], rows: list[tuple[float | None, ...]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
    return path


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_every_float_and_every_gap_survives_csv_and_jsonl(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    """What was written is what is read: to the bit, NaN, infinities, negative zero and absent readings too."""
    folder = tmp_path_factory.mktemp("traces")
    lines = "".join(json.dumps(dict(zip(("loss", "grad_norm"), row, strict=True))) + "\n" for row in rows)
    expected = {name: [repr(row[i]) for row in rows] for i, name in enumerate(("loss", "grad_norm"))}

    for path in (_csv(folder / "a.csv", ("loss", "grad_norm"), rows), _write(folder, "a.jsonl", lines)):
        trace = read_trace(path, ("loss", "grad_norm"))
        assert _columns(trace) == expected
        assert (trace.rows, trace.first) == (len(rows), 0)


@pytest.mark.parametrize("kind", ["f2", "f4", ">f8", "i4", "u8", "bool"])
def test_npz_arrays_of_any_plain_number_are_read(tmp_path: Path, kind: str) -> None:
    values = np.array([0, 1, 1, 0]).astype(kind)
    np.savez_compressed(tmp_path / "a.npz", loss=values, tick=np.arange(7, 11), text=np.array(["a", "b"]))

    trace = read_trace(tmp_path / "a.npz", ("loss", "grad_norm"))

    assert list(trace.columns["loss"]) == [0.0, 1.0, 1.0, 0.0]
    assert (trace.first, trace.rows, set(trace.names)) == (7, 4, {"loss", "tick", "text"})


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_every_float_and_every_gap_survives_npz(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    """What was written is what is read, to the bit, absent readings too; equal columns are equal bytes."""
    folder = tmp_path_factory.mktemp("traces")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(("loss", "grad_norm"))}
    for name in ("a.npz", "b.npz"):
        write_npz(folder / name, columns)

    trace = read_trace(folder / "a.npz", ("loss", "grad_norm", "loss.absent"))

    assert _columns(trace) == {name: [repr(value) for value in column] for name, column in columns.items()}
    assert (trace.rows, trace.names) == (len(rows), ("loss", "grad_norm"))
    assert (folder / "a.npz").read_bytes() == (folder / "b.npz").read_bytes()


def test_a_mask_belongs_to_its_column_and_hides_what_stands_there(tmp_path: Path) -> None:
    """Numpy alone writes such a file; a name that only looks like a mask is a column."""
    masks = {"loss.absent": np.array([False, True]), "x.absent": np.ones(2)}
    np.savez(tmp_path / "a.npz", loss=np.array([np.nan, 5.0]), **masks)

    trace = read_trace(tmp_path / "a.npz", ("loss", "x.absent"))

    assert [repr(value) for value in trace.columns["loss"]] == ["nan", "None"]
    assert list(trace.columns["x.absent"]) == [1.0, 1.0]


def test_a_jsonl_key_may_come_late_and_go_early(tmp_path: Path) -> None:
    """A key that a line lacks is an absent reading, also across the portions a long file is read in."""
    lines = [json.dumps({"loss": 1.0} | ({"grad_norm": 2.0} if n in (5_000, 5_001) else {})) for n in range(10_000)]
    trace = read_trace(_write(tmp_path, "a.jsonl", "\n".join(lines)), ("loss", "grad_norm"))

    grads = list(trace.columns["grad_norm"])
    assert [n for n, value in enumerate(grads) if value is not None] == [5_000, 5_001]
    assert len(grads) == trace.rows == 10_000


def test_spellings_of_cells(tmp_path: Path) -> None:
    """Empty and null cells are absent; NaN and inf are readings; blanks around a cell do not matter."""
    text = "\ufefftick, loss ,note\n3,,a\n4,null,\n5, nan ,b\n\n6,-Inf,1e\n7,1e400,c\n8, 0.5 ,d\n"
    trace = read_trace(_write(tmp_path, "A.CSV", text), ("loss",))

    assert [repr(v) for v in trace.columns["loss"]] == ["None", "None", "nan", "-inf", "inf", "0.5"]
    assert (trace.first, trace.names) == (3, ("tick", "loss", "note"))


def test_an_empty_line_of_a_single_column_is_an_absent_reading(tmp_path: Path) -> None:
    trace = read_trace(_write(tmp_path, "a.csv", "loss\n1\n\n3\n"), ("loss",))
    assert list(trace.columns["loss"]) == [1.0, None, 3.0]


def test_an_integer_too_large_for_a_float_is_infinite(tmp_path: Path) -> None:
    text = json.dumps({"loss": 10**400}) + "\n" + json.dumps({"loss": -(10**400)})
    assert list(read_trace(_write(tmp_path, "a.ndjson", text), ("loss",)).columns["loss"]) == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "", ": the trace is empty"),
        ("a.csv", "loss,grad_norm\n", ": the trace is empty"),
        ("a.jsonl", "\n\n", ": the trace is empty"),
        ("a.csv", "loss,grad_norm\n1,2\n3\n", ":3: expected 2 cells as in the first line, found 1"),
        ("a.csv", 'loss,grad_norm\n"1\n",2\n3,2,1\n', ":4: expected 2 cells as in the first line, found 3"),
        ("a.csv", "loss,grad_norm\n1,2\nhigh,3\n", ":3: column `loss`: expected a number, found `high`"),
        (
            "a.csv",
            "loss,x\n1,\n" + "2,\n" * 5000 + "\x1b[2J,\n",
            ":5003: column `loss`: expected a number, found `\ufffd",
        ),
        ("a.csv", "loss,loss\n1,2\n", ":1: expected each column once, found `loss` twice"),
        ("a.csv", "loss\n" + "1" * 200_000, ":2: expected CSV: field larger than field limit"),
        ("a.csv", "loss\n" + "1" * 1_100_000, ":2: expected lines of at most 1_048_576 characters"),
        ("a.csv", b"loss\n\xff\n", ": expected UTF-8 text, found other bytes"),
        ("a.csv", b"\x00\xff" * 5000, ": expected UTF-8 text, found other bytes"),
        ("a.jsonl", '{"loss": 1}\n{"loss": 1\n', ":2: expected a JSON object: expecting ',' delimiter"),
        ("a.jsonl", '{"loss": 1}\n[1, 2]\n', ":2: expected a JSON object with one entry a column, found `[1, 2]`"),
        ("a.jsonl", '{"loss": 1}\n\n{"loss": [1]}\n', ":3: column `loss`: expected a number, found a list"),
        ("a.jsonl", '{"loss": {}}', ":1: column `loss`: expected a number, found an object"),
        ("a.jsonl", '{"loss": "high"}', ":1: column `loss`: expected a number, found `high`"),
        ("a.jsonl", "[" * 100_000, ":1: expected a JSON object: nested too deep"),
        ("a.jsonl", '{"loss": ' + "9" * 5000 + "}", ":1: expected a JSON object: "),
        ("a.txt", "loss\n1\n", ": expected a `.csv`, `.jsonl` or `.npz` file, found `a.txt`"),
        ("a", "loss\n1\n", ": expected a `.csv`, `.jsonl` or `.npz` file, found `a`"),
        ("a.csv", "tick,loss\n0,1\n2,1\n", ": row 2: expected tick 1, found 2: a replay needs a row for every tick"),
        ("a.csv", "tick,loss\n3,1\n3,1\n", ": row 2: expected ticks to increase, found 3 after 3"),
        ("a.csv", "tick,loss\n3,1\n2,1\n", ": row 2: expected ticks to increase, found 2 after 3"),
        ("a.csv", "tick,loss\n,1\n", ": row 1: expected `tick` to be a whole number from 0, found none"),
        ("a.csv", "tick,loss\n0.5,1\n", ": row 1: expected `tick` to be a whole number from 0, found `0.5`"),
        ("a.csv", "tick,loss\n-1,1\n", ": row 1: expected `tick` to be a whole number from 0, found `-1`"),
        ("a.csv", "tick,loss\nnan,1\n", ": row 1: expected `tick` to be a whole number from 0, found `nan`"),
        ("a.csv", "tick,loss\n1e300,1\n", ": row 1: expected `tick` to be a whole number from 0, found `1e+300`"),
        ("a.npz", "", ": expected an NPZ file: file is not a zip file"),
        ("a.npz", "not a zip", ": expected an NPZ file: file is not a zip file"),
    ],
)
def test_a_damaged_trace_is_refused_with_its_place(tmp_path: Path, name: str, text: str | bytes, expected: str) -> None:
    assert _refused(_write(tmp_path, name, text)).startswith(expected)


def test_text_in_a_column_that_nobody_asked_for_does_no_harm(tmp_path: Path) -> None:
    trace = read_trace(_write(tmp_path, "a.csv", "when,loss\nnoon,1\n"), ("loss",))
    assert list(trace.columns) == ["loss"]


def _archive(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _lying() -> bytes:
    """An array whose header promises far more numbers than follow."""
    file = io.BytesIO()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("loss.npy", header.getvalue() + b"\0" * 64)
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: _archive(loss=np.array([{}, 1.0], dtype=object)), ": expected an NPZ file: object arrays"),
        (lambda: _archive(loss=np.ones((2, 3))), ": column `loss`: expected one row of numbers, found 2x3 `float64`"),
        (lambda: _archive(loss=np.array(3.0)), ": column `loss`: expected one row of numbers, found no `float64`"),
        (lambda: _archive(loss=np.array([1j])), ": column `loss`: expected one row of numbers, found 1 `complex128`"),
        (lambda: _archive(loss=np.array(["1"])), ": column `loss`: expected one row of numbers, found 1 `<U1`"),
        (
            lambda: _archive(loss=np.ones(2), grad_norm=np.ones(3)),
            ": expected columns of one length, found that `loss`",
        ),
        (lambda: _archive(loss=np.ones(0)), ": the trace is empty"),
        (
            lambda: _archive(loss=np.ones(2), **{"loss.absent": np.zeros(2)}),
            ": column `loss.absent`: expected 2 `bool`, found 2 `float64`",
        ),
        (
            lambda: _archive(loss=np.ones(2), **{"loss.absent": np.zeros(3, bool)}),
            ": column `loss.absent`: expected 2 `bool`, found 3 `bool`",
        ),
        (_lying, ": expected an NPZ file: "),
    ],
)
def test_an_npz_that_holds_something_else_is_refused(tmp_path: Path, make: Callable[[], bytes], expected: str) -> None:
    assert _refused(_write(tmp_path, "a.npz", make())).startswith(expected)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_npz_cut_or_bent_anywhere_never_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A cut or changed archive is read or refused, never anything else."""
    whole = bytearray(_archive(loss=np.linspace(0, 1, 200)))
    end = data.draw(st.integers(0, len(whole)))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        whole[place] ^= data.draw(st.integers(1, 255))
    path = _write(tmp_path_factory.mktemp("npz"), "a.npz", bytes(whole[:end] if data.draw(st.booleans()) else whole))

    with contextlib.suppress(TraceError):
        assert set(read_trace(path, ("loss",)).columns) <= {"loss"}


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([".csv", ".jsonl", ".npz"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes, ending: str) -> None:
    path = _write(tmp_path_factory.mktemp("any"), f"a{ending}", raw)
    with contextlib.suppress(TraceError):
        assert read_trace(path, ("loss",)).rows


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_more_rows_than_the_most_are_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_ROWS", 5)
    row, head = ("1\n", "loss\n") if name.endswith("csv") else ('{"loss": 1}\n', "")

    assert read_trace(_write(tmp_path, name, head + row * 5), ("loss",)).rows == 5
    assert _refused(_write(tmp_path, name, head + row * 7)) == ": expected at most 5 rows, found more"


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert _refused(tmp_path / "none.csv") == ": cannot be read: no such file or directory"
    assert _refused(tmp_path / "folder.csv") == ": cannot be read: is a directory"
    assert _refused(tmp_path / "folder.npz") == ": cannot be read: no such file or directory"


def test_text_traces_are_read_without_numpy(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.csv", "loss\n1\n")
    code = (
        "import sys, pathlib; from lbw_policy.traces import read_trace; "
        f"read_trace(pathlib.Path({str(path)!r}), ('loss',)); print('numpy' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
