"""An explanation as text for a terminal, as Markdown, or as plain data."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from lbw_policy.diagnostics import printable
from lbw_policy.reading.explain import Explanation

_WIDTH = 100


def to_text(explanation: Explanation) -> str:
    """Return an explanation as lines of at most 100 characters."""
    blocks = [f"Policy `{explanation.name}` ({explanation.digest[:12]})"]
    for section in explanation.sections:
        lines = [_wrapped(printable(sentence)) for sentence in section.sentences]
        blocks.append("\n".join([section.title, *lines]))
    return "\n\n".join(blocks) + "\n"


def _wrapped(sentence: str) -> str:
    return textwrap.fill(
        sentence,
        _WIDTH,
        initial_indent="  - ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def to_markdown(explanation: Explanation) -> str:
    """Return an explanation as Markdown; a user's own words cannot become markup."""
    blocks = [f"# Policy `{explanation.name}`\n\nDigest `{explanation.digest}`."]
    for section in explanation.sections:
        lines = [f"- {_escaped(printable(sentence))}" for sentence in section.sentences]
        blocks.append("\n".join([f"## {section.title}\n", *lines]))
    return "\n\n".join(blocks) + "\n"


def _escaped(sentence: str) -> str:
    """Escape what Markdown would read, outside of code spans."""
    pieces = sentence.split("`")
    return "`".join(re.sub(r"([\\*_<>#\[\]|~&!])", r"\\\1", s) if i % 2 == 0 else s for i, s in enumerate(pieces))


def to_data(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as plain data, with its bounds as numbers."""
    sections = [{"title": one.title, "sentences": list(one.sentences)} for one in explanation.sections]
    return {
        "version": 1,
        "policy": explanation.name,
        "digest": explanation.digest,
        "sections": sections,
        "bounds": explanation.bounds.as_dict(),
    }
