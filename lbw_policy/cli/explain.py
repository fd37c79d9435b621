"""`lbw explain`: a policy in plain sentences, or the page about the code of a finding."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys

from lbw_policy.cli.policies import UNUSABLE, add_param_option, read_policy, tolerate
from lbw_policy.resources import code_pages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "subject",
        metavar="POLICY|CODE",
        help="path, preset name, or `-` for standard input; or the code of a finding, such as LBW204",
    )
    parser.add_argument("--format", choices=("text", "markdown", "json"), default="text", help="how to print")
    add_param_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation; return 0, or 2 where there is nothing to explain."""
    tolerate()
    if re.fullmatch(r"lbw\d{3}", arguments.subject, re.IGNORECASE | re.ASCII):
        return _code(arguments.subject.upper(), arguments.format)
    return _policy(arguments)


def _policy(arguments: argparse.Namespace) -> int:
    from lbw_policy.reading import explain, printing

    policy = read_policy("explain", arguments.subject, dict(arguments.params))
    if policy is None:
        return UNUSABLE
    explanation = explain(policy)
    if arguments.format == "json":
        print(json.dumps(printing.to_data(explanation), indent=2))
    else:
        show = printing.to_markdown if arguments.format == "markdown" else printing.to_text
        print(show(explanation), end="")
    return 0


def _code(code: str, form: str) -> int:
    pages = code_pages()
    if code not in pages:
        print(f"lbw explain: error: there is no page about `{code}`{_advice(code, tuple(pages))}", file=sys.stderr)
        return UNUSABLE
    page = pages[code].read_text(encoding="utf-8")
    print(json.dumps({"version": 1, "code": code, "page": page}, indent=2) if form == "json" else page.rstrip())
    return 0


def _advice(code: str, known: tuple[str, ...]) -> str:
    if not known:
        return "; the pages about codes are not part of this installation"
    meant = difflib.get_close_matches(code, known, n=1, cutoff=0.8)
    return f"; did you mean `{meant[0]}`?" if meant else f"; codes go from `{min(known)}` to `{max(known)}`"
