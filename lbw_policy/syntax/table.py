"""Writes the parser's table beside the grammar: `python -m lbw_policy.syntax.table`.

The first line of the file stamps it; the rest is lark's own serialisation as plain JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef
from lark.parsers.lalr_analysis import IntParseTable, Shift

from lbw_policy.resources import grammar_path
from lbw_policy.syntax.grammar import OPTIONS, build, stamp, table_path

_ENDLESS = 65_535
"""Stands for the width of an unbounded terminal; lark's own number differs from Python to Python."""


def text(grammar: str) -> str:
    """Return the content of the table file for a grammar: a line that stamps it, then the table."""
    body = json.dumps(_packed(build(grammar)), separators=(",", ":"), sort_keys=True) + "\n"
    head = json.dumps({**stamp(grammar, body), "table": None}, separators=(",", ":"))
    return head.removesuffix("null}") + "\n" + body + "}\n"


def _packed(built: Lark) -> dict[str, Any]:
    """Return lark's own serialisation, in an order that is the same on every run, each parser state in one row."""
    inner: Any = built.parser
    inner.lexer_conf.terminals.sort(key=lambda terminal: terminal.name)
    inner.parser._parse_table = _ordered(inner.parser._parse_table)
    data, memo = built.memo_serialize([TerminalDef, Rule])
    table = data["parser"]["parser"]
    states = [[number for token, action in row.items() for number in (token, _number(*action))]
              for row in table["states"].values()]  # fmt: skip
    table |= {"tokens": list(table["tokens"].values()), "states": states}
    data["options"] = {"start": ["start"], "parser": "lalr", "lexer": "basic", **OPTIONS}
    return {"data": data, "memo": [_portable(entry) for entry in memo.values()]}


def _number(completes: int, argument: Any) -> int:  # noqa: ANN401 - as lark has it, a state or a rule
    """Return the state a token leads to, or the rule it completes as a negative number."""
    return -1 - int(argument["@"]) if completes else int(argument)


def _portable(entry: dict[str, Any]) -> dict[str, Any]:
    width = entry.get("pattern", {}).get("_width")
    if width:
        entry["pattern"]["_width"] = [min(end, _ENDLESS) for end in width]
    return entry


def _ordered(table: IntParseTable) -> IntParseTable:
    """Return the table with its states numbered as a walk from the start, in order of names, meets them."""
    walk = list(table.start_states.values())
    found = {state: number for number, state in enumerate(walk)}
    for state in walk:
        for _, (action, argument) in sorted(table.states[state].items()):
            if action is Shift and argument not in found:
                found[argument] = len(walk)
                walk.append(argument)
    states = {found[state]: _row(table.states[state], found) for state in walk}
    ends = ({rule: found[state] for rule, state in end.items()} for end in (table.start_states, table.end_states))
    make: Callable[..., IntParseTable] = IntParseTable
    return make(states, *ends)


def _row(actions: Mapping[str, tuple[Any, Any]], found: Mapping[int, int]) -> dict[str, tuple[Any, Any]]:
    return {token: (kind, found[to] if kind is Shift else to) for token, (kind, to) in sorted(actions.items())}


def main() -> None:
    """Write the table of the grammar."""
    table_path().write_text(text(grammar_path().read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
