"""`@id("...")` and `@why("...")`: stable names and reasons for records."""

from __future__ import annotations

from attrs import frozen

from lbw_policy.semantics.report import Report, did_you_mean
from lbw_policy.syntax import nodes

KNOWN = ("id", "why")


@frozen
class Notes:
    """What a statement's notes say; empty where they say nothing."""

    id: str = ""
    why: str = ""


def read_notes(report: Report, own: tuple[nodes.Note, ...], *inner: tuple[nodes.Note, ...]) -> Notes:
    """Return a statement's notes; reasons given to its clauses are joined to its own."""
    reasons = [note.text.text for notes in (own, *inner) for note in _known(report, notes) if note.name.text == "why"]
    ids = [note.text.text for note in own if note.name.text == "id"]
    return Notes(ids[0] if ids else "", "; ".join(reasons))


def _known(report: Report, notes: tuple[nodes.Note, ...]) -> list[nodes.Note]:
    seen: set[str] = set()
    for note in notes:
        name = note.name.text
        if name not in KNOWN:
            report.error("LBW226", f"unknown note `@{name}`", note.name.span, did_you_mean(name, KNOWN))
        elif name in seen:
            report.error("LBW219", f"`@{name}` is given twice", note.span, "keep one of them")
        elif not note.text.text.strip():
            report.error("LBW226", f"`@{name}` says nothing", note.text.span, "write a text, or remove the note")
        seen.add(name)
    return list(notes)


def check_ids(report: Report, statements: tuple[nodes.Statement, ...]) -> None:
    """Report ids that two statements share: a record must name one rule."""
    first: dict[str, nodes.Note] = {}
    for statement in statements:
        for note in statement.notes:
            if note.name.text != "id":
                continue
            if note.text.text in first:
                message = f"the id `{note.text.text}` is given twice"
                report.again("LBW227", message, note.span, first[note.text.text].span, "given")
            first.setdefault(note.text.text, note)
