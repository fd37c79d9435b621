"""How commands read policies: a path, a preset's name or `-`, with values for params."""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Mapping

from lbw_policy.diagnostics import Severity, printable, render
from lbw_policy.errors import ResourceError
from lbw_policy.semantics import MOST_BYTES, Checked, Policy, check, check_bytes

UNUSABLE = 2


def add_param_option(parser: argparse.ArgumentParser) -> None:
    """Add `--param NAME=VALUE`, which may be given several times."""
    parser.add_argument(
        "--param",
        dest="params",
        action="append",
        default=[],
        type=_param,
        metavar="NAME=VALUE",
        help="set a param of the policy; may be repeated",
    )


def _param(text: str) -> tuple[str, float]:
    name, mark, value = text.partition("=")
    try:
        if name.strip() and mark:
            return name.strip(), _number(value.strip())
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected NAME=VALUE with a number, found `{text}`")


def _number(text: str) -> float:
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def read_bytes() -> bytes:
    """Return the standard input, as much as any policy may have."""
    return b"" if sys.stdin is None else sys.stdin.buffer.read(MOST_BYTES + 1)


def check_word(word: str, params: Mapping[str, float], text: bytes | None = None) -> Checked:
    """Check what a word of the command line names; `text` is the standard input where it is read already."""
    if word == "-":
        return check_bytes("<stdin>", read_bytes() if text is None else text, params)
    return check(word, params=params)


def read_policy(command: str, word: str, params: Mapping[str, float], text: bytes | None = None) -> Policy | None:
    """Return the policy that a word names; where it does not check, print why on stderr and return None."""
    if not word:
        print(f"lbw {command}: error: expected a path or a preset's name, found an empty word", file=sys.stderr)
        return None
    try:
        checked = check_word(word, params, text)
    except ResourceError as error:
        print(f"lbw {command}: error: {error}", file=sys.stderr)
        return None
    if checked.policy is None:
        for finding in checked.diagnostics:
            if finding.severity is Severity.ERROR:
                print(render(finding) + "\n", file=sys.stderr)
        print(f"lbw {command}: error: `{printable(word)}` is not a policy that checks", file=sys.stderr)
    return checked.policy


def tolerate() -> None:
    """Let output hold what the terminal cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable_lines(text: str) -> str:
    """Return a text of several lines in which nothing can move a terminal's cursor."""
    return "\n".join(printable(line) for line in text.split("\n"))
