"""`lbw corpus`: trains small models through seeded trouble, unguarded, and keeps their labelled telemetry."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from lbw_policy.cli.numbers import whole
from lbw_policy.diagnostics import nearest
from lbw_policy.errors import LBWError

ARCHITECTURE_NAMES = ("gpt", "moe", "ssm", "gru", "denoiser", "mlp", "cnn", "cnn_bn")
RUNS, MOST_RUNS, FEWEST_STEPS, MOST_STEPS, MOST_JOBS = 450, 100_000, 60, 100_000, 256
_NEEDS = {"rich": "rich", "sklearn": "scikit-learn"}

_EPILOG = """\
A call that is stopped, or repeated with more --runs, goes on where the folder stands: runs that are there are not
made again. The same seed gives the same runs. docs/corpus.md says what is in the folder.

exit codes: 0 every run is there, 2 it could not be made, 130 interrupted"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write to")
    parser.add_argument(
        "--runs", type=whole(1, MOST_RUNS), default=RUNS, help="how many of the plan (default: %(default)s)"
    )
    parser.add_argument("--seed", type=whole(0, 2**20), default=0, help="of the plan (default: %(default)s)")
    parser.add_argument(
        "--steps", type=whole(FEWEST_STEPS, MOST_STEPS), help="of each run (default: drawn from 300 to 600)"
    )
    parser.add_argument(
        "--jobs", type=whole(1, MOST_JOBS), default=1, help="processes, one core each (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        type=_architecture,
        default=(),
        metavar="ARCH",
        help=f"only these architectures of the plan, of: {', '.join(ARCHITECTURE_NAMES)}",
    )


def run(args: argparse.Namespace) -> int:
    """Make the corpus; return 0 when every run is there, and 2 when it could not be made."""
    missing = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        return _refuse(f'`{missing[0]}` is not installed; pip install "lbw_policy[lab]"')
    # torch takes seconds to import, so nothing that needs it is imported before it is wanted.
    corpus, progress = (importlib.import_module(f"lbw_policy.lab.{name}") for name in ("corpus", "corpus_progress"))
    order = corpus.Order(args.out, args.runs, args.seed, args.steps, frozenset(args.only), args.jobs)
    try:
        progress.make_corpus(order)
    except OSError as error:
        return _refuse(f"`{error.filename or args.out}` cannot be used: {(error.strerror or str(error)).lower()}")
    except LBWError as error:
        return _refuse(str(error))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and make the corpus; return the exit code."""
    parser = argparse.ArgumentParser(prog="lbw corpus", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _architecture(text: str) -> str:
    if text in ARCHITECTURE_NAMES:
        return text
    close = nearest(text, ARCHITECTURE_NAMES)
    hint = f"did you mean `{close}`?" if close else f"expected some of {', '.join(ARCHITECTURE_NAMES)}"
    raise argparse.ArgumentTypeError(f"unknown architecture `{text}`; {hint}")


def _refuse(reason: str) -> int:
    print(f"lbw corpus: error: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
