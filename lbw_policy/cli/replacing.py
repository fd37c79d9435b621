"""Puts new content in the place of a file at once, so that it is never half written; shows what would change."""

from __future__ import annotations

import codecs
import difflib
import io
import os
import shutil
import tempfile
from pathlib import Path

from lbw_policy.diagnostics import printable


def replace(path: Path, content: bytes) -> None:
    """Put the content in the place of the file's at once, with the file's mode and byte order mark; raises OSError."""
    with path.open("rb") as file:
        mark = codecs.BOM_UTF8 if file.read(3) == codecs.BOM_UTF8 else b""
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(mark + content)
        shutil.copymode(path, name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def difference(name: str, before: str, after: str, became: tuple[str, str]) -> str:
    """Return two texts of a file as a unified diff; `became` names them."""
    old, new = (io.StringIO(text, newline="\n").readlines() for text in (before, after))
    shown = printable(name)
    lines = difflib.unified_diff(old, new, f"{shown} ({became[0]})", f"{shown} ({became[1]})")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
