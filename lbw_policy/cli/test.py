"""`lbw test`: runs the `test` blocks of policy files. Imports no torch, river or numpy."""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lbw_policy.cli.junit import write_junit
from lbw_policy.cli.policies import UNUSABLE, add_param_option, tolerate
from lbw_policy.cli.suites import Read, Suite, as_json, read_policies
from lbw_policy.cli.trial_report import coverage_text, failure_text
from lbw_policy.diagnostics import printable, render
from lbw_policy.errors import ResourceError
from lbw_policy.semantics.policy import Policy
from lbw_policy.trials import Outcome, covered, run_trial

PASSED, FAILED = 0, 1
_EPILOG = """\
exit codes: 0 all tests passed, 1 a test failed or --fail-under was missed,
2 wrong usage, a file that cannot be read or does not check, or no tests found"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "paths", nargs="+", metavar="FILE", help="file, glob, folder, preset name, or `-` for standard input"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="list every test, not only those that fail")
    parser.add_argument("--filter", metavar="TEXT", help="run only tests whose name holds or matches TEXT")
    parser.add_argument("--coverage", action="store_true", help="tell what of each policy the tests exercised")
    parser.add_argument("--fail-under", type=_percent, metavar="N", help="fail where a coverage is below N percent")
    parser.add_argument("--junit", type=Path, metavar="PATH", help="write a JUnit XML report")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print the outcome")
    add_param_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the tests of every file; return 0 if all passed, 1 if not, 2 if there is nothing sound to run."""
    tolerate()
    try:
        found = read_policies(arguments.paths, dict(arguments.params))
    except ResourceError as error:
        return _refuse(str(error))
    if any(one.checked.policy is None for one in found):
        return _show_broken(found)
    return _run(arguments, found)


def _run(arguments: argparse.Namespace, found: Sequence[Read]) -> int:
    policies = [(one.name, one.checked.policy) for one in found if one.checked.policy]
    if not any(policy.tests for _, policy in policies):
        return _refuse(f"no tests found in {', '.join(name for name, _ in policies)}",
                       'a test is written `test "NAME" { given ... expect ... }`')  # fmt: skip
    suites = [_suite(name, policy, arguments.filter) for name, policy in policies]
    if not any(suite.outcomes for suite in suites):
        known = ", ".join(f"`{trial.name}`" for _, policy in policies for trial in policy.tests)
        return _refuse(f"no test matches `{arguments.filter}`", f"tests here: {known}")
    if arguments.junit and (complaint := _written(arguments.junit, suites)):
        return _refuse(complaint)
    _show(arguments, suites)
    return _exit_code(arguments, suites)


def _written(path: Path, suites: Sequence[Suite]) -> str:
    """Write the JUnit report; return what went wrong, or an empty text."""
    try:
        write_junit(path, suites)
    except OSError as error:
        return f"cannot write `{path}`: {(error.strerror or str(error)).lower()}"
    return ""


def _suite(name: str, policy: Policy, wanted: str | None) -> Suite:
    outcomes, seconds = [], []
    for trial in policy.tests:
        if wanted is None or _matches(trial.name, wanted):
            start = time.perf_counter()
            outcomes.append(run_trial(policy, trial))
            seconds.append(time.perf_counter() - start)
    coverage = covered(policy, (outcome.trace for outcome in outcomes))
    return Suite(name, policy, tuple(outcomes), tuple(seconds), coverage)


def _matches(name: str, wanted: str) -> bool:
    return wanted.lower() in name.lower() or fnmatch.fnmatchcase(name, wanted)


def _exit_code(arguments: argparse.Namespace, suites: Sequence[Suite]) -> int:
    if not all(outcome.passed for suite in suites for outcome in suite.outcomes):
        return FAILED
    least = arguments.fail_under
    return FAILED if least is not None and _least_coverage(suites) < least else PASSED


def _least_coverage(suites: Sequence[Suite]) -> float:
    return min(suite.coverage.percent for suite in suites)


# How to show it


def _show(arguments: argparse.Namespace, suites: Sequence[Suite]) -> None:
    coverage = arguments.coverage or arguments.fail_under is not None
    if arguments.format == "json":
        print(json.dumps(as_json(suites, coverage=coverage), indent=2))
        return
    for suite in suites:
        for outcome in suite.outcomes:
            _show_outcome(outcome, verbose=arguments.verbose)
    for suite in suites if coverage else ():
        print(coverage_text(suite) + "\n")
    print(_summary(suites))
    if arguments.fail_under is not None and _least_coverage(suites) < arguments.fail_under:
        print(f"coverage {_least_coverage(suites):.1f}% is below the {arguments.fail_under:g}% asked for")


def _show_outcome(outcome: Outcome, *, verbose: bool) -> None:
    if not outcome.passed:
        print(failure_text(outcome) + "\n")
    elif verbose:
        place = f"{outcome.trial.place.path}:{outcome.trial.place.line}"
        print(f"passed {printable(f'{place}: {outcome.trial.name}')} ({len(outcome.trace.moments)} steps)")


def _summary(suites: Sequence[Suite]) -> str:
    passed = [outcome.passed for suite in suites for outcome in suite.outcomes]
    seconds = sum(sum(suite.seconds) for suite in suites)
    return f"{sum(passed)} passed, {len(passed) - sum(passed)} failed in {seconds:.2f} s"


def _show_broken(found: Sequence[Read]) -> int:
    for one in found:
        for finding in one.checked.diagnostics if one.checked.policy is None else ():
            print(render(finding) + "\n", file=sys.stderr)
    broken = sum(one.checked.policy is None for one in found)
    return _refuse(f"{broken} of {len(found)} file{'s' * (len(found) != 1)} cannot be tested: see above")


def _refuse(reason: str, advice: str = "") -> int:
    print(f"lbw test: error: {printable(reason)}", file=sys.stderr)
    if advice:
        print(f"help: {printable(advice)}", file=sys.stderr)
    return UNUSABLE


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected a percentage from 0 to 100, found `{text}`")
    return value
