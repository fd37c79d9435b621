"""Collects the findings of one check."""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from lbw_policy.diagnostics import Diagnostic, Related, Severity, Source, Span, nearest

MOST_FINDINGS = 200


@define
class Report:
    """The findings about one source, in the order they were made; no more than `MOST_FINDINGS` of a severity.

    `torn` tells that the parser reported errors: then what seems to be missing may well be there.
    """

    source: Source
    torn: bool = False
    found: list[Diagnostic] = field(factory=list)
    counts: Counter[Severity] = field(factory=Counter)

    def error(self, code: str, message: str, span: Span | None, advice: str | None = None) -> None:
        """Add a finding that keeps the policy from loading."""
        self._add(Diagnostic(code, message, self.source, span, advice))

    def again(self, code: str, message: str, span: Span, first: Span, done: str) -> None:
        """Add an error about something that was `done` (declared, given) before, and show where."""
        there = Related(f"first {done} here", self.source, first)
        self._add(Diagnostic(code, message, self.source, span, related=(there,)))

    def missing(self, code: str, message: str, span: Span | None, advice: str | None = None) -> None:
        """Add an error about something left out, unless a syntax error may have hidden it."""
        if not self.torn:
            self.error(code, message, span, advice)

    def warning(self, code: str, message: str, span: Span | None, advice: str | None = None) -> None:
        """Add advice; the policy still loads."""
        self._add(Diagnostic(code, message, self.source, span, advice, Severity.WARNING))

    def _add(self, finding: Diagnostic) -> None:
        if self.counts[finding.severity] < MOST_FINDINGS:
            self.found.append(finding)
        self.counts[finding.severity] += 1

    @property
    def failures(self) -> int:
        """The number of errors so far."""
        return self.counts[Severity.ERROR]

    @property
    def full(self) -> bool:
        """Tell whether further errors are counted only, so that it is no use to think about them."""
        return self.failures >= MOST_FINDINGS

    def failed(self) -> bool:
        """Tell whether any finding is an error."""
        return self.failures > 0


def all_of(words: tuple[str, ...]) -> str:
    """Return `a, b and c`, each in backticks."""
    quoted = [f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " and " + quoted[-1]


def plain(value: float) -> str:
    """Return a number as a policy would write it."""
    return f"{int(value):_}" if abs(value) < 1e15 and value == int(value) else f"{value:g}"


def did_you_mean(word: str, choices: tuple[str, ...]) -> str | None:
    """Return advice that names the likeliest choice, or all of them where they are few."""
    meant = nearest(word, choices)
    if meant:
        return f"did you mean `{meant}`?"
    return f"known here: {', '.join(sorted(choices))}" if 0 < len(choices) <= 16 else None
