"""Puts new content in the place of a file at once, so that it is never half written."""

from __future__ import annotations

import codecs
import os
import shutil
import tempfile
from pathlib import Path


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
