"""Reads policy files: bytes that must be UTF-8 text of a bounded length."""

from __future__ import annotations

from pathlib import Path

from lbw_policy.diagnostics import Diagnostic, Source
from lbw_policy.syntax import MAX_CHARACTERS

MOST_BYTES = 4 * MAX_CHARACTERS + 3
"""No text that may be checked is longer: four bytes a character at most, and a byte order mark."""


def read(path: Path, name: str) -> Source | Diagnostic:
    """Return the text of a file under a name, or why it cannot be had."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        return Diagnostic("LBW001", f"cannot read the file: {reason}", Source(name, ""))
    except ValueError:  # a null byte in the name
        return Diagnostic("LBW001", "cannot read the file: not a path", Source(repr(path), ""))
    return decode(name, raw)


def decode(name: str, raw: bytes) -> Source | Diagnostic:
    """Return bytes as text, which must be UTF-8, with or without a byte order mark; or why they are none."""
    if len(raw) > MOST_BYTES:
        message = f"expected a policy of at most {MAX_CHARACTERS:_} characters, found a longer file"
        return Diagnostic("LBW003", message, Source(name, ""), help="check that this is the right file")
    try:
        return Source(name, raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"expected UTF-8 text, found byte 0x{raw[error.start]:02X} on line {line}"
        advice = "this looks like a binary file, or a text in another encoding"
        return Diagnostic("LBW002", message, Source(name, ""), help=advice)


def exists(path: Path) -> bool:
    """Tell whether a file or folder exists and can be looked at; no name is too odd to ask about."""
    try:
        return path.exists()
    except (OSError, ValueError):  # no right to look, a name too long, a null byte
        return False
