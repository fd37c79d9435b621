"""`lbw lsp`: the language server, over standard input and output."""

from __future__ import annotations

import argparse
import importlib.util
import sys

UNUSABLE = 2
_NEEDED = ("pygls", "lsprotocol")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--stdio", action="store_true", help="talk over standard input and output; the only way")


def run(_arguments: argparse.Namespace) -> int:
    """Serve one editor until it says goodbye; return 2 where the extra `lsp` is not installed."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f'lbw lsp: `{missing[0]}` is not installed; pip install "lbw_policy[lsp]"', file=sys.stderr)
        return UNUSABLE
    from lbw_policy import __version__
    from lbw_policy.editors.server import build

    build(__version__).start_io()
    return 0
