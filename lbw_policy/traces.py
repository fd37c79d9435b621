"""Recorded telemetry: CSV, JSON Lines or NPZ with named columns, one row a tick."""

from __future__ import annotations

import csv
import json
import math
import zipfile
import zlib
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from attrs import define, field, frozen

from lbw_policy.diagnostics import printable
from lbw_policy.errors import TraceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TICK = "tick"
"""The column that counts ticks, if there is one."""
ABSENT = ".absent"
"""In an NPZ, the member `NAME.absent` marks with booleans the ticks at which the column `NAME` has no reading."""
MOST_ROWS = 10_000_000
MOST_CHARACTERS = 1_048_576
"""No line of a text trace may be longer."""
_ROWS_AT_ONCE = 4096
_LAST_TICK = 2**53
_MOST_BYTES = 16 * MOST_ROWS + MOST_CHARACTERS
_NOTHING = frozenset({"", "null"})
_GAPS = frozenset({"", None})
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError, MemoryError)
"""What reading a damaged NPZ raises; RuntimeError where it is encrypted."""

Row = TypeVar("Row")


@define(eq=False)
class Column:
    """The readings of one name, in order; iterating gives a float for each tick, None where there is none."""

    values: array[float] = field(factory=lambda: array("d"))
    absent: bytearray = field(factory=bytearray)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[float | None]:
        if not any(self.absent):
            return iter(self.values)
        return (None if gone else value for value, gone in zip(self.values, self.absent, strict=True))

    def pad(self, rows: int) -> None:
        """Append absent readings up to the given length."""
        missing = rows - len(self.values)
        self.values.extend([math.nan] * missing)
        self.absent += b"\1" * missing


@frozen
class Trace:
    """Recorded telemetry: `rows` ticks in a row from tick `first` on.

    `names` are all columns that the file has, `columns` those that were asked for and are there.
    """

    path: Path
    names: tuple[str, ...]
    columns: Mapping[str, Column]
    rows: int
    first: int = 0


def read_trace(path: Path, wanted: Collection[str]) -> Trace:
    """Return the wanted columns of a trace that has them; raises TraceError, telling where, if it is damaged.

    The extension tells the format: `.csv`, `.jsonl` (or `.ndjson`), `.npz`. Other columns are not looked at.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise TraceError(_at(path, f"expected a `.csv`, `.jsonl` or `.npz` file, found {_say(path.name)}"))
    table = _Table(path, frozenset(wanted) | {TICK})
    try:
        read(table)
    except OSError as error:
        raise TraceError(_at(path, f"cannot be read: {(error.strerror or str(error)).lower()}")) from error
    except UnicodeDecodeError as error:
        raise TraceError(_at(path, "expected UTF-8 text, found other bytes")) from error
    if not table.rows:
        raise TraceError(_at(path, "the trace is empty"))
    first = _first_tick(path, table.columns.get(TICK))
    columns = {name: column for name, column in table.columns.items() if name in wanted}
    return Trace(path, tuple(table.names), columns, table.rows, first)


def write_npz(path: Path, columns: Mapping[str, Sequence[float | None]]) -> None:
    """Write columns as an NPZ that `read_trace` reads back to the bit; the same columns give the same bytes.

    A column that has absent readings (None) gets a mask, the boolean member `NAME.absent`.
    Raises OSError where the file cannot be written.
    """
    import numpy as np

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, readings in columns.items():
            # float64 turns None into NaN.
            _add_array(archive, name, np.array(readings, dtype=np.float64))
            absent = np.array([reading is None for reading in readings], dtype=np.bool_)
            if absent.any():
                _add_array(archive, name + ABSENT, absent)


def _add_array(archive: zipfile.ZipFile, name: str, values: NDArray[Any]) -> None:
    import numpy as np

    # A member opened by its name has no time in it, so that equal columns give equal bytes.
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, values, allow_pickle=False)


@define
class _Table:
    """A trace while it is read; every column is padded to the same length."""

    path: Path
    wanted: frozenset[str]
    names: dict[str, None] = field(factory=dict)
    columns: dict[str, Column] = field(factory=dict)
    rows: int = 0

    def add(self, lines: Sequence[int], portion: Mapping[str, Sequence[object]]) -> None:
        """Append as many rows as there are line numbers."""
        for name, cells in portion.items():
            column = self.columns.setdefault(name, Column())
            column.pad(self.rows)
            self._extend(column, name, cells, lines)
        self.rows += len(lines)
        for column in self.columns.values():
            column.pad(self.rows)

    def _extend(self, column: Column, name: str, cells: Sequence[object], lines: Sequence[int]) -> None:
        """Append cells: whole at once where all are numbers, or nothing at all, else one by one."""
        for whole in (_all_numbers, _numbers_and_gaps):
            try:
                values, absent = whole(cells)
            except (TypeError, ValueError, OverflowError):
                continue
            column.values.extend(values)
            column.absent += absent
            return
        for cell, line in zip(cells, lines, strict=True):
            value = _number(cell)
            if isinstance(value, str):
                raise self.refuse(f"column {_say(name)}: expected a number, found {value}", line)
            column.values.append(math.nan if value is None else value)
            column.absent.append(value is None)

    def refuse(self, message: str, line: int | None = None) -> TraceError:
        """Return the error that tells what is wrong, and where."""
        return TraceError(_at(self.path, message, line))


def _at(path: Path, message: str, line: int | None = None) -> str:
    place = printable(str(path)) + (f":{line}" if line else "")
    return f"{place}: {message}"


def _say(value: object) -> str:
    shown = printable(f"{value:g}" if isinstance(value, float) else str(value))
    return f"`{shown if len(shown) <= 60 else shown[:57] + '...'}`"


def _all_numbers(cells: Sequence[Any]) -> tuple[array[float], bytes]:
    return array("d", map(float, cells)), bytes(len(cells))


def _numbers_and_gaps(cells: Sequence[Any]) -> tuple[array[float], bytes]:
    values = array("d", [math.nan if cell in _GAPS else float(cell) for cell in cells])
    return values, bytes(cell in _GAPS for cell in cells)


def _number(cell: object) -> float | str | None:
    """Return a cell's number, None where it has none, or a word for what stands there instead."""
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in _NOTHING):
        return None
    if isinstance(cell, str | int | float):
        try:
            return float(cell)
        except ValueError:
            return _say(cell)
        except OverflowError:
            return math.inf if isinstance(cell, int) and cell > 0 else -math.inf
    return "a list" if isinstance(cell, list) else "an object"


