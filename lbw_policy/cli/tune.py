"""`lbw tune`: chooses the values of a policy's params on recorded runs, under a budget of false alarms."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lbw_policy.cli.numbers import real, whole
from lbw_policy.cli.policies import UNUSABLE, printable_lines, read_bytes, read_policy, tolerate
from lbw_policy.cli.replacing import difference, replace
from lbw_policy.diagnostics import Diagnostic, Source, printable, render
from lbw_policy.errors import LBWError, TuneError
from lbw_policy.resources import presets
from lbw_policy.semantics import Policy, check_source
from lbw_policy.semantics.files import decode, read
from lbw_policy.tuning.subject import Subject

if TYPE_CHECKING:
    from lbw_policy.tuning.params import Space
    from lbw_policy.tuning.report import Tuned
    from lbw_policy.tuning.runs import Run
    from lbw_policy.tuning.search import Search

CHOSEN, NOTHING = 0, 1
MOST_TRIALS, MOST_JOBS, MOST_LATE = 100_000, 256, 1_000
_NEEDS = {"optuna": "optuna", "scipy": "scipy"}
_EPILOG = """\
An alarm is a tick at which a hard intervention begins (anything but a clip or a checkpoint), or the lowest level is
left. It is false in healthy steps: runs in which nothing is wrong, and steps before a fault. A divergence is caught by
an alarm after its fault, at most --late steps after it. The loop is open: what an intervention would have saved, a
replay cannot tell. docs/tune.md says more.

Without --write or --out nothing is written, and a diff shows what would be.

exit codes: 0 values were chosen, 1 no setting tried keeps to the budget and catches anything (nothing is written),
            2 wrong usage, or a policy, a run or a file that cannot be used, 130 interrupted"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("policy", metavar="POLICY", help="file, preset name, or `-` for standard input")
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="a folder made by `lbw corpus`, a trace, or a folder or glob of traces"
    )
    _add_question(parser)
    _add_search(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print the trade-off")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--write", action="store_true", help="write the chosen values into POLICY")
    where.add_argument("--out", type=Path, metavar="FILE", help="write the policy with the chosen values here")


