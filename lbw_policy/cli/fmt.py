"""`lbw fmt`: writes policy files in canonical layout."""

from __future__ import annotations

import argparse
import glob
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from lbw_policy.cli.replacing import difference, replace
from lbw_policy.diagnostics import Diagnostic, Source, printable, render
from lbw_policy.errors import PolicyError
from lbw_policy.semantics.files import MOST_BYTES, decode, exists, read
from lbw_policy.syntax.formatter import format_text

CLEAN, DIFFERENT, UNUSABLE = 0, 1, 2
_STDIN = "<stdin>"
_EPILOG = """\
exit codes: 0 done, or nothing to do; 1 with --check or --diff: a file would change;
            2 wrong usage, or a file that cannot be read, parsed or written (it is left as it is)"""


@frozen
class Formatted:
    """A file's text as it is, and in canonical layout; or the findings that keep it from being formatted."""

    name: str
    before: str = ""
    after: str = ""
    findings: tuple[Diagnostic, ...] = ()

    @property
    def changes(self) -> bool:
        """Tell whether the file is not in canonical layout."""
        return self.before != self.after


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="file, glob, folder (every `.lbw` file in it), or `-`: standard input to standard output",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; list the files that would change")
    parser.add_argument("--diff", action="store_true", help="write nothing; show what would change")


def run(arguments: argparse.Namespace) -> int:
    """Format every file once; return 0, 1 if a check found a difference, 2 if a file could not be formatted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if "-" in arguments.paths and len(arguments.paths) > 1:
        print("lbw fmt: `-` cannot be mixed with files", file=sys.stderr)
        return UNUSABLE
    results = [_format(name) for name in _names(arguments.paths)]
    for finding in (finding for result in results for finding in result.findings):
        print(render(finding) + "\n", file=sys.stderr)
    failed = any(result.findings for result in results)
    sound = [result for result in results if not result.findings]
    if arguments.check or arguments.diff:
        different = _show(sound, diff=arguments.diff)
        return UNUSABLE if failed else DIFFERENT if different else CLEAN
    if arguments.paths == ["-"]:
        sys.stdout.buffer.write(b"".join(result.after.encode() for result in sound))
        return UNUSABLE if failed else CLEAN
    return UNUSABLE if not _write_all(sound) or failed else CLEAN


# Reading


def _names(words: Sequence[str]) -> list[str]:
    """Return the files that the words name, each once."""
    found: dict[str, str] = {}
    for name in (name for word in words for name in _matching(word)):
        found.setdefault(os.path.realpath(name) if exists(Path(name)) else name, name)
    return list(found.values())


def _matching(word: str) -> Iterator[str]:
    path = Path(word)
    if word and exists(path) and path.is_dir():
        yield from sorted(str(file) for file in path.rglob("*.lbw") if file.is_file()) or [word]
    elif glob.has_magic(word) and not exists(path):
        yield from sorted(glob.glob(word, recursive=True)) or [word]  # noqa: PTH207 - the pattern may be absolute
    else:
        yield word


def _format(name: str) -> Formatted:
    source = _source(name)
    if isinstance(source, Diagnostic):
        return Formatted(name, findings=(source,))
    try:
        return Formatted(source.name, source.text, format_text(source.text, source.name))
    except PolicyError as error:
        return Formatted(source.name, findings=error.diagnostics)


def _source(name: str) -> Source | Diagnostic:
    if name == "-":
        return decode(_STDIN, sys.stdin.buffer.read(MOST_BYTES + 1) if sys.stdin else b"")
    if not name:
        return Diagnostic("LBW001", "expected a path, found an empty word", Source("lbw fmt", ""))
    if glob.has_magic(name) and not exists(Path(name)):
        return Diagnostic("LBW006", "the glob matches no file", Source(name, ""))
    if exists(Path(name)) and Path(name).is_dir():
        return Diagnostic("LBW006", "the folder has no `.lbw` file", Source(name, ""))
    return read(Path(name), name)


# Showing


def _show(results: Sequence[Formatted], *, diff: bool) -> bool:
    """Show which files would change, or how; tell whether any would."""
    different = [result for result in results if result.changes]
    for result in different:
        print(_difference(result) if diff else f"would reformat: {printable(result.name)}", end="" if diff else "\n")
    verdict = (
        f"{_files(len(different))} would be reformatted, {_files(len(results) - len(different))} already canonical"
    )
    print(verdict, file=sys.stderr if diff else sys.stdout)
    return bool(different)


def _difference(result: Formatted) -> str:
    return difference(result.name, result.before, result.after, ("as it is", "canonical"))


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"


# Writing


def _write_all(results: Sequence[Formatted]) -> bool:
    """Write what changed; tell whether all of it could be written."""
    different = [result for result in results if result.changes]
    written = [result for result in different if _write(result)]
    print(f"{_files(len(written))} reformatted, {_files(len(results) - len(different))} already canonical")
    return len(written) == len(different)


def _write(result: Formatted) -> bool:
    try:
        replace(Path(result.name).resolve(), result.after.encode())
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        print(f"lbw fmt: cannot write `{printable(result.name)}`: {reason}", file=sys.stderr)
        return False
    print(f"reformatted: {printable(result.name)}")
    return True
