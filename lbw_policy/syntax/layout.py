"""Lines of words -> text: columns that line up, long lines broken, comments kept beside and above."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import define, field

from lbw_policy.syntax.comments import Comment

WIDTH = 110
"""Lines beyond this are broken, and columns that would reach beyond it are not lined up."""
INDENT = 2
_DEEPER = 4
_FARTHEST = 40
"""How many columns a word or a comment may be moved to line up with its neighbours."""

# Where a line may be broken, the loosest tie first.
INSTEAD, PART, OR, AND, ITEM, ARROW, COMPARE, SUM, PRODUCT = range(9)


@define
class Word:
    """A token as it is printed: the blanks before it, and how tied it is to the word before (None: inseparably)."""

    text: str
    gap: int = 1
    depth: int = 0
    rank: int | None = None
    above: tuple[Comment, ...] = ()
    beside: str = ""


@define
class Line:
    """Words that belong on one line, should they fit.

    Lines of the same `group` that follow each other line up at their `columns` (indices of words).
    A `rigid` line is never broken.
    """

    words: list[Word]
    indent: int = 0
    group: str = ""
    columns: tuple[int, ...] = ()
    rigid: bool = False
    blank: bool = False


@define
class Row:
    """A line of the output."""

    text: str
    beside: str = ""
    blank: bool = False
    width: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.width = len(self.text)


ASIDE = "aside"
"""The group of comments and notes, which do not part the lines around them."""


def remark(comment: Comment, indent: int) -> Line:
    """Return a comment as a line of its own."""
    return Line([Word(comment.text)], indent, ASIDE, rigid=True, blank=comment.blank)


def width(words: Sequence[Word]) -> int:
    """Return the length of the words on one line."""
    return sum(word.gap + len(word.text) for word in words) - words[0].gap


def commented(words: Sequence[Word]) -> bool:
    """Tell whether a comment stands between the words."""
    return any(word.beside for word in words[:-1]) or any(word.above for word in words[1:])


def print_lines(lines: Sequence[Line]) -> str:
    """Return the text of the lines; it ends with a line feed unless there is nothing to print."""
    for run in _runs(lines):
        _line_up(run)
    rows = [row for line in lines for row in _rows(line)]
    for index, row in enumerate(rows):
        inside = bool(index) and not _opens(rows[index - 1]) and row.text != "}"
        row.blank = row.blank and inside
    _line_up_comments(rows)
    return "".join("\n" * row.blank + _with_comment(row) + "\n" for row in rows)


def _opens(row: Row) -> bool:
    return row.text.endswith("{") and not row.text.lstrip().startswith("#")


# Columns


def _runs(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Yield the lines that line up with each other."""
    run: list[Line] = []
    for line in lines:
        if run and (line.blank or (line.group != ASIDE and _key(line) != _key(run[0]))):
            yield run
            run = []
        if line.group and line.group != ASIDE:
            run.append(line)
    if run:
        yield run


def _key(line: Line) -> tuple[str, int]:
    return line.group, line.indent


def _line_up(run: Sequence[Line]) -> None:
    for number in range(max(len(line.columns) for line in run)):
        having = [line for line in run if len(line.columns) > number]
        words = [line.words[line.columns[number]] for line in having]
        ends = [width(line.words[: line.columns[number]]) for line in having]
        farthest = max(ends)
        pads = [farthest - end for end in ends]
        is_part = any(word.gap > 1 for word in words)
        if _too_wide(having, pads) if is_part else max(pads) > _FARTHEST:
            return
        for word, pad in zip(words, pads, strict=True):
            word.gap += pad


def _too_wide(lines: Sequence[Line], pads: Sequence[int]) -> bool:
    return any(line.indent + width(line.words) + pad > WIDTH for line, pad in zip(lines, pads, strict=True))


def _line_up_comments(rows: Sequence[Row]) -> None:
    run: list[Row] = []
    for row in [*rows, Row("")]:
        if run and (row.blank or not row.beside):
            widest, narrowest = max(r.width for r in run), min(r.width for r in run)
            for member in run:
                member.width = widest if widest - narrowest <= _FARTHEST else member.width
            run = []
        if row.beside:
            run.append(row)


def _with_comment(row: Row) -> str:
    return row.text.ljust(row.width) + "  " + row.beside if row.beside else row.text


# Long lines


def _rows(line: Line) -> list[Row]:
    if line.rigid:
        rows = [_row(line.words, line.indent)]
    else:
        rows = list(_broken(line.words, line.indent, line.indent + _DEEPER))
    rows[0].blank = line.blank
    return rows


def _row(words: Sequence[Word], indent: int) -> Row:
    text = "".join(" " * (word.gap * (index > 0)) + word.text for index, word in enumerate(words))
    return Row(" " * indent + text, words[-1].beside)


def _broken(words: Sequence[Word], indent: int, deeper: int) -> Iterator[Row]:
    """Yield the rows of words that begin at `indent` and go on at `deeper`."""
    parts = _apart(words, lambda word, before: bool(before.beside or word.above))
    if len(parts) == 1 and indent + width(words) > WIDTH:
        parts = _split(words, indent, deeper)
    if len(parts) == 1:
        yield _row(words, indent)
        return
    yield from _broken(parts[0], indent, deeper + INDENT * (parts[1][0].rank not in {INSTEAD, PART, None}))
    for part in parts[1:]:
        yield from (Row(" " * deeper + comment.text) for comment in part[0].above)
        yield from _broken(part, deeper, deeper + INDENT)


def _apart(words: Sequence[Word], wanted: Callable[[Word, Word], bool]) -> list[Sequence[Word]]:
    """Cut before each word that is wanted, given it and the word before it."""
    cuts = [index for index in range(1, len(words)) if wanted(words[index], words[index - 1])]
    return [words[start:end] for start, end in zip([0, *cuts], [*cuts, len(words)], strict=True)]


def _split(words: Sequence[Word], indent: int, deeper: int) -> list[Sequence[Word]]:
    """Cut at the loosest ties: conditions at every one of them, all else only where the line is full."""
    ties = [(word.depth, word.rank) for word in words[1:] if word.rank is not None]
    if not ties:
        return [words]
    loosest = min(ties)
    parts = _apart(words, lambda word, _: (word.depth, word.rank) == loosest)
    return parts if loosest[1] <= AND else _filled(words, [len(part) for part in parts], indent, deeper)


def _filled(words: Sequence[Word], lengths: Sequence[int], indent: int, deeper: int) -> list[Sequence[Word]]:
    rows: list[Sequence[Word]] = []
    start = end = 0
    for length in lengths:
        left = deeper if rows else indent
        if end > start and left + width(words[start : end + length]) > WIDTH:
            rows.append(words[start:end])
            start = end
        end += length
    return [*rows, words[start:end]]
