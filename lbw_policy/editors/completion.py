"""What may be written at the cursor: the parser says which kinds of word fit, tables and text say which words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen

from lbw_policy.diagnostics import Source
from lbw_policy.editors.document import VALUES, Declaration, Document, Lexeme
from lbw_policy.editors.hover import declaration_text, function_text, signal_text, signature
from lbw_policy.editors.meanings import KEYWORDS, NAMES, UNITS
from lbw_policy.editors.words import RISK_PARTS, ROOTS, SEVERITIES, words
from lbw_policy.resources import presets
from lbw_policy.semantics.functions import FUNCTIONS, FunctionKind
from lbw_policy.semantics.models import RISK_MODELS
from lbw_policy.semantics.signals import LAYER_STATISTICS, OWN, SIGNALS
from lbw_policy.syntax.parser import kinds_after

_PARTIAL = re.compile(r"[A-Za-z_0-9]*\Z")
_OPEN_PLACEHOLDER = re.compile(r'"[^"\n]*\{[A-Za-z_0-9]*\Z')
_VALUE = frozenset({"NAME", "NUMBER", "LPAR"})
_DURATION = frozenset({"NAME", "NUMBER"})
_NOTES = ("id", "why")


@frozen
class Item:
    """One proposal; `snippet` has `${1:x}` where something is to be filled in."""

    label: str
    kind: str
    detail: str = ""
    markdown: str = ""
    snippet: str = ""


def completions(document: Document, offset: int) -> list[Item]:
    """Return what fits at an offset, each label once, the most particular first."""
    offset = min(max(offset, 0), len(document.source.text))
    before = document.source.text[:offset]
    written = before[: len(before) - len(_PARTIAL.findall(before)[0])]
    found: dict[str, Item] = {}
    for item in _items(document, before, written):
        found.setdefault(item.label, item)
    return list(found.values())


def _items(document: Document, before: str, written: str) -> Iterator[Item]:
    context = Document(Source(document.source.name, written))
    last = [*context.lexemes[-3:]]
    if _OPEN_PLACEHOLDER.search(before[-400:]):
        yield from _names(document)
    elif _in_comment(before) or (last and last[-1].kind == "UNTERMINATED"):
        return
    elif last and last[-1].kind == "DOT":
        yield from _parts(document, last[-2].text if len(last) > 1 else "")
    elif last and last[-1].kind == "NOTE":
        yield from (Item(name, "property", NAMES[name]) for name in _NOTES)
    else:
        kinds = kinds_after(written)
        yield from _particular(document, context.lexemes, kinds)
        yield from _keywords(kinds)


def _in_comment(before: str) -> bool:
    line = before[before.rfind("\n") + 1 :]
    return "#" in re.sub(r'"([^"\\]|\\.)*"?', "", line)


def _parts(document: Document, owner: str) -> Iterator[Item]:
    if owner == "telemetry":
        for kind in SIGNALS.values():
            yield Item(kind.name, "signal", str(kind.unit), signal_text(kind))
    elif document.find(owner, frozenset({"risk"})):
        yield from (Item(part, "property", meaning) for part, meaning in RISK_PARTS.items())


def _keywords(kinds: frozenset[str]) -> Iterator[Item]:
    texts = words().kinds
    for text in sorted(texts[kind] for kind in kinds if kind in texts and texts[kind].isidentifier()):
        yield Item(text, "keyword", KEYWORDS.get(text, ""))


# Words that are no keywords


def _particular(document: Document, lexemes: tuple[Lexeme, ...], kinds: frozenset[str]) -> Iterator[Item]:
    """Yield the names that fit, judged by the words just before."""
    if "NAME" not in kinds:
        return
    last = [lexeme.kind for lexeme in lexemes[-3:]]
    match last:
        case [*_, "MODEL"]:
            yield from (Item(name, "value", NAMES.get(name, "")) for name in RISK_MODELS)
        case [*_, "EXTENDS"]:
            yield from (Item(name, "file", "preset") for name in presets())
        case [*_, "ON", "FAILURE"]:
            yield from (Item(word, "value", NAMES.get(word) or KEYWORDS[word]) for word in ("continue", "halt"))
        case [*_, "COLON"]:
            yield from (Item(unit, "unit", meaning) for unit, meaning in UNITS.items())
        case [*_, "BY"] if not kinds >= _VALUE:
            yield from (Item(name, "value", SIGNALS[name].meaning) for name in LAYER_STATISTICS)
        case [*_, "ALERT", _] | [*_, "ELSE", "ALERT"]:
            yield from (Item(word, "value", NAMES[word]) for word in SEVERITIES)
        case _:
            yield from _named(document, last, kinds)


def _named(document: Document, last: list[str], kinds: frozenset[str]) -> Iterator[Item]:
    match last:
        case [*_, "LEVELS"] | [*_, "__ANON_0"] | [*_, "LEVEL"]:
            yield from (_declared(d) for d in document.declarations if d.kind == "level")
        case [*_, "SIGNAL", _, "EQUAL"]:
            yield from (Item(root, "module", NAMES[root]) for root in ROOTS)
        case [*_, "OF"] if not kinds >= _DURATION:
            yield from (_declared(d) for d in document.declarations if d.kind == "layers")
        case [*_, "GIVEN"]:
            yield from (_declared(d) for d in document.declarations if d.kind == "signal")
        case [*_, ("REFLEX" | "ALERT") as kind]:
            yield from (_declared(d) for d in document.declarations if d.kind == kind.lower())
        case _ if kinds >= _VALUE:
            yield from _names(document)
            yield from (_function(kind) for kind in FUNCTIONS.values())
            yield from (Item(kind.name, "value", kind.meaning) for kind in OWN.values())
            yield from [Item("standard", "value", NAMES["standard"])] if last[-1:] == ["FEATURES"] else []
        case _ if kinds >= _DURATION:
            yield from (_declared(d) for d in document.declarations if d.kind == "param")
            yield Item("N steps", "unit", "a duration", snippet="${1:20} steps")


def _names(document: Document) -> Iterator[Item]:
    declared = [d for d in document.declarations if d.kind in VALUES]
    yield from (_declared(d) for d in declared)
    # INVARIANT: a name whose declaration cannot be read yet is offered too, without its text.
    known = {d.name for d in document.declarations}
    yield from (Item(name, "value") for name in sorted(document.parsed.declared - known) if name.isidentifier())


def _declared(declaration: Declaration) -> Item:
    return Item(declaration.name, declaration.kind, declaration.kind, declaration_text(declaration))


def _function(kind: FunctionKind) -> Item:
    window = f", ${{2:{kind.default_window or 128}}} steps" if kind.windowed else ""
    share = ", ${3:90}%" if kind.shares else ""
    return Item(kind.name, "function", signature(kind), function_text(kind), f"{kind.name}(${{1:x}}{window}{share})")
