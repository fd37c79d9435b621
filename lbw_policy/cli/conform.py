"""`lbw conform`: checks plugins against the contract of their kind."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict, frozen

from lbw_policy.diagnostics import nearest, printable
from lbw_policy.semantics.plugins import GROUPS, ActionPlugin, Broken, find, names

if TYPE_CHECKING:
    from lbw_policy.conformance import Finding

CLEAN, FOUND, UNUSABLE = 0, 1, 2
_EPILOG = "exit codes: 0 all conform, 1 findings, 2 wrong usage or no such plugin"


@frozen
class _Missing(Exception):  # noqa: N818 - it is a word of the command line that is missing its plugin
    """A word that names no plugin, and why."""

    reason: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "plugins", nargs="+", metavar="NAME|MODULE:ATTRIBUTE", help="an installed plugin, or an object to import"
    )
    parser.add_argument("--amounts", nargs=2, type=_amount, metavar=("LOW", "HIGH"), help="the range actions are for")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print")


def _amount(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, found `{text}`")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Check each plugin; return 0, 1 with findings, 2 where there is no such plugin."""
    amounts = tuple(arguments.amounts) if arguments.amounts else None
    if amounts and amounts[0] > amounts[1]:
        print(f"lbw conform: error: expected the lower amount first, found {amounts[0]:g} and {amounts[1]:g}",
              file=sys.stderr)  # fmt: skip
        return UNUSABLE
    try:
        named = [one for word in arguments.plugins for one in _plugins(word)]
    except _Missing as error:
        print(f"lbw conform: error: {printable(error.reason)}", file=sys.stderr)
        return UNUSABLE
    results = [(word, plugin, _check(plugin, amounts)) for word, plugin in named]
    (_print_data if arguments.format == "json" else _print_text)(results)
    return FOUND if any(found for _, _, found in results) else CLEAN


def _check(plugin: object, amounts: tuple[float, float] | None) -> tuple[Finding, ...]:
    from lbw_policy.conformance import Finding, check

    if isinstance(plugin, Broken):
        return (Finding("cannot be used by a policy", f"`{plugin.entry}`: {plugin.reason}"),)
    return check(plugin, amounts if isinstance(plugin, ActionPlugin) else None)


def _plugins(word: str) -> list[tuple[str, object]]:
    if ":" in word:
        return [(word, _imported(word))]
    found: list[tuple[str, object]] = [(word, plugin) for kind in GROUPS if (plugin := find(kind, word)) is not None]
    if not found:
        close = nearest(word, [name for kind in GROUPS for name in names(kind)])
        raise _Missing(f"no installed package has a plugin `{word}`" + (f"; did you mean `{close}`?" if close else ""))
    return found


def _imported(word: str) -> object:
    module, _, path = word.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        found: object = importlib.import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (Exception, SystemExit) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise _Missing(f"`{word}` cannot be imported: {text:.200}") from error
    return found


Results = Iterable[tuple[str, object, "tuple[Finding, ...]"]]


def _kind(plugin: object) -> str:
    return type(plugin).__name__.removesuffix("Plugin").lower()


def _print_text(results: Results) -> None:
    for word, plugin, found in results:
        verdict = f"{len(found)} finding{'s' * (len(found) != 1)}" if found else "conforms"
        print(printable(f"{word} ({_kind(plugin)}): {verdict}"))
        for finding in found:
            print(printable(f"  {finding.what}"), printable(f"    {finding.why}"), sep="\n")


def _print_data(results: Results) -> None:
    plugins = [
        {"plugin": word, "kind": _kind(plugin), "findings": [asdict(finding) for finding in found]}
        for word, plugin, found in results
    ]
    print(json.dumps({"version": 1, "plugins": plugins}, indent=2))
