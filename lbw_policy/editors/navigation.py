"""Where names are declared, and the outline of a text."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from lbw_policy.diagnostics import Span
from lbw_policy.editors.document import VALUES, Declaration, Document, Spot
from lbw_policy.resources import presets
from lbw_policy.semantics import exists
from lbw_policy.syntax import nodes


@frozen
class Target:
    """A place to go to: in this text, or in another file."""

    span: Span
    path: Path | None = None


@frozen
class Symbol:
    """An entry of the outline; `span` covers the whole, `name_span` lies inside it."""

    name: str
    kind: str
    span: Span
    name_span: Span


def definition(document: Document, offset: int) -> Target | None:
    """Return where the name at an offset is declared."""
    spot = document.spot(offset)
    if spot is None:
        return None
    if spot.role == "path":
        return _file(document, spot.text)
    found = _declaration(document, spot)
    if found is None:
        return None
    return Target(found.span, None if found.home == document.source else Path(found.home.name))


def _declaration(document: Document, spot: Spot) -> Declaration | None:
    if spot.role == "value":
        return document.find(spot.text)
    if spot.role in {"level", "reflex", "alert", "layers"}:
        return document.find(spot.text, frozenset({spot.role}))
    return document.find(spot.text, VALUES | {"level", "reflex", "alert", "layers"}) if spot.role == "word" else None


def _file(document: Document, name: str) -> Target | None:
    shipped = presets().get(name)
    path = shipped or (document.path.parent / name if document.path else Path(name))
    return Target(Span(0, 0), path) if name and exists(path) and path.is_file() else None


def outline(document: Document) -> tuple[Symbol, ...]:
    """Return every statement of a text, in order, under its name or its keyword."""
    return tuple(_symbol(node, len(document.source.text)) for node in document.parsed.tree.statements)


def _symbol(node: nodes.Statement, length: int) -> Symbol:
    kind = type(node).__name__.lower()
    start, end = min(node.span.start, length), min(node.span.end, length)
    whole = Span(start, max(start, end))
    name = getattr(node, "name", None)
    if not isinstance(name, nodes.Word) or not name.text.strip():
        return Symbol(kind, kind, whole, Span(start, start))
    inside = whole.start <= name.span.start <= name.span.end <= whole.end
    return Symbol(name.text, kind, whole, name.span if inside else Span(start, start))
