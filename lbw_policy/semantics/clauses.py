"""The clauses of a block: which are given twice, which are missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from lbw_policy.diagnostics import Span
from lbw_policy.semantics.report import Report, all_of


class Clause(Protocol):
    """Anything with a name and a span."""

    @property
    def name(self) -> str:
        """The word that opens it."""

    @property
    def span(self) -> Span:
        """Where it stands."""


_EXAMPLES = {
    "horizon": "horizon 10 steps",
    "features": "features standard",
    "alarm": "alarm at most 0.3 false per 1_000 steps",
    "trust": "trust after 200 steps",
}

T = TypeVar("T", bound=Clause)


def once(report: Report, clauses: Iterable[T], block: str) -> dict[str, T]:
    """Return clauses by name; report each one given a second time."""
    found: dict[str, T] = {}
    for clause in clauses:
        if clause.name in found:
            message = f"`{clause.name}` is given twice in {block}"
            report.again("LBW219", message, clause.span, found[clause.name].span, "given")
        found.setdefault(clause.name, clause)
    return found


def require(report: Report, found: Iterable[str], needed: tuple[str, ...], block: str, span: Span) -> None:
    """Report the clauses a block must have and has not."""
    present = set(found)
    missing = tuple(name for name in needed if name not in present)
    if missing:
        report.missing("LBW220", f"{block} lacks {all_of(missing)}", span, f"add `{_EXAMPLES[missing[0]]}`")