# Ticks


def _first_tick(path: Path, ticks: Column | None) -> int:
    before: float | None = None
    for row, tick in enumerate(ticks or (), 1):
        if tick is None or not tick.is_integer() or not 0 <= tick < _LAST_TICK:
            found = "none" if tick is None else _say(tick)
            raise TraceError(_at(path, f"row {row}: expected `{TICK}` to be a whole number from 0, found {found}"))
        if before is not None and tick != before + 1:
            raise TraceError(_at(path, f"row {row}: {_leap(before, tick)}"))
        before = tick
    return int(ticks.values[0]) if ticks else 0


def _leap(before: float, tick: float) -> str:
    if tick <= before:
        return f"expected ticks to increase, found {tick:.0f} after {before:.0f}"
    gap = "a replay needs a row for every tick, if need be an empty one"
    return f"expected tick {before + 1:.0f}, found {tick:.0f}: {gap}"


# Text


def _lines(table: _Table, file: TextIO) -> Iterator[str]:
    """Yield the lines; one of any length is never read whole."""
    for number in range(1, MOST_ROWS + 2):
        line = file.readline(MOST_CHARACTERS + 1)
        if not line:
            return
        if len(line) > MOST_CHARACTERS:
            raise table.refuse(f"expected lines of at most {MOST_CHARACTERS:_} characters, found a longer one", number)
        yield line
    if file.readline(1):
        raise table.refuse(f"expected at most {MOST_ROWS:_} rows, found more")


def _read_csv(table: _Table) -> None:
    with table.path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(_lines(table, file))
        try:
            names = [name.strip() for name in next(rows, ())]
            chosen = _choose(table, names)
            for lines, portion in _portions(_csv_rows(table, rows, len(names))):
                cells = list(zip(*portion, strict=True))
                table.add(lines, {name: cells[index] for name, index in chosen.items()})
        except csv.Error as error:
            raise table.refuse(f"expected CSV: {error}", rows.line_num) from error


def _choose(table: _Table, names: Sequence[str]) -> dict[str, int]:
    """Return the places of the wanted columns."""
    table.names = dict.fromkeys(name for name in names if name)
    twice = sorted(name for name in table.names if name in table.wanted and names.count(name) > 1)
    if twice:
        raise table.refuse(f"expected each column once, found {_say(twice[0])} twice", 1)
    return {name: index for index, name in enumerate(names) if name in table.wanted}


