"""Findings for machines: GitHub annotations and SARIF 2.1.0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from lbw_policy.diagnostics import Diagnostic, Severity, as_json
from lbw_policy.version import __version__

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_github(finding: Diagnostic) -> str:
    """Return a finding as a GitHub workflow command, which annotates the line in a pull request."""
    plain = as_json(finding)
    places = {"file": plain["path"], "line": plain["line"], "col": plain["column"]}
    places |= {"endLine": plain["end_line"], "endColumn": plain["end_column"], "title": finding.code}
    given = ",".join(f"{name}={_property(value)}" for name, value in places.items() if value is not None)
    text = finding.message + (f"\nhelp: {finding.help}" if finding.help else "")
    return f"::{finding.severity.value} {given}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: object) -> str:
    return _data(str(value)).replace(":", "%3A").replace(",", "%2C")


def as_sarif(findings: Sequence[Diagnostic]) -> dict[str, Any]:
    """Return findings as one SARIF 2.1.0 log with one run."""
    codes = sorted({finding.code for finding in findings})
    driver = {
        "name": "lbw-check",
        "version": __version__,
        "rules": [{"id": code, "name": code} for code in codes],
    }
    results = [_result(finding, codes.index(finding.code)) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: Diagnostic, rule: int) -> dict[str, Any]:
    text = finding.message + (f"; {finding.help}" if finding.help else "")
    level = "error" if finding.severity is Severity.ERROR else "warning"
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": _location(as_json(finding))}],
    }
    if others := as_json(finding)["related"]:
        result["relatedLocations"] = [
            {"physicalLocation": _location(other), "message": {"text": other["message"]}} for other in others
        ]
    return result


def _location(plain: dict[str, Any]) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": quote(PurePath(plain["path"]).as_posix())}}
    if plain["line"] is not None:
        place["region"] = {
            "startLine": plain["line"],
            "startColumn": plain["column"],
            "endLine": plain["end_line"],
            "endColumn": plain["end_column"],
        }
    return place
