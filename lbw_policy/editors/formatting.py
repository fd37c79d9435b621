"""The canonical layout of a text, where its syntax is sound."""

from __future__ import annotations

from lbw_policy.editors.document import Document
from lbw_policy.errors import PolicyError
from lbw_policy.syntax.formatter import format_text


def formatted(document: Document) -> str | None:
    """Return the text in canonical layout, or None where it has it already or cannot be read."""
    try:
        text = format_text(document.source.text)
    except PolicyError:
        return None
    return text if text != document.source.text else None
