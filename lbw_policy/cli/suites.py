"""The policies that a command line names, and the outcomes of their tests."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from lbw_policy.cli.policies import check_word
from lbw_policy.diagnostics import Diagnostic, Source
from lbw_policy.semantics import Checked, Policy, check_path, exists
from lbw_policy.trials import Coverage, Outcome, Verdict


@frozen
class Read:
    """A policy file as it was found."""

    name: str
    checked: Checked


@frozen
class Suite:
    """The tests of one policy that were run, how long each took, and what they exercised."""

    name: str
    policy: Policy
    outcomes: tuple[Outcome, ...]
    seconds: tuple[float, ...]
    coverage: Coverage


def read_policies(words: Sequence[str], params: Mapping[str, float]) -> list[Read]:
    """Check what the words name, each file once: paths, globs, folders, presets, `-`. Raises ResourceError."""
    found: dict[str, Read] = {}
    for word in words:
        for name in _names(word):
            found.setdefault(os.path.realpath(name), Read("<stdin>" if name == "-" else name, _check(name, params)))
    return list(found.values())


def _names(word: str) -> Iterator[str]:
    path = Path(word)
    if word and exists(path) and path.is_dir():
        yield from sorted(str(file) for file in path.rglob("*.lbw")) or [word]
    elif glob.has_magic(word) and not exists(path):
        yield from sorted(glob.glob(word, recursive=True)) or [word]  # noqa: PTH207 - the pattern may be absolute
    else:
        yield word


def _check(name: str, params: Mapping[str, float]) -> Checked:
    if not name:
        return _nothing("lbw", "LBW001", "expected a path, found an empty word")
    if glob.has_magic(name) and not exists(Path(name)):
        return _nothing(name, "LBW006", "the glob matches no file")
    if exists(Path(name)) and Path(name).is_dir():
        return _nothing(name, "LBW006", "the folder has no `.lbw` file")
    return check_path(Path(name), params) if exists(Path(name)) else check_word(name, params)


def _nothing(name: str, code: str, complaint: str) -> Checked:
    return Checked(None, (Diagnostic(code, complaint, Source(name, "")),))


def as_json(suites: Sequence[Suite], *, coverage: bool) -> dict[str, Any]:
    """Return the outcomes as plain data."""
    passed = [outcome.passed for suite in suites for outcome in suite.outcomes]
    seconds = sum(sum(suite.seconds) for suite in suites)
    counts = {"passed": sum(passed), "failed": len(passed) - sum(passed), "seconds": round(seconds, 6)}
    found: dict[str, Any] = {
        "version": 1,
        "summary": counts,
        "tests": [_test(suite, outcome) for suite in suites for outcome in suite.outcomes],
    }
    if coverage:
        found["coverage"] = [_coverage(suite) for suite in suites]
    return found


def _test(suite: Suite, outcome: Outcome) -> dict[str, Any]:
    return {
        "policy": suite.policy.name,
        "path": outcome.trial.place.path,
        "line": outcome.trial.place.line,
        "name": outcome.trial.name,
        "passed": outcome.passed,
        "steps": len(outcome.trace.moments),
        "halted": outcome.trace.halted,
        "expectations": [_verdict(verdict) for verdict in outcome.verdicts],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "line": verdict.expectation.place.line,
        "text": verdict.expectation.text,
        "passed": verdict.passed,
        "expected": verdict.expected,
        "found": verdict.found,
        "steps": list(verdict.ticks),
    }


def _coverage(suite: Suite) -> dict[str, Any]:
    never = list(suite.coverage.never)
    return {
        "policy": suite.policy.name,
        "path": suite.name,
        "percent": round(suite.coverage.percent, 2),
        "exercised": [one for one in suite.coverage.everything if one not in never],
        "never": never,
    }
