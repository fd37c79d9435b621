"""Findings about a policy text: where, how bad, what was expected, what helps."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable
from typing import Any

from attrs import frozen


class Severity(enum.Enum):
    """How much a finding matters: only an error keeps a policy from loading."""

    ERROR = "error"
    WARNING = "warning"


@frozen
class Span:
    """A half-open range of characters `[start, end)` in a source text."""

    start: int
    end: int

    def join(self, other: Span) -> Span:
        """Return the smallest span that covers both."""
        return Span(min(self.start, other.start), max(self.end, other.end))


@frozen
class Source:
    """A policy text with the name it is reported under."""

    name: str
    text: str

    def position(self, offset: int) -> tuple[int, int]:
        """Return the 1-based line and column of a character offset."""
        before = self.text[:offset]
        return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1

    def line(self, number: int) -> str:
        """Return the text of a 1-based line, without its end."""
        lines = self.text.split("\n", number)
        return lines[number - 1].rstrip("\r") if number <= len(lines) else ""


@frozen
class Diagnostic:
    """One finding: a stable code, a message, its place, and how to help."""

    code: str
    message: str
    source: Source
    span: Span | None = None
    help: str | None = None
    severity: Severity = Severity.ERROR

    def sort_key(self) -> tuple[int, int, str, str]:
        """Order findings by place, then code, so that output is the same on every run."""
        span = self.span or Span(-1, -1)
        return (span.start, span.end, self.code, self.message)


def render(diagnostic: Diagnostic) -> str:
    """Return the finding as text: `path:line:column: error[CODE]: message`, source line, carets, help."""
    head = f"{diagnostic.severity.value}[{diagnostic.code}]: {diagnostic.message}"
    if diagnostic.span is None:
        lines = [f"{diagnostic.source.name}: {head}"]
    else:
        line, column = diagnostic.source.position(diagnostic.span.start)
        lines = [f"{diagnostic.source.name}:{line}:{column}: {head}"]
        lines += _excerpt(diagnostic.source, diagnostic.span, line, column)
    if diagnostic.help:
        lines.append(f"help: {diagnostic.help}")
    return "\n".join(lines)


_WIDTH = 120


def _excerpt(source: Source, span: Span, line: int, column: int) -> list[str]:
    text = source.line(line)
    shown, shift = _cut(text, column)
    width = max(1, min(span.end - span.start, len(text) - column + 1, _WIDTH))
    pad = "".join("\t" if char == "\t" else " " for char in shown[: column - 1 - shift])
    gutter = f"{line:>5} | "
    return [gutter + shown, " " * (len(gutter) - 2) + "| " + pad + "^" * width]


def _cut(text: str, column: int) -> tuple[str, int]:
    """Return at most `_WIDTH` characters around the column, and how many were dropped on the left."""
    printable = "".join(char if char.isprintable() or char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
    if len(printable) <= _WIDTH:
        return printable, 0
    left = max(0, column - 1 - _WIDTH // 2)
    return printable[left : left + _WIDTH], left


def as_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """Return the finding as plain data with 1-based positions (`null` where it concerns a whole file)."""
    start = end = (None, None)
    if diagnostic.span is not None:
        start = diagnostic.source.position(diagnostic.span.start)  # type: ignore[assignment]
        end = diagnostic.source.position(diagnostic.span.end)  # type: ignore[assignment]
    return {
        "path": diagnostic.source.name,
        "line": start[0],
        "column": start[1],
        "end_line": end[0],
        "end_column": end[1],
        "severity": diagnostic.severity.value,
        "code": diagnostic.code,
        "message": diagnostic.message,
        "help": diagnostic.help,
    }


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice a misspelt word most likely meant, or None where nothing is close."""
    matches = difflib.get_close_matches(word.lower(), sorted(choices), n=1, cutoff=0.72)
    return matches[0] if matches else None
