"""The language server: translates between the editor protocol and the pure functions beside it.

Texts come whole with every change, so that only this package decides where lines begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls import uris
from pygls.lsp.server import LanguageServer

from lbw_policy.diagnostics import Diagnostic, Severity, Source, Span
from lbw_policy.editors.completion import Item, completions
from lbw_policy.editors.document import Document
from lbw_policy.editors.fixes import fixes
from lbw_policy.editors.formatting import formatted
from lbw_policy.editors.hover import hover
from lbw_policy.editors.navigation import Symbol, definition, outline
from lbw_policy.editors.positions import Lines
from lbw_policy.semantics.files import read

PAUSE = 0.15
"""Seconds without typing before a text is checked."""
_SEVERITIES = {
    Severity.ERROR: types.DiagnosticSeverity.Error,
    Severity.WARNING: types.DiagnosticSeverity.Warning,
}
_ITEMS = {
    "keyword": types.CompletionItemKind.Keyword,
    "function": types.CompletionItemKind.Function,
    "signal": types.CompletionItemKind.Field,
    "param": types.CompletionItemKind.Constant,
    "let": types.CompletionItemKind.Variable,
    "risk": types.CompletionItemKind.Class,
    "level": types.CompletionItemKind.EnumMember,
    "unit": types.CompletionItemKind.Unit,
    "property": types.CompletionItemKind.Property,
    "module": types.CompletionItemKind.Module,
    "file": types.CompletionItemKind.File,
}
_SYMBOLS = {
    "policy": types.SymbolKind.Module,
    "param": types.SymbolKind.Constant,
    "signal": types.SymbolKind.Field,
    "let": types.SymbolKind.Variable,
    "risk": types.SymbolKind.Class,
    "reflex": types.SymbolKind.Event,
    "level": types.SymbolKind.EnumMember,
    "levels": types.SymbolKind.Enum,
    "limits": types.SymbolKind.Interface,
    "test": types.SymbolKind.Method,
}


class View:
    """One open text, with the translation of its places."""

    def __init__(self, uri: str, text: str, encoding: str) -> None:
        self.uri = uri
        path = uris.to_fs_path(uri) if uri.startswith("file:") else None
        self.document = Document(Source(path or uri, text), Path(path) if path else None)
        self.lines = Lines(text, encoding)

    def offset(self, position: types.Position) -> int:
        """Return the offset of a position."""
        return self.lines.offset(position.line, position.character)

    def range(self, span: Span) -> types.Range:
        """Return the range of a span."""
        start, end = (types.Position(*self.lines.position(offset)) for offset in (span.start, span.end))
        return types.Range(start, end)


class Server(LanguageServer):
    """A language server that keeps the view of each text until the text changes."""

    def __init__(self, version: str) -> None:
        super().__init__("lbw", version, types.TextDocumentSyncKind.Full)
        self._views: dict[str, View] = {}

    def view(self, uri: str) -> View:
        """Return the view of a text as it is now."""
        text = str(self.workspace.get_text_document(uri).source)
        known = self._views.get(uri)
        if known is None or known.document.source.text != text:
            known = self._views[uri] = View(uri, text, self._encoding())
        return known

    def elsewhere(self, path: Path, span: Span) -> types.Location | None:
        """Return a place in a file that need not be open; None if it has gone."""
        source = read(path, str(path))
        if isinstance(source, Diagnostic):
            return None
        uri = path.resolve().as_uri()
        return types.Location(uri, View(uri, source.text, self._encoding()).range(span))

    def _encoding(self) -> str:
        asked = self.workspace.position_encoding
        return str(getattr(asked, "value", asked))

    def forget(self, uri: str) -> None:
        """Drop a closed text and take back its findings."""
        self._views.pop(uri, None)
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))

    def publish(self, uri: str) -> None:
        """Send the findings of a text."""
        view, version = self.view(uri), self.workspace.get_text_document(uri).version
        found = [diagnostic(view, finding) for finding in view.document.checked.diagnostics]
        self.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, found, version))

    def publish_all(self) -> None:
        """Send the findings of every open text anew: any of them may import the file just saved."""
        self._views.clear()
        for uri in list(self.workspace.text_documents):
            self.publish(uri)

    async def publish_when_still(self, uri: str) -> None:
        """Send the findings of a text once nobody has changed it for a while."""
        version = self.workspace.get_text_document(uri).version
        await asyncio.sleep(PAUSE)
        if uri in self.workspace.text_documents and self.workspace.get_text_document(uri).version == version:
            self.publish(uri)


# Ours -> the protocol's


def diagnostic(view: View, finding: Diagnostic) -> types.Diagnostic:
    """Return a finding for the editor; one about another file stands at the top, with that file's name."""
    own = finding.source.name == view.document.source.name
    message = finding.message if own else f"{_place(finding)}: {finding.message}"
    return types.Diagnostic(
        range=view.range(finding.span if own and finding.span else Span(0, 0)),
        message=f"{message}\nhelp: {finding.help}" if finding.help else message,
        severity=_SEVERITIES.get(finding.severity, types.DiagnosticSeverity.Information),
        code=finding.code,
        source="lbw",
        data={"help": finding.help},
    )


