"""Collects the findings of one check."""

from __future__ import annotations

from attrs import define, field

from lbw_policy.diagnostics import Diagnostic, Severity, Source, Span, nearest


@define
class Report:
    """The findings about one source, in the order they were made."""

    source: Source
    found: list[Diagnostic] = field(factory=list)

    def error(self, code: str, message: str, span: Span | None, advice: str | None = None) -> None:
        """Add a finding that keeps the policy from loading."""
        self.found.append(Diagnostic(code, message, self.source, span, advice))

    def warning(self, code: str, message: str, span: Span | None, advice: str | None = None) -> None:
        """Add advice; the policy still loads."""
        self.found.append(Diagnostic(code, message, self.source, span, advice, Severity.WARNING))

    def failed(self) -> bool:
        """Tell whether any finding is an error."""
        return any(finding.severity is Severity.ERROR for finding in self.found)


def one_of(words: tuple[str, ...]) -> str:
    """Return `a, b or c`, each in backticks."""
    quoted = [f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]


def did_you_mean(word: str, choices: tuple[str, ...]) -> str | None:
    """Return advice that names the likeliest choice, or all of them where they are few."""
    meant = nearest(word, choices)
    if meant:
        return f"did you mean `{meant}`?"
    return f"known here: {', '.join(sorted(choices))}" if 0 < len(choices) <= 16 else None
