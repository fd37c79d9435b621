"""`lbw risk`: trains, evaluates and refines what risk models know before a run begins."""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbw_policy.errors import LBWError

if TYPE_CHECKING:
    from lbw_policy.corpora import CorpusRun
    from lbw_policy.evaluation.training import Task

TRAINED = ("logistic", "trees")
"""The models that start from a prior."""
_NEEDS = {"sklearn": "scikit-learn"}
_EPILOG = "exit codes: 0 done, 2 wrong usage, or a file that cannot be read or used"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands and their arguments."""
    parser.epilog = _EPILOG
    commands = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    _add_train(commands)
    _add_evaluate(commands)
    _add_learn(commands)


def _add_train(commands: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    parser = commands.add_parser("train", help="fit the priors that ship with the package to a corpus")
    parser.add_argument("corpus", metavar="CORPUS", type=Path, help="a folder made by `lbw corpus`")
    parser.add_argument("--out", type=Path, default=Path("priors"), help="folder for the priors (default: %(default)s)")
    _add_task(parser)


def _add_evaluate(commands: Any) -> None:  # noqa: ANN401
    parser = commands.add_parser("evaluate", help="measure models and rules on runs that they have not seen")
    parser.add_argument("corpus", metavar="CORPUS", type=Path, help="a folder made by `lbw corpus`")
    parser.add_argument("--budget", type=_positive, default=0.3, help="false alarms per 1_000 steps (default: 0.3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here as well")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the reliability here (extra `demo`)")
    _add_task(parser)


def _add_learn(commands: Any) -> None:  # noqa: ANN401
    parser = commands.add_parser("learn", help="fold recorded runs of your own into a prior of your own")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a trace (.csv, .jsonl, .npz) or a corpus")
    parser.add_argument("--out", type=Path, required=True, help="the prior to write, for `lbw.attach(..., prior=...)`")
    parser.add_argument("--from", dest="start", type=Path, metavar="PRIOR", help="go on from this one")
    parser.add_argument("--model", choices=TRAINED, default=TRAINED[0], help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the model's choices (default: %(default)s)")


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=TRAINED, nargs="+", default=list(TRAINED), help="default: all")
    parser.add_argument("--horizon", type=_steps, default=10, help="steps ahead (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all chance (default: %(default)s)")


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found `{text}`")
    return value


def _steps(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000:
        raise argparse.ArgumentTypeError(f"expected 1 to 1_000 steps, found `{text}`")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand; return 0 when it was done, 2 when it could not be."""
    does: dict[str, Callable[[argparse.Namespace], None]] = {"train": _train, "evaluate": _evaluate, "learn": _learn}
    missing = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing and arguments.what != "learn":
        return _refuse(f'`{missing[0]}` is not installed; pip install "lbw_policy[lab]"')
    try:
        does[arguments.what](arguments)
    except LBWError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"`{error.filename}`: {(error.strerror or str(error)).lower()}")
    return 0


def _refuse(reason: str) -> int:
    print(f"lbw risk: error: {reason}", file=sys.stderr)
    return 2


def _say(text: str) -> None:
    print(f"lbw risk: {text}", file=sys.stderr)


def _runs(folder: Path) -> list[CorpusRun]:
    from lbw_policy.corpora import read_manifest

    found = read_manifest(folder)
    _say(f"{len(found)} runs of {folder}")
    return found


def _task(arguments: argparse.Namespace, budget: float = 0.3) -> Task:
    from lbw_policy.evaluation.training import Task

    return Task(arguments.horizon, budget, arguments.seed)


def _train(arguments: argparse.Namespace) -> None:
    from lbw_policy.evaluation.examples import examples
    from lbw_policy.evaluation.training import origin, train
    from lbw_policy.risk.prior import write_prior

    runs = _runs(arguments.corpus)
    found = examples(runs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for kind in arguments.model:
        prior = train(found, kind, _task(arguments), origin(runs, arguments.seed)).prior
        path = arguments.out / f"{kind}.json"
        write_prior(prior, path)
        print(f"{path}: {path.stat().st_size} bytes, digest {prior.digest[:12]}")


def _evaluate(arguments: argparse.Namespace) -> None:
    from lbw_policy.evaluation.examples import examples
    from lbw_policy.evaluation.report import as_json, draw_reliability, markdown
    from lbw_policy.evaluation.study import study

    found = study(examples(_runs(arguments.corpus)), arguments.model, _task(arguments, arguments.budget), _say)
    if arguments.json:
        arguments.json.write_text(as_json(found), encoding="utf-8")
    if arguments.picture:
        draw_reliability(found, arguments.picture)
    print(markdown(found), end="")


def _learn(arguments: argparse.Namespace) -> None:
    from lbw_policy.evaluation.learning import learn, recorded
    from lbw_policy.risk.prior import read_prior, shipped, write_prior

    start = shipped(arguments.model) if arguments.start is None else read_prior(arguments.start)
    if start is None:
        raise LBWError(f"no prior of model `{arguments.model}` ships with this package")
    runs = [run for path in arguments.runs for run in recorded(path)]
    found, told = learn(start, runs, arguments.seed)
    write_prior(found, arguments.out)
    print(f"{arguments.out}: {told}")
