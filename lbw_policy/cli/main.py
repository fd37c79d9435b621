"""`lbw`: the umbrella command. Each subcommand is imported only when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "check": ("lbw_policy.cli.check", "check policy files"),
    "conform": ("lbw_policy.cli.conform", "check plugins against the contract of their kind"),
    "corpus": (
        "lbw_policy.cli.corpus",
        "train small models through seeded trouble and keep their telemetry (extra `lab`)",
    ),
    "graph": ("lbw_policy.cli.graph", "draw a policy's levels, as Mermaid or dot"),
    "explain": ("lbw_policy.cli.explain", "say in plain sentences what a policy does, or what a code means"),
    "diff": ("lbw_policy.cli.diff", "tell what differs in meaning between two policies"),
    "demo": ("lbw_policy.cli.demo", "train a small GPT through seeded trouble, unguarded and guarded"),
    "prove": ("lbw_policy.cli.prove", "prove what a policy promises, for all inputs (extra `prove`)"),
    "risk": ("lbw_policy.cli.risk", "train, evaluate and refine risk models on recorded runs"),
    "replay": ("lbw_policy.cli.replay", "run a policy over recorded telemetry"),
    "fmt": ("lbw_policy.cli.fmt", "write policy files in canonical layout"),
    "lsp": ("lbw_policy.cli.lsp", "serve editors: findings, hover, completion, formatting (extra `lsp`)"),
    "tune": ("lbw_policy.cli.tune", "choose a policy's params on recorded runs (extra `tune`)"),
    "test": ("lbw_policy.cli.test", "run the tests in policy files"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="lbw", description="The declarative policy engine for training stability.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module, meaning) in COMMANDS.items():
        command = commands.add_parser(name, help=meaning, description=meaning.capitalize() + ".")
        if words[:1] == [name]:
            importlib.import_module(module).add_arguments(command)
    arguments = parser.parse_args(words)
    if arguments.version:
        return _version()
    if arguments.command is None:
        parser.print_help()
        return 2
    return _run(arguments)


def _version() -> int:
    from lbw_policy.version import __version__

    print(f"lbw {__version__}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    module, _ = COMMANDS[arguments.command]
    try:
        return int(importlib.import_module(module).run(arguments))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
