"""`lbw-check` and `lbw check`: validates policy files. Imports no torch, river or numpy."""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from lbw_policy.diagnostics import Diagnostic, Severity, Source, as_json, render
from lbw_policy.resources import presets
from lbw_policy.semantics import Checked, check, check_bytes, check_path

CLEAN, FINDINGS, UNUSABLE = 0, 1, 2


@frozen
class Result:
    """One checked file."""

    name: str
    checked: Checked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="file, glob, preset name, or `-` for standard input")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print findings")


def run(arguments: argparse.Namespace) -> int:
    """Check every file; return 0 if clean, 1 with findings, 2 if something could not be read."""
    results = [result for path in arguments.paths for result in _results(path)]
    show = _show_json if arguments.format == "json" else _show_text
    show(results)
    return _exit_code(results)


def _results(path: str) -> Iterator[Result]:
    if path == "-":
        yield Result("<stdin>", check_bytes("<stdin>", sys.stdin.buffer.read()))
    elif glob.has_magic(path) and not Path(path).exists():
        found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        yield from (Result(name, check_path(Path(name))) for name in found)
        if not found:
            yield Result(path, Checked(None, (Diagnostic("LBW006", "the glob matches no file", Source(path, "")),)))
    elif path in presets() and not Path(path).exists():
        yield Result(path, check(path))
    else:
        yield Result(path, check_path(Path(path)) if Path(path).exists() else check(path))


def _show_text(results: Sequence[Result]) -> None:
    for result in results:
        for finding in result.checked.diagnostics:
            print(render(finding) + "\n")
    print(_verdict(results))


def _verdict(results: Sequence[Result]) -> str:
    errors, warnings = (_count(results, severity) for severity in (Severity.ERROR, Severity.WARNING))
    files = _plural(len(results), "file")
    if errors or warnings:
        return f"{files} checked: {_plural(errors, 'error')}, {_plural(warnings, 'warning')}"
    return f"{files} checked: no findings"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _count(results: Sequence[Result], severity: Severity) -> int:
    return sum(finding.severity is severity for result in results for finding in result.checked.diagnostics)


def _show_json(results: Sequence[Result]) -> None:
    files = [{"path": result.name, "ok": result.checked.policy is not None} for result in results]
    findings = [as_json(finding) for result in results for finding in result.checked.diagnostics]
    print(json.dumps({"version": 1, "files": files, "findings": findings}, indent=2))


def _exit_code(results: Sequence[Result]) -> int:
    codes = [finding.code for result in results for finding in result.checked.diagnostics]
    if any(code in ("LBW001", "LBW002", "LBW006") for code in codes):
        return UNUSABLE
    return FINDINGS if codes else CLEAN


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lbw-check`."""
    parser = argparse.ArgumentParser(prog="lbw-check", description="Check policy files.")
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
