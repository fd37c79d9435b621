"""Test outcomes as a JUnit XML report."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from lbw_policy.cli.suites import Suite
from lbw_policy.cli.trial_report import failure_text, verdict_line
from lbw_policy.trials import Outcome


def write_junit(path: Path, suites: Sequence[Suite]) -> None:
    """Write one `testsuite` a policy and one `testcase` a test; raises OSError."""
    root = ET.Element("testsuites", _counts([suite for suite in suites if suite.outcomes]))
    for suite in suites:
        if suite.outcomes:
            _suite(root, suite)
    ET.indent(root)
    path.write_bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _counts(suites: Sequence[Suite]) -> dict[str, str]:
    outcomes = [outcome for suite in suites for outcome in suite.outcomes]
    failed = sum(not outcome.passed for outcome in outcomes)
    seconds = sum(sum(suite.seconds) for suite in suites)
    return {"tests": f"{len(outcomes)}", "failures": f"{failed}", "errors": "0", "time": f"{seconds:.6f}"}


def _suite(root: ET.Element, suite: Suite) -> None:
    element = ET.SubElement(root, "testsuite", {"name": _legal(suite.name), **_counts([suite]), "skipped": "0"})
    for outcome, seconds in zip(suite.outcomes, suite.seconds, strict=True):
        _case(element, suite.policy.name, outcome, seconds)


def _case(element: ET.Element, policy: str, outcome: Outcome, seconds: float) -> None:
    names = {"classname": _legal(policy), "name": _legal(outcome.trial.name), "time": f"{seconds:.6f}"}
    case = ET.SubElement(element, "testcase", names)
    if not outcome.passed:
        missed = [verdict for verdict in outcome.verdicts if not verdict.passed]
        summary = "; ".join(verdict_line(verdict) for verdict in missed)
        failure = ET.SubElement(case, "failure", {"message": _legal(summary), "type": "expectation"})
        failure.text = _legal(failure_text(outcome))


def _legal(text: str) -> str:
    """Return a text without the characters that XML cannot hold."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
