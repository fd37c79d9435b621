"""Edits that put a finding right, where its help says exactly how."""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen

from lbw_policy.diagnostics import Diagnostic, Span

_MEANT = re.compile(r"did you mean `([^`]+)`\?")
_UNIT = re.compile(r"write the unit: `([^`]+)`")
_PERCENT = re.compile(r"write a percentage: `([^`]+)`")
_WRITE = re.compile(r"write `([^`]+)`(?: to compare)?(?:, or .*)?$")
_NUMBER = re.compile(r"[0-9][0-9_.eE+-]*")
_INSTEAD = frozenset({"LBW100", "LBW101"})
"""Codes whose `write ...` replaces just the characters the finding is about."""
_SOURCE = "LBW222"


@frozen
class Fix:
    """Replace the characters of a span."""

    title: str
    span: Span
    text: str


def fixes(findings: Iterable[Diagnostic]) -> list[tuple[Diagnostic, Fix]]:
    """Return the findings that can be put right, each with its edit."""
    return [(finding, fix) for finding in findings if (fix := _fix(finding))]


def _fix(finding: Diagnostic) -> Fix | None:
    if finding.span is None or not finding.help:
        return None
    found = finding.source.text[finding.span.start : finding.span.end]
    text = _replacement(finding, found)
    if text is None or text == found:
        return None
    return Fix(f"replace `{found}` by `{text}`", finding.span, _padded(finding, text))


def _replacement(finding: Diagnostic, found: str) -> str | None:
    advice = finding.help or ""
    if not found:  # something is missing here: what is meant cannot be told from a part of it
        return None
    if meant := _MEANT.search(advice):
        return _whole_source(finding, meant[1])
    number = _NUMBER.fullmatch(found)
    if number and (literal := _UNIT.search(advice) or _PERCENT.search(advice)):
        return literal[1]
    if finding.code in _INSTEAD and (sign := _WRITE.match(advice)):
        return sign[1]
    return None


def _whole_source(finding: Diagnostic, meant: str) -> str:
    """Return the suggestion with its root, where the finding is about the source as a whole."""
    assert finding.span is not None
    part = finding.source.text[: finding.span.start].rstrip().endswith(".")
    return f"telemetry.{meant}" if finding.code == _SOURCE and not part and "." not in meant else meant


def _padded(finding: Diagnostic, text: str) -> str:
    """Keep a word that replaces a sign from growing together with its neighbours."""
    assert finding.span is not None
    around = finding.source.text
    left, right = around[: finding.span.start][-1:], around[finding.span.end :][:1]
    before = " " * (_wordy(left) and _wordy(text[:1]))
    return before + text + " " * (_wordy(right) and _wordy(text[-1:]))


def _wordy(char: str) -> bool:
    return char.isalnum() or char == "_"
