"""The TextMate grammar of the language, for VS Code and others; its words are the grammar's.

`python -m lbw_policy.editors.textmate [PATH]` writes it to PATH, by default `docs/editors/lbw.tmLanguage.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lbw_policy.editors.words import ROOTS, words

DEFAULT = Path("docs/editors/lbw.tmLanguage.json")


def text() -> str:
    """Return the content of the file."""
    return json.dumps(grammar(), indent=2) + "\n"


def grammar() -> dict[str, Any]:
    """Return the grammar as plain data."""
    return {
        "name": "LBW policy",
        "scopeName": "source.lbw",
        "fileTypes": ["lbw"],
        "patterns": [*_texts(), *_names(), *_keywords(), *_literals()],
    }


def _rule(scope: str, pattern: str, *groups: str) -> dict[str, Any]:
    rule: dict[str, Any] = {"match": pattern}
    if groups:
        rule["captures"] = {str(i): {"name": f"{name}.lbw"} for i, name in enumerate(groups, 1)}
    return {"name": f"{scope}.lbw", **rule} if scope else rule


def _any(some: Iterable[str]) -> str:
    return rf"\b(?:{'|'.join(sorted(some))})\b"


def _texts() -> list[dict[str, Any]]:
    name = words().patterns["NAME"]
    inside = [
        _rule("constant.character.escape", r"\\."),
        _rule("variable.other.placeholder", rf"\{{{name}(\.{name})?\}}"),
    ]
    text = {"name": "string.quoted.double.lbw", "begin": '"', "end": '"|$', "patterns": inside}
    return [_rule("comment.line.number-sign", words().patterns["COMMENT"]), text]


def _names() -> list[dict[str, Any]]:
    known, name = words(), words().patterns["NAME"]
    declaring = known.statements - {"lbw", "levels", "limits"}
    return [
        _rule("entity.name.decorator", rf"@\s*{name}"),
        _rule("", rf"({_any(ROOTS)})\s*\.\s*({name})", "support.module", "support.variable"),
        _rule("", rf"\.\s*({name})", "variable.other.property"),
        _rule("", rf"({_any(declaring)})\s+(?!{_any(known.keywords)})({name})", "keyword.declaration", "entity.name"),
        _rule("support.function", rf"{_any(known.functions)}(?=\s*\()"),
    ]


KEYWORD_SCOPES = {
    "statements": "keyword.declaration",
    "actions": "keyword.control.action",
    "logic": "keyword.operator.logical",
    "durations": "storage.type.unit",
    "constants": "constant.language",
    "clauses": "keyword.other",
}
"""The scope of each group of keywords."""


def _keywords() -> list[dict[str, Any]]:
    return [_rule(scope, _any(getattr(words(), group))) for group, scope in KEYWORD_SCOPES.items()]


def _literals() -> list[dict[str, Any]]:
    patterns = words().patterns
    operators = "|".join(["->", *(patterns[kind] for kind in ("COMPARE", "PLUS", "TIMES")), "="])
    return [
        _rule("constant.numeric.percent", patterns["PERCENT"]),
        _rule("constant.numeric", patterns["NUMBER"]),
        _rule("keyword.operator", operators),
    ]


def keywords_of(content: dict[str, Any]) -> set[str]:
    """Return the keywords a grammar colours, read back from its patterns."""
    scopes = {f"{scope}.lbw" for scope in KEYWORD_SCOPES.values()}
    found = [rule["match"] for rule in content["patterns"] if rule.get("name") in scopes]
    return {word for pattern in found for word in pattern.removeprefix(r"\b(?:").removesuffix(r")\b").split("|")}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file."""
    given = sys.argv[1:] if argv is None else argv
    path = Path(given[0]) if given else DEFAULT
    path.write_text(text(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
