"""What an editor shows about the word under the cursor, as Markdown."""

from __future__ import annotations

import re

from attrs import frozen

from lbw_policy.authority import card
from lbw_policy.diagnostics import Span
from lbw_policy.editors.document import VALUES, Declaration, Document, Spot
from lbw_policy.editors.meanings import KEYWORDS, NAMES, UNITS
from lbw_policy.editors.words import RISK_PARTS, words
from lbw_policy.semantics.functions import FUNCTIONS, FunctionKind
from lbw_policy.semantics.signals import OWN, SIGNALS, Need, SignalKind
from lbw_policy.syntax import nodes

_NEEDS = {
    Need.OPTIMIZER: "the optimizer",
    Need.MODEL: "the model: `attach(..., model=model)`",
    Need.OBSERVED: "`guard.observe(...)` in the training loop",
    Need.CURVATURE: "`guard.curvature(loss)` in the training loop, before `loss.backward()`",
}
_WARM_UP = "not ready, and conditions on it false, until it has its warm-up: a quarter of the window, 8 samples or more"
_READY = {
    "finite": "always ready",
    "prev": "not ready until that many steps have passed",
    "rate": "ready from the first step; the window begins empty",
}
_MOST_LINES = 16


@frozen
class Hover:
    """What to show, and the characters it is about."""

    markdown: str
    span: Span


def hover(document: Document, offset: int) -> Hover | None:
    """Return what is known about the word at an offset, or None where there is nothing to say."""
    spot = document.spot(offset)
    shown = _shown(document, spot) if spot else None
    return Hover(shown, spot.span) if spot and shown else None


def _shown(document: Document, spot: Spot) -> str | None:
    match spot.role:
        case "part":
            return _part(spot)
        case "function" if spot.text in FUNCTIONS:
            return function_text(FUNCTIONS[spot.text])
        case "value":
            return _named(document, spot, VALUES) or _known(spot.text)
        case "level" | "reflex" | "alert" | "layers":
            return _named(document, spot, frozenset({spot.role}))
        case "unit" if spot.text in UNITS:
            return f"**{spot.text}**: {UNITS[spot.text]}"
        case "keyword":
            return keyword_text(document, spot.text)
        case "path":
            return None
    return _known(spot.text)


def _part(spot: Spot) -> str | None:
    if spot.owner == "telemetry":
        return signal_text(SIGNALS[spot.text]) if spot.text in SIGNALS else None
    if spot.owner == "observed":
        return f"**observed.{spot.text}**: the training script reports it by `guard.observe({spot.text}=...)`"
    return f"**{spot.owner}.{spot.text}**: {RISK_PARTS[spot.text]}" if spot.text in RISK_PARTS else None


def _known(text: str) -> str | None:
    if text in FUNCTIONS:
        return function_text(FUNCTIONS[text])
    if text in SIGNALS:
        return signal_text(SIGNALS[text])
    if text in OWN:
        return f"**{text}** : {OWN[text].unit}\n\n{OWN[text].meaning}; a number of the guard's own, read by name"
    meaning = NAMES.get(text) or KEYWORDS.get(text)
    return f"**{text}**: {meaning}" if meaning else None


def signal_text(kind: SignalKind) -> str:
    """Return a built-in signal's unit, meaning and need."""
    grouped = "; `of GROUP` takes it over a group of layers" if kind.grouped else ""
    return f"**telemetry.{kind.name}** : {kind.unit}\n\n{kind.meaning}\n\nneeds {_NEEDS[kind.need]}{grouped}"


def signature(kind: FunctionKind) -> str:
    """Return a function as it is called, with its result's unit."""
    window = ", N steps" if kind.windowed else ""
    if kind.default_window is not None:
        window = f" [{window}]"
    result = str(kind.unit) if kind.unit is not None else "the unit of x" + " per step" * (kind.name == "slope")
    return f"{kind.name}(x{window}{', P%' if kind.shares else ''}) : {result}"


def function_text(kind: FunctionKind) -> str:
    """Return a function's signature, meaning, an example, and when it is ready."""
    ready = _READY.get(kind.name) or (_WARM_UP if kind.windowed else "ready whenever its argument is")
    return f"```lbw\n{signature(kind)}\n```\n{kind.meaning}\n\nsuch as `{kind.example}`; {ready}"


def keyword_text(document: Document, word: str) -> str | None:
    """Return a keyword's meaning; of an action also its limit here, of `limits` what follows from all of them."""
    meaning = KEYWORDS.get(word)
    if meaning is None:
        return None
    more = _limit(document, word) if word in words().actions else _card(document) if word == "limits" else None
    return f"**{word}**: {meaning}" + (f"\n\n{more}" if more else "")


def _card(document: Document) -> str | None:
    """Return the authority card of the policy, if it checks."""
    policy = document.checked.policy
    return f"```text\n{card(policy).as_text()}\n```" if policy else None


def _limit(document: Document, action: str) -> str | None:
    blocks = [node for node in document.parsed.tree.statements if isinstance(node, nodes.Limits)]
    entries = [document.text(entry.span) for block in blocks for entry in block.entries if entry.name == action]
    if action == "halt":
        return "needs no limit"
    return f"limit here: `{_flat(entries[0])}`" if entries else "no limit in this policy, so it cannot be used"


def _named(document: Document, spot: Spot, kinds: frozenset[str]) -> str | None:
    found = document.find(spot.text, kinds)
    return declaration_text(found) if found else None


def declaration_text(declaration: Declaration) -> str:
    """Return a declaration as written, and of a signal what it reads."""
    lines = declaration.text.splitlines()
    text = "\n".join([*lines[:_MOST_LINES], *["..."] * (len(lines) > _MOST_LINES)])
    source = _source(declaration)
    return f"```lbw\n{text}\n```" + (f"\n{signal_text(source)}" if source else "")


def _source(declaration: Declaration) -> SignalKind | None:
    """Return the built-in signal that a `signal` statement reads."""
    found = _READS.search(declaration.text) if declaration.kind == "signal" else None
    return SIGNALS.get(found[1]) if found else None


_READS = re.compile(r"=\s*telemetry\s*\.\s*(\w+)")


def _flat(text: str) -> str:
    return " ".join(text.split())