def _place(finding: Diagnostic) -> str:
    line = finding.source.position(finding.span.start)[0] if finding.span else 1
    return f"{finding.source.name}:{line}"


def _item(item: Item, *, snippets: bool) -> types.CompletionItem:
    snippet = item.snippet if snippets else ""
    return types.CompletionItem(
        label=item.label,
        kind=_ITEMS.get(item.kind, types.CompletionItemKind.Value),
        detail=item.detail or None,
        documentation=_markdown(item.markdown) if item.markdown else None,
        insert_text=snippet or None,
        insert_text_format=types.InsertTextFormat.Snippet if snippet else None,
    )


def _markdown(text: str) -> types.MarkupContent:
    return types.MarkupContent(types.MarkupKind.Markdown, text)


def _symbol(view: View, symbol: Symbol) -> types.DocumentSymbol:
    kind = _SYMBOLS.get(symbol.kind, types.SymbolKind.Object)
    return types.DocumentSymbol(symbol.name, kind, view.range(symbol.span), view.range(symbol.name_span), symbol.kind)


# What an editor may ask


def build(version: str) -> Server:
    """Return a server with every feature."""
    server = Server(version)
    _follow(server)
    _answer(server)
    _edit(server)
    return server


def _follow(server: Server) -> None:
    """Keep the findings up to date."""

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        server.publish(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def saved(_params: types.DidSaveTextDocumentParams) -> None:
        server.publish_all()

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    async def changed(params: types.DidChangeTextDocumentParams) -> None:
        await server.publish_when_still(params.text_document.uri)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        server.forget(params.text_document.uri)


def _answer(server: Server) -> None:
    """Tell about the word at a place."""

    @server.feature(types.TEXT_DOCUMENT_HOVER)
    def hovered(params: types.HoverParams) -> types.Hover | None:
        view = server.view(params.text_document.uri)
        found = hover(view.document, view.offset(params.position))
        return types.Hover(_markdown(found.markdown), view.range(found.span)) if found else None

    @server.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions(trigger_characters=[".", "{", "@"]))
    def completed(params: types.CompletionParams) -> types.CompletionList:
        view, snippets = server.view(params.text_document.uri), _takes_snippets(server.client_capabilities)
        found = completions(view.document, view.offset(params.position))
        return types.CompletionList(is_incomplete=False, items=[_item(item, snippets=snippets) for item in found])

    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    def defined(params: types.DefinitionParams) -> types.Location | None:
        view = server.view(params.text_document.uri)
        found = definition(view.document, view.offset(params.position))
        if found is None or found.path is None:
            return types.Location(view.uri, view.range(found.span)) if found else None
        return server.elsewhere(found.path, found.span)

    @server.feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)
    def outlined(params: types.DocumentSymbolParams) -> list[types.DocumentSymbol]:
        view = server.view(params.text_document.uri)
        return [_symbol(view, symbol) for symbol in outline(view.document)]


def _takes_snippets(capabilities: types.ClientCapabilities) -> bool:
    found: Any = capabilities
    for name in ("text_document", "completion", "completion_item", "snippet_support"):
        found = getattr(found, name, None)
    return bool(found)


def _edit(server: Server) -> None:
    """Change a text."""

    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    def laid_out(params: types.DocumentFormattingParams) -> list[types.TextEdit]:
        view = server.view(params.text_document.uri)
        text = formatted(view.document)
        whole = view.range(Span(0, len(view.document.source.text)))
        return [] if text is None else [types.TextEdit(whole, text)]

    kinds = types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix])

    @server.feature(types.TEXT_DOCUMENT_CODE_ACTION, kinds)
    def mended(params: types.CodeActionParams) -> list[types.CodeAction]:
        view = server.view(params.text_document.uri)
        start, end = view.offset(params.range.start), view.offset(params.range.end)
        return list(_actions(view, _touched(view, start, end)))


def _touched(view: View, start: int, end: int) -> list[Diagnostic]:
    """Return the findings of this text whose span touches a range."""
    return [
        finding
        for finding in view.document.checked.diagnostics
        if finding.source.name == view.document.source.name
        and finding.span is not None
        and finding.span.start <= end
        and start <= finding.span.end
    ]


def _actions(view: View, findings: Iterable[Diagnostic]) -> Iterable[types.CodeAction]:
    for finding, fix in fixes(findings):
        edit = types.TextEdit(view.range(fix.span), fix.text)
        yield types.CodeAction(
            title=fix.title,
            kind=types.CodeActionKind.QuickFix,
            diagnostics=[diagnostic(view, finding)],
            is_preferred=True,
            edit=types.WorkspaceEdit(changes={view.uri: [edit]}),
        )
