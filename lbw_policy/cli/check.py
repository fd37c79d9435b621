"""`lbw-check` and `lbw check`: validates policy files. Imports no torch, river or numpy."""

from __future__ import annotations

import argparse
import glob
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from lbw_policy.authority import Card, card
from lbw_policy.cli.formats import as_github, as_sarif
from lbw_policy.cli.policies import add_param_option, printable_lines
from lbw_policy.diagnostics import Diagnostic, Severity, Source, as_json, printable, render
from lbw_policy.errors import ResourceError
from lbw_policy.resources import presets
from lbw_policy.semantics import MOST_BYTES, Checked, check, check_bytes, check_path, exists
from lbw_policy.version import __version__

if TYPE_CHECKING:
    from lbw_policy.cli.proofs import Proof

Params = Mapping[str, float]
CLEAN, FINDINGS, UNUSABLE = 0, 1, 2
_SECONDS = 10.0
_UNREADABLE = ("LBW001", "LBW002", "LBW006")
_EPILOG = """\
exit codes: 0 no findings
            1 errors or warnings, or a promise that does not hold
            2 wrong usage or a file that cannot be read
            3 with --prove: a promise is unknown, or only tested without z3
colour: on a terminal, unless NO_COLOR is set; FORCE_COLOR turns it on everywhere"""


@frozen
class Result:
    """One checked file; `proof` is what became of the promises of its policy, if they were to be proved."""

    name: str
    checked: Checked
    proof: Proof | None = None

    @property
    def card(self) -> Card | None:
        """The authority card of the policy; None where the file does not check."""
        policy = self.checked.policy
        return card(policy, self.proof.proved if self.proof else None) if policy else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="file, glob, folder (every `.lbw` file in it), preset name, or `-` for standard input",
    )
    add_param_option(parser)
    parser.add_argument("--format", choices=tuple(_SHOW), default="text", help="how to print findings")
    parser.add_argument("--prove", action="store_true", help="prove what the policies promise, too (extra `prove`)")
    parser.add_argument("-q", "--quiet", action="store_true", help="findings and verdict only, no authority card")


