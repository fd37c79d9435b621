"""Findings about a policy text: where, how bad, what was expected, what helps."""

from __future__ import annotations

import difflib
import enum
import functools
import itertools
import operator
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from attrs import evolve, field, frozen


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
    """A policy text with the name it is reported under.

    A policy with imports is one text of several files: `parts` has where each begins, the policy's
    own file first. Lines and columns are those of the file an offset lies in.
    """

    name: str
    text: str
    parts: tuple[tuple[int, Source], ...] = field(default=(), repr=False)

    @classmethod
    def joined(cls, sources: Sequence[Source]) -> Source:
        """Return several files as one text; each begins one character after the end of the one before it."""
        if len(sources) == 1:
            return sources[0]
        # No file may hold a null character, so the joined text tells where its files meet.
        starts = itertools.accumulate((len(source.text) + 1 for source in sources), initial=0)
        text = "\0".join(source.text for source in sources)
        return cls(sources[0].name, text, tuple(zip(starts, sources, strict=False)))

    @property
    def begin(self) -> int:
        """The offset at which the last file begins."""
        return self.parts[-1][0] if self.parts else 0

    def part_at(self, offset: int) -> tuple[int, Source]:
        """Return the file a character offset lies in, and the offset at which that file begins."""
        if not self.parts:
            return 0, self
        return self.parts[max(1, bisect_right(self.parts, offset, key=operator.itemgetter(0))) - 1]

    def name_at(self, offset: int) -> str:
        """Return the name of the file a character offset lies in."""
        return self.part_at(offset)[1].name

    @functools.cached_property
    def _starts(self) -> list[int]:
        """The offset at which each line starts, found once: a text may have very many findings."""
        return [0, *itertools.accumulate(len(line) + 1 for line in self.text.split("\n"))][:-1]

    def position(self, offset: int) -> tuple[int, int]:
        """Return the 1-based line and column of a character offset."""
        if self.parts:
            start, part = self.part_at(offset)
            return part.position(offset - start)
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """Return the text of a 1-based line, without its end."""
        start, end = (self._starts[n] if n < len(self._starts) else len(self.text) for n in (number - 1, number))
        return self.text[start:end].rstrip("\r\n")


@frozen
class Related:
    """Another place that a finding is about, such as where a name was first declared."""

    message: str
    source: Source
    span: Span

    def located(self) -> Related:
        """Return the place with the one file it lies in as its source."""
        start, part = self.source.part_at(self.span.start)
        return Related(self.message, part, Span(self.span.start - start, self.span.end - start))


@frozen
class Diagnostic:
    """One finding: a stable code, a message, its place, how to help, and other places it is about."""

    code: str
    message: str
    source: Source
    span: Span | None = None
    help: str | None = None
    severity: Severity = Severity.ERROR
    related: tuple[Related, ...] = ()

    def located(self) -> Diagnostic:
        """Return the finding with the one file it is about as its source."""
        if not self.source.parts:
            return self
        if self.span is None:
            return evolve(self, source=self.source.parts[0][1])
        start, part = self.source.part_at(self.span.start)
        span = Span(self.span.start - start, self.span.end - start)
        return evolve(self, source=part, span=span, related=tuple(other.located() for other in self.related))

    def sort_key(self) -> tuple[int, int, str, str]:
        """Order findings by place, then code, so that output is the same on every run."""
        span = self.span or Span(-1, -1)
        return (span.start, span.end, self.code, self.message)


def render(diagnostic: Diagnostic, *, colour: bool = False) -> str:
    """Return the finding as text: `path:line:column: error[CODE]: message`, source line, carets, help."""
    tint = _TINTS[diagnostic.severity] if colour else _PLAIN
    place, excerpt = printable(diagnostic.source.name), []
    if diagnostic.span is not None:
        line, column = diagnostic.source.position(diagnostic.span.start)
        place += f":{line}:{column}"
        excerpt = _excerpt(diagnostic.source, diagnostic.span, line, column)
    head = f"{diagnostic.severity.value}[{diagnostic.code}]"
    lines = [f"{place}: {tint.format(head)}: {diagnostic.message}", *excerpt[:1]]
    lines += [tint.format(carets) for carets in excerpt[1:]]
    for other in diagnostic.related:
        lines += _beside(other, diagnostic.source)
    if diagnostic.help:
        lines.append(f"help: {diagnostic.help}")
    return "\n".join(lines)


def _beside(other: Related, source: Source) -> list[str]:
    """Return another place as text: its line, underlined, with what it is; its file where that is another one."""
    line, column = other.source.position(other.span.start)
    text, underline = _excerpt(other.source, other.span, line, column)
    elsewhere = [] if other.source.name == source.name else [f"{printable(other.source.name)}:{line}:{column}:"]
    return [*elsewhere, text, f"{underline.replace('^', '-')} {other.message}"]


_WIDTH = 120
_PLAIN = "{}"
_TINTS = {Severity.ERROR: "\x1b[1;31m{}\x1b[0m", Severity.WARNING: "\x1b[1;33m{}\x1b[0m"}


def printable(text: str) -> str:
    """Return a text whose unprintable characters cannot move a terminal's cursor."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _excerpt(source: Source, span: Span, line: int, column: int) -> list[str]:
    text = source.line(line)
    shown, shift = _cut(text, column)
    width = max(1, min(span.end - span.start, len(text) - column + 1, len(shown) + shift - column + 1))
    pad = "".join("\t" if char == "\t" else " " for char in shown[: column - 1 - shift])
    gutter = f"{line:>5} | "
    return [gutter + shown, " " * (len(gutter) - 2) + "| " + pad + "^" * width]


def _cut(text: str, column: int) -> tuple[str, int]:
    """Return at most `_WIDTH` characters around the column, and how many were dropped on the left."""
    left = max(0, column - 1 - _WIDTH // 2) if len(text) > _WIDTH else 0
    shown = text[left : left + _WIDTH]
    return "\t".join(printable(part) for part in shown.split("\t")), left


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
        "related": [_related_json(other) for other in diagnostic.related],
    }


def _related_json(other: Related) -> dict[str, Any]:
    line, column = other.source.position(other.span.start)
    end_line, end_column = other.source.position(other.span.end)
    return {
        "path": other.source.name,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
        "message": other.message,
    }


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice a misspelt word most likely meant, or None where nothing is close."""
    near = sorted(choice for choice in choices if abs(len(choice) - len(word)) <= _MOST_LETTERS_OFF)
    matches = difflib.get_close_matches(word.lower(), near[:_MOST_CHOICES], n=1, cutoff=0.72)
    return matches[0] if matches else None


_MOST_LETTERS_OFF = 8
_MOST_CHOICES = 200