def _csv_rows(table: _Table, rows: Iterator[list[str]], width: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows with their lines; empty lines are skipped unless there is but one column."""
    for row in rows:
        line: int = rows.line_num  # type: ignore[attr-defined]  # a CSV reader
        if not row and width == 1:
            row = [""]  # noqa: PLW2901 - one absent cell
        if len(row) == width:
            yield line, row
        elif row:
            raise table.refuse(f"expected {width} cells as in the first line, found {len(row)}", line)


def _read_jsonl(table: _Table) -> None:
    with table.path.open(encoding="utf-8-sig") as file:
        numbered = enumerate(_lines(table, file), 1)
        rows = ((line, _json_row(table, text, line)) for line, text in numbered if not text.isspace())
        for lines, portion in _portions(rows):
            for row in portion:
                table.names.update(dict.fromkeys(row))
            chosen = [name for name in table.names if name in table.wanted]
            table.add(lines, {name: [row.get(name) for row in portion] for name in chosen})


def _json_row(table: _Table, text: str, line: int) -> dict[str, object]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = (
            error.msg.lower() if isinstance(error, json.JSONDecodeError) else "nested too deep, or a number too long"
        )
        raise table.refuse(f"expected a JSON object: {reason}", line) from error
    if not isinstance(row, dict):
        raise table.refuse(f"expected a JSON object with one entry a column, found {_say(text.strip())}", line)
    return row


def _portions(rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[list[int], list[Row]]]:
    """Yield line numbers and rows, some thousand at a time."""
    rows = iter(rows)
    while portion := list(islice(rows, _ROWS_AT_ONCE)):
        lines, found = zip(*portion, strict=True)
        yield list(lines), list(found)


# NPZ


def _read_npz(table: _Table) -> None:
    try:
        with zipfile.ZipFile(table.path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
            table.names = dict.fromkeys(name for name in members if not _is_mask(name, members))
            for name in sorted(table.wanted & table.names.keys()):
                table.columns[name] = _column(table, archive, name, members)
    except _DAMAGE as error:
        if isinstance(error, TraceError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise table.refuse(f"expected an NPZ file: {reason[:1].lower() + reason[1:]}") from error
    lengths = {name: len(column) for name, column in table.columns.items()}
    _check_lengths(table, lengths)
    # Where no column is one that was asked for, the caller says so: the trace is not empty.
    table.rows = max(lengths.values(), default=min(len(table.names), 1))


def _is_mask(name: str, members: Collection[str]) -> bool:
    return name.endswith(ABSENT) and name.removesuffix(ABSENT) in members


def _column(table: _Table, archive: zipfile.ZipFile, name: str, members: Mapping[str, str]) -> Column:
    import numpy as np

    values = _array(table, archive, name, members[name])
    with np.errstate(all="ignore"):
        floats = array("d", values.astype(np.float64).tobytes())
    if name + ABSENT not in members:
        return Column(floats, bytearray(len(floats)))
    absent = _array(table, archive, name + ABSENT, members[name + ABSENT])
    if absent.dtype.kind != "b" or len(absent) != len(floats):
        found = f"{len(absent)} `{absent.dtype}`"
        raise table.refuse(f"column {_say(name + ABSENT)}: expected {len(floats)} `bool`, found {found}")
    return Column(floats, bytearray(absent.tobytes()))


def _array(table: _Table, archive: zipfile.ZipFile, name: str, member: str) -> NDArray[Any]:
    import numpy as np

    if archive.getinfo(member).file_size > _MOST_BYTES:
        raise table.refuse(f"column {_say(name)}: expected at most {MOST_ROWS:_} rows, found more")
    with archive.open(member) as file:
        # INVARIANT: no pickle is ever loaded; an array of objects raises ValueError here.
        found: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    if found.ndim != 1 or found.dtype.kind not in "fiub":
        shape = "x".join(map(str, found.shape)) or "no"
        raise table.refuse(f"column {_say(name)}: expected one row of numbers, found {shape} `{found.dtype}`")
    return found


def _check_lengths(table: _Table, lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        found = f"{_say(short)} has {lengths[short]} and {_say(long)} {lengths[long]}"
        raise table.refuse(f"expected columns of one length, found that {found}")


_READERS: Mapping[str, Callable[[_Table], None]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".npz": _read_npz,
}
SUFFIXES = tuple(_READERS)
"""The extensions of files that may hold a trace."""