def _add_question(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget",
        type=real(0.0, 1000.0, "a number from 0 to 1000"),
        default=0.3,
        metavar="RATE",
        help="false alarms per 1_000 healthy steps at most (default: %(default)s)",
    )
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME", help="tune this param alone; may be repeated"
    )
    parser.add_argument(
        "--healthy", action="append", default=[], metavar="GLOB", help="runs of this name are healthy; may be repeated"
    )
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="GLOB", help="leave out runs of this name; may be repeated"
    )
    parser.add_argument(
        "--alarm",
        choices=("interventions", "alerts"),
        default="interventions",
        help="what counts as an alarm (default: %(default)s)",
    )
    parser.add_argument(
        "--late",
        type=whole(0, MOST_LATE),
        default=5,
        metavar="STEPS",
        help="after a divergence an alarm is in time for so long (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-incomplete", action="store_true", help="leave out runs that did not record all that the policy reads"
    )
    parser.add_argument(
        "--keep-tests", action="store_true", help="pass over values under which a test of the policy's own fails"
    )


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hold-out",
        type=real(0.0, 0.9, "a share from 0% to 90%"),
        default=0.3,
        metavar="SHARE",
        help="the share of runs to measure the choice on (default: 30%%)",
    )
    parser.add_argument(
        "--trials", type=whole(1, MOST_TRIALS), default=60, help="settings to try (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=whole(1, MOST_JOBS), default=1, help="processes (default: %(default)s)")
    parser.add_argument("--seed", type=whole(0, 2**31), default=0, help="of all chance (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Tune a policy; return 0 when values were chosen, 1 when none are within the budget, 2 when it could not be."""
    tolerate()
    missing = [package for module, package in _NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        return _refuse(f'`{missing[0]}` is not installed; pip install "lbw_policy[tune]"')
    subject = _subject(arguments)
    if subject is None:
        return UNUSABLE
    try:
        _check_destination(arguments, subject)
        return _finish(arguments, subject, _tune(arguments, subject))
    except LBWError as error:
        return _refuse(str(error))


def _refuse(reason: str) -> int:
    for line in reason.splitlines():
        print(f"lbw tune: error: {line}", file=sys.stderr)
    return UNUSABLE


def _say(text: str) -> None:
    print(f"lbw tune: {text}", file=sys.stderr)


# Reading


def _subject(arguments: argparse.Namespace) -> Subject | None:
    word = arguments.policy
    raw = read_bytes() if word == "-" else None
    policy = read_policy("tune", word, {}, raw)
    if policy is None:
        return None
    path = None if word == "-" else presets().get(word, Path(word))
    source = decode("<stdin>", raw or b"") if path is None else read(path, str(path))
    if isinstance(source, Diagnostic):
        print(render(source), file=sys.stderr)
        return None
    return Subject(policy, source, path, arguments.alarm)


def _check_destination(arguments: argparse.Namespace, subject: Subject) -> None:
    """Raise TuneError where the policy could not be written: better before the search than after it."""
    preset = arguments.policy in presets()
    if arguments.write and (preset or subject.path is None):
        what = "a preset" if preset else "the standard input"
        raise TuneError(f"--write: {what} cannot be written; name a file with --out")
    if arguments.out is not None and (arguments.out.is_dir() or not arguments.out.parent.is_dir()):
        reason = "is a folder" if arguments.out.is_dir() else "lies in no folder that is there"
        raise TuneError(f"--out: `{printable(str(arguments.out))}` {reason}")


def _tune(arguments: argparse.Namespace, subject: Subject) -> Tuned:
    # River and optuna, which take most of a second to import, are not needed for what is refused at once.
    from lbw_policy.tuning.counting import check_alarming
    from lbw_policy.tuning.params import space
    from lbw_policy.tuning.tune import Order, tune

    found = space(subject, arguments.param)
    check_alarming(subject.policy, arguments.alarm)
    runs = _runs(arguments, subject.policy)
    order = Order(
        budget=arguments.budget,
        hold_out=arguments.hold_out,
        trials=arguments.trials,
        jobs=arguments.jobs,
        seed=arguments.seed,
        keep_tests=arguments.keep_tests,
    )
    return tune(subject, found, runs, order, _progress(arguments, found))


def _runs(arguments: argparse.Namespace, policy: Policy) -> list[Run]:
    from lbw_policy.runtime.replaying import Binding
    from lbw_policy.tuning.counting import check_complete, complete
    from lbw_policy.tuning.runs import Wanted, read_runs

    wanted = Wanted(Binding.wanted(policy), arguments.healthy, arguments.ignore, arguments.late)
    found = read_runs(arguments.runs, wanted)
    if not arguments.skip_incomplete:
        check_complete(policy, found)
        return found
    usable, lines = complete(policy, found)
    for line in lines:
        _say(f"left out: {line}")
    if not usable:
        raise TuneError("no run recorded all that the policy reads")
    return usable


def _progress(arguments: argparse.Namespace, space: Space) -> Callable[[Search], None]:
    """Return what tells, after every tenth of the settings, how far the search is."""
    from lbw_policy.tuning.search import choose

    began, every = time.perf_counter(), max(1, math.ceil(arguments.trials / 10))

    def after(found: Search) -> None:
        if len(found.tried) % every and len(found.tried) != arguments.trials:
            return
        best = choose(found.tried, space, arguments.budget)
        told = "none within the budget" if best is None else f"{100 * best.score.caught:.1f}% caught within the budget"
        _say(f"{len(found.tried)} of {arguments.trials} settings, {time.perf_counter() - began:.0f} s: {told}")

    return after


# Writing


def _finish(arguments: argparse.Namespace, subject: Subject, tuned: Tuned) -> int:
    from lbw_policy.tuning.params import rewritten

    changed = tuned.chosen is not None and tuned.chosen is not tuned.search.present
    after = rewritten(subject, tuned.space, tuned.chosen.setting) if tuned.chosen else ""
    destination = subject.path if arguments.write and changed else arguments.out
    complaint = _write(after, destination) if after and destination else ""
    written = str(destination) if after and destination and not complaint else None
    _show(arguments, tuned, written)
    if arguments.format == "text" and changed and not destination:
        shown = difference(subject.source.name, subject.source.text, after, ("present", "tuned"))
        print("\n" + printable_lines(shown), end="")
    if complaint:
        return _refuse(complaint)
    return CHOSEN if tuned.chosen else NOTHING


def _show(arguments: argparse.Namespace, tuned: Tuned, written: str | None) -> None:
    from lbw_policy.tuning.report import as_json, text

    if arguments.format == "json":
        print(json.dumps(as_json(tuned) | {"written": written}, indent=2))
        return
    print(printable_lines("\n".join(text(tuned))))
    if written:
        print(f"written: {printable(written)}")


def _write(text: str, path: Path) -> str:
    """Write the policy, if it checks where it will stand; return why it could not be, or an empty text."""
    checked = check_source(Source(str(path), text), {}, path)
    if checked.policy is None:
        findings = "\n".join(render(finding) for finding in checked.diagnostics)
        return f"the policy does not check at `{printable(str(path))}`:\n{findings}"
    try:
        if path.exists():
            replace(path.resolve(), text.encode())
        else:
            path.write_bytes(text.encode())
    except OSError as error:
        return f"cannot write `{printable(str(path))}`: {(error.strerror or type(error).__name__).lower()}"
    return ""