def run(arguments: argparse.Namespace) -> int:
    """Check every file once; return 0 if clean, 1 with findings, 2 if something could not be read."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a policy may hold what the terminal cannot show
    try:
        results = _check_all(arguments.paths, dict(arguments.params))
    except ResourceError as error:
        print(f"lbw-check: {error}", file=sys.stderr)
        return UNUSABLE
    if arguments.prove:
        results = [_proved(result) for result in results]
    _SHOW[arguments.format](results, not arguments.quiet)
    return _exit_code(results)


def _proved(result: Result) -> Result:
    """Return a result with what became of the promises of its policy."""
    from lbw_policy.cli.proofs import proof_of

    policy = result.checked.policy
    return evolve(result, proof=proof_of(result.name, policy, solves=True, seconds=_SECONDS)) if policy else result


# What to check


def _check_all(words: Sequence[str], params: Params) -> list[Result]:
    """Check what the words of the command line name, each file once."""
    results, seen = [], set()
    for word in words:
        for result in _results(word, params):
            key = _same_file(result.name)
            if key not in seen:
                seen.add(key)
                results.append(result)
    return results


def _same_file(name: str) -> str:
    path = Path(name) if exists(Path(name)) else presets().get(name)  # as `check` reads a name
    return os.path.realpath(path) if path else name


def _results(word: str, params: Params) -> Iterator[Result]:
    path = Path(word)
    if word == "-":
        yield Result("<stdin>", _check_stdin(params))
    elif not word:
        yield _nothing(word, "LBW001", "expected a path, found an empty word")
    elif exists(path) and path.is_dir():
        files = sorted(str(file) for file in path.rglob("*.lbw"))
        yield from _check_files(word, files, params, "the folder has no `.lbw` file")
    elif exists(path):
        yield Result(str(path), check_path(path, params))
    elif glob.has_magic(word):
        found = sorted(glob.glob(word, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        files = [file for file in found if not Path(file).is_dir()]
        yield from _check_files(word, files, params, "the glob matches no file")
    else:
        yield Result(word, check(word, params=params))


def _check_files(word: str, files: Sequence[str], params: Params, complaint: str) -> Iterator[Result]:
    if not files:
        yield _nothing(word, "LBW006", complaint)
    for file in files:
        yield Result(file, check_path(Path(file), params))


def _nothing(word: str, code: str, complaint: str) -> Result:
    return Result(word, Checked(None, (Diagnostic(code, complaint, Source(word or "lbw-check", "")),)))


def _check_stdin(params: Params) -> Checked:
    if sys.stdin is None:
        finding = Diagnostic("LBW001", "cannot read the standard input: it is closed", Source("<stdin>", ""))
        return Checked(None, (finding,))
    return check_bytes("<stdin>", sys.stdin.buffer.read(MOST_BYTES + 1), params)


# How to show it


def _show_text(results: Sequence[Result], cards: bool) -> None:
    colour = _colour()
    for result in results:
        for finding in result.checked.diagnostics:
            print(render(finding, colour=colour) + "\n")
    for line in _troubles(results):
        print(line + "\n")
    for result in results if cards else ():
        if result.card:
            print(printable_lines(result.card.as_text()) + "\n")
    print("\n".join([*_notes(results, cards), _verdict(results)]))


def _troubles(results: Sequence[Result]) -> Iterator[str]:
    """Yield what does not hold, or is not known to, of the policies that were to be proved."""
    proofs = [result.proof for result in results if result.proof]
    if proofs:
        from lbw_policy.cli.proofs import troubles, unsolved

        yield from (printable_lines(text) for proof in proofs for text in troubles(proof))
        if any(proof.solver is None for proof in proofs):
            yield unsolved()


def _notes(results: Sequence[Result], cards: bool) -> Iterator[str]:
    """Yield what there is to say between the cards and the verdict."""
    proofs = [result.proof for result in results if result.proof]
    if proofs:
        from lbw_policy.cli.proofs import verdict

        yield from (printable(verdict(proof)) for proof in proofs)
    elif cards and any(result.card for result in results):
        yield "tested: by hostile runs in the tests of lbw_policy; `lbw-check --prove` proves"


def _colour() -> bool:
    """Tell whether to colour: on a terminal, where NO_COLOR and FORCE_COLOR say nothing else."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (sys.stdout.isatty() and os.environ.get("TERM") != "dumb")


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


def _show_json(results: Sequence[Result], cards: bool) -> None:
    files = [_file(result, cards) for result in results]
    findings = [as_json(finding) for result in results for finding in result.checked.diagnostics]
    print(json.dumps({"version": 1, "files": files, "findings": findings}, indent=2))


def _file(result: Result, cards: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"path": result.name, "ok": result.checked.policy is not None}
    if result.card and cards:
        found["authority"] = result.card.as_list()
    if result.proof:
        found |= {name: part for name, part in result.proof.as_dict().items() if name in ("solver", "promises")}
    return found


def _show_github(results: Sequence[Result], _: bool) -> None:
    _tell(results)
    for result in results:
        for finding in result.checked.diagnostics:
            print(as_github(finding))
    print(_verdict(results))


def _show_sarif(results: Sequence[Result], _: bool) -> None:
    _tell(results)
    findings = [finding for result in results for finding in result.checked.diagnostics]
    print(json.dumps(as_sarif(findings), indent=2))


def _tell(results: Sequence[Result]) -> None:
    """Say on stderr what does not hold, where the output is for machines that read findings only."""
    for text in _troubles(results):
        print(text + "\n", file=sys.stderr)


_SHOW = {"text": _show_text, "json": _show_json, "github": _show_github, "sarif": _show_sarif}


def _exit_code(results: Sequence[Result]) -> int:
    codes = [finding.code for result in results for finding in result.checked.diagnostics]
    if any(code in _UNREADABLE for code in codes):
        return UNUSABLE
    proofs = [result.proof.code for result in results if result.proof]
    return FINDINGS if codes or FINDINGS in proofs else max(proofs, default=CLEAN)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lbw-check`."""
    parser = argparse.ArgumentParser(prog="lbw-check", description="Check policy files.")
    add_arguments(parser)
    parser.add_argument("--version", action="version", version=f"lbw-check {__version__}")
    try:
        code = run(parser.parse_args(argv))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINDINGS
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
