"""Offsets in a text <-> the lines and columns an editor counts."""

from __future__ import annotations

import functools
import itertools
import re
from bisect import bisect_right

from attrs import frozen

_END = re.compile("\r\n|\n|\r")


@frozen
class Lines:
    """The lines of a text; columns count code units of `encoding`: `utf-8`, `utf-16` or `utf-32`."""

    text: str
    encoding: str = "utf-16"

    @functools.cached_property
    def _starts(self) -> list[int]:
        return [0, *(end.end() for end in _END.finditer(self.text))]

    def position(self, offset: int) -> tuple[int, int]:
        """Return the 0-based line and column of an offset; one outside of the text reads as its nearest end."""
        offset = min(max(offset, 0), len(self.text))
        line = bisect_right(self._starts, offset) - 1
        return line, self._width(self.text[self._starts[line] : offset])

    def offset(self, line: int, column: int) -> int:
        """Return the offset of a position; one beyond its line reads as the line's end."""
        if line < 0 or line >= len(self._starts):
            return 0 if line < 0 else len(self.text)
        start = self._starts[line]
        end = _END.search(self.text, start)
        within = self.text[start : min(start + max(column, 0), end.start() if end else len(self.text))]
        return start + sum(width <= column for width in itertools.accumulate(map(self._width, within)))

    def _width(self, piece: str) -> int:
        if piece.isascii() or self.encoding == "utf-32":
            return len(piece)
        name, unit = ("utf-8", 1) if self.encoding == "utf-8" else ("utf-16-le", 2)
        return len(piece.encode(name, "surrogatepass")) // unit
