"""The parser of the language: built from the grammar in tenths of a second, or read from its table in hundredths.

The table, `lbw.table.json`, is plain data. It is used only for the very grammar and lark version it
was built from, and only whole; otherwise the parser is built from the grammar, with the same result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lark

from lbw_policy.resources import grammar_path

OPTIONS: Mapping[str, Any] = {"propagate_positions": True, "maybe_placeholders": False}


def table_path() -> Path:
    """Return the path of the shipped table."""
    return grammar_path().with_name("lbw.table.json")


def parser() -> lark.Lark:
    """Return the parser of the language, from the shipped table if that fits the grammar."""
    grammar = grammar_path().read_text(encoding="utf-8")
    return read(grammar, table_path()) or build(grammar)


def build(grammar: str) -> lark.Lark:
    """Return a parser built from the text of a grammar."""
    # A basic lexer: the contextual one reads `cooldownx` as `cooldown` and `x` where no name fits.
    return lark.Lark(grammar, parser="lalr", lexer="basic", **OPTIONS)


def read(grammar: str, path: Path) -> lark.Lark | None:
    """Return the parser whose table a file holds; None unless it is whole and of this grammar and lark."""
    try:
        head, _, rest = path.read_text(encoding="utf-8").partition("\n")
        body = rest.removesuffix("}\n")
        if json.loads(head + "null}") != {**stamp(grammar, body), "table": None}:
            return None
        return _unpacked(json.loads(body))
    except (OSError, ValueError, RecursionError):
        return None


def stamp(grammar: str, body: str) -> dict[str, str]:
    """Return what a table is known by: its lark, its grammar, and its own content."""
    return {"lark": lark.__version__, "grammar": _sha256(grammar), "content": _sha256(body)}


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _unpacked(packed: dict[str, Any]) -> lark.Lark:
    table = packed["data"]["parser"]["parser"]
    pairs = [zip(row[::2], row[1::2], strict=True) for row in table["states"]]
    table["states"] = {
        state: {token: (1, {"@": -1 - to}) if to < 0 else (0, to) for token, to in row}
        for state, row in enumerate(pairs)
    }
    # Given a dict, lark reads plain data and never unpickles.
    return lark.Lark.load({"data": packed["data"], "memo": dict(enumerate(packed["memo"]))})
