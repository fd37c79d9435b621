"""`lbw demo`: trains a small GPT through seeded trouble, unguarded and guarded, and shows what came of it."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from lbw_policy.errors import LBWError

FAULT_NAMES = ("nan_batch", "corrupt_batches", "bit_flip", "lr_glitch")
STEPS, QUICK_STEPS, FEWEST_STEPS = 240, 240, 80
_NEEDS = ("rich", "matplotlib")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the demo to a parser."""
    parser.add_argument(
        "--policy", default="transformer_pretraining", help="preset name or path (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=_steps, help=f"steps of each run (default: {STEPS}, with --quick {QUICK_STEPS})"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="seed of weights and data (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder to write to (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a much smaller model; shows that it runs, not how well")
    parser.add_argument(
        "--faults", type=_faults, default=FAULT_NAMES, help=f"comma-separated, of: {', '.join(FAULT_NAMES)}"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo; return 0 when it ran, whatever it found, and 2 when it could not."""
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        return _refuse(f'`{missing[0]}` is not installed; pip install "lbw_policy[demo]"')
    # torch takes seconds to import, so nothing that needs it is imported before it is wanted.
    demonstration = importlib.import_module("lbw_policy.lab.demonstration")
    try:
        demonstration.demonstrate(demonstration.Options(**_options(args)))
    except OSError as error:
        return _refuse(f"`{error.filename}` cannot be used: {(error.strerror or str(error)).lower()}")
    except LBWError as error:
        return _refuse(str(error))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="lbw demo", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _options(args: argparse.Namespace) -> dict[str, object]:
    steps = args.steps or (QUICK_STEPS if args.quick else STEPS)
    chosen = {name: getattr(args, name) for name in ("seed", "policy", "out", "faults", "quick")}
    return {"steps": steps, **chosen}


def _steps(text: str) -> int:
    if not text.isdecimal() or int(text) < FEWEST_STEPS:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {FEWEST_STEPS}, found `{text}`")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 4294967295, found `{text}`")
    return int(text)


def _faults(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in FAULT_NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown fault `{unknown[0]}`; expected some of {', '.join(FAULT_NAMES)}")
    return names


def _refuse(reason: str) -> int:
    print(f"lbw demo: error: {reason}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
