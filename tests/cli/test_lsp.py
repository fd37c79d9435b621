"""A real client drives `lbw lsp` over its standard input and output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from lbw_policy.cli import lsp
from lbw_policy.cli.main import main
from lbw_policy.editors.document import Document

_URI = "file:///policies/here.lbw"
_GOOD = """\
lbw 1
policy p { doc "d" }
signal loss = telemetry.loss
reflex tall { when loss > 2 do skip }
limits { skip at most 4 in a row, at most 20 per 1_000 steps }
"""
_CAPABILITIES = {"textDocument": {"completion": {"completionItem": {"snippetSupport": True}}}}


class Client:
    """Speaks JSON-RPC with a server process, framed as the protocol says."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.heard: list[dict[str, Any]] = []
        self._last = 0
        self._version = 1

    def send(self, method: str, params: object, **more: object) -> None:
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}).encode()
        pipe = _pipe(self.process.stdin)
        pipe.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        pipe.flush()

    def read(self) -> dict[str, Any]:
        pipe, length = _pipe(self.process.stdout), 0
        while (line := pipe.readline().strip()) or not length:
            assert line or self.process.poll() is None, "the server ended"
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return dict(json.loads(pipe.read(length)))

    def ask(self, method: str, params: object = None) -> Any:  # noqa: ANN401 - JSON
        self._last += 1
        self.send(method, params, id=self._last)
        while (answer := self.read()).get("id") != self._last:
            self.heard.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def findings(self) -> list[dict[str, Any]]:
        """Wait for the next findings."""
        while True:
            message = self.heard.pop(0) if self.heard else self.read()
            if message.get("method") == "textDocument/publishDiagnostics":
                return list(message["params"]["diagnostics"])

    def open(self, text: str, uri: str = _URI) -> list[dict[str, Any]]:
        item = {"uri": uri, "languageId": "lbw", "version": 1, "text": text}
        self.send("textDocument/didOpen", {"textDocument": item})
        return self.findings()

    def change(self, *texts: str) -> list[dict[str, Any]]:
        for text in texts:
            self._version += 1
            document = {"uri": _URI, "version": self._version}
            self.send("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})
        return self.findings()

    def at(self, method: str, line: int, character: int, **more: object) -> Any:  # noqa: ANN401 - JSON
        position = {"line": line, "character": character}
        params = {"textDocument": {"uri": _URI}, "position": position, **more}
        return self.ask(f"textDocument/{method}", params)

    def about(self, method: str, **more: object) -> Any:  # noqa: ANN401 - JSON
        return self.ask(f"textDocument/{method}", {"textDocument": {"uri": _URI}, **more})


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


@pytest.fixture(scope="module")
def server() -> Iterator[Client]:
    words = [sys.executable, "-m", "lbw_policy.cli.main", "lsp", "--stdio"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        client = Client(process)
        offered = client.ask("initialize", {"processId": None, "rootUri": None, "capabilities": _CAPABILITIES})
        client.send("initialized", {})
        client.heard.append(offered)
        try:
            yield client
        finally:
            process.kill()


@pytest.fixture
def client(server: Client) -> Iterator[Client]:
    """The server with a sound policy open."""
    server.heard.clear()
    assert server.open(_GOOD) == []
    yield server
    server.send("textDocument/didClose", {"textDocument": {"uri": _URI}})
    assert server.findings() == []


def test_findings_come_with_range_severity_code_and_help(client: Client) -> None:
    (found,) = client.change(_GOOD.replace("telemetry.loss", "telemetry.los"))

    assert found["range"] == {"start": {"line": 2, "character": 24}, "end": {"line": 2, "character": 27}}
    assert (found["severity"], found["code"], found["source"]) == (1, "LBW222", "lbw")
    assert found["data"] == {"help": "did you mean `loss`?"}
    assert "help: did you mean `loss`?" in found["message"]


def test_a_warning_is_one(client: Client) -> None:
    (found,) = client.change(_GOOD + "let unused = loss / 2\n")

    assert (found["severity"], found["code"]) == (2, "LBW401")


def test_columns_after_an_emoji_count_utf_16_units(client: Client) -> None:
    mistake = 'alert a info when loss > 2 "😀😀" let b = lss\n'
    (found, *_) = client.change(_GOOD + mistake)

    assert found["range"]["start"] == {"line": 5, "character": len('alert a info when loss > 2 "😀😀" let b = ') + 2}
    assert client.at("hover", 5, 18 + 2) is not None


def test_only_the_last_of_quick_changes_is_checked_and_a_save_checks_at_once(client: Client) -> None:
    assert client.change("let", "let a", "let a = ", _GOOD) == []
    client.send("textDocument/didSave", {"textDocument": {"uri": _URI}})

    assert client.findings() == []


def test_a_finding_in_an_imported_file_stands_at_the_top_with_its_place(client: Client, tmp_path: Path) -> None:
    (tmp_path / "far.lbw").write_text("lbw 1\nsignal far = telemetry.los\n", encoding="utf-8")
    uri = (tmp_path / "here.lbw").as_uri()
    found = client.open('lbw 1\nimport "far.lbw"\npolicy p { doc "d" }\n', uri)
    position = {"textDocument": {"uri": uri}, "position": {"line": 1, "character": 9}}
    target = client.ask("textDocument/definition", position)

    assert [(each["range"]["start"]["line"], each["code"]) for each in found] == [(0, "LBW222")]
    assert f"{tmp_path / 'far.lbw'}:2: unknown signal `los`" in found[0]["message"]
    assert target["uri"] == (tmp_path / "far.lbw").as_uri()
    _check_after_saving(client, tmp_path / "far.lbw", uri)


def _check_after_saving(client: Client, imported: Path, uri: str) -> None:
    """Once the imported file is mended and saved, the open one has no finding about it."""
    imported.write_text("lbw 1\nsignal far = telemetry.loss\n", encoding="utf-8")
    client.send("textDocument/didSave", {"textDocument": {"uri": imported.as_uri()}})
    found = [finding["code"] for _ in range(2) for finding in client.findings()]
    client.send("textDocument/didClose", {"textDocument": {"uri": uri}})

    assert "LBW222" not in found
    assert client.findings() == []


def test_hover_definition_and_outline(client: Client) -> None:
    shown = client.at("hover", 3, 20)
    target = client.at("definition", 3, 20)

    assert "signal loss = telemetry.loss" in shown["contents"]["value"]
    assert target["uri"] == _URI
    assert target["range"]["start"] == {"line": 2, "character": 7}
    assert [symbol["name"] for symbol in client.about("documentSymbol")] == ["p", "loss", "tall", "limits"]
    assert client.at("hover", 0, 4) is None
    assert client.at("definition", 0, 0) is None


def test_completion_gives_names_and_snippets(client: Client) -> None:
    client.change(_GOOD + "let a = ")
    items = {item["label"]: item for item in client.at("completion", 5, 8)["items"]}

    assert items["loss"]["detail"] == "signal"
    assert items["median"]["insertText"] == "median(${1:x}, ${2:128} steps)"
    assert items["median"]["insertTextFormat"] == 2


def test_a_quick_fix_edits_the_word(client: Client) -> None:
    (found,) = client.change(_GOOD.replace("telemetry.loss", "telemetry.los"))
    (action,) = client.about("codeAction", range=found["range"], context={"diagnostics": [found]})

    assert action["kind"] == "quickfix"
    assert action["edit"]["changes"] == {_URI: [{"range": found["range"], "newText": "loss"}]}
    elsewhere = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 1}}
    assert client.about("codeAction", range=elsewhere, context={"diagnostics": []}) == []


def test_formatting_gives_the_canonical_text_or_nothing(client: Client) -> None:
    from lbw_policy.diagnostics import Source
    from lbw_policy.editors.formatting import formatted

    untidy = _GOOD.replace("policy p {", "policy   p\n{")
    client.change(untidy)
    edits = client.about("formatting", options={"tabSize": 2, "insertSpaces": True})
    wanted = formatted(Document(Source("here.lbw", untidy)))

    assert [edit["newText"] for edit in edits] == ([wanted] if wanted else [])
    client.change("lbw 1 policy {")
    assert client.about("formatting", options={"tabSize": 2, "insertSpaces": True}) == []


@pytest.mark.parametrize(
    "text", ["", "\ud800", "{" * 3000, "\x00\x01", 'let a = "', "é😀\r\r\n\u2028 lbw", "x" * 300_000]
)
def test_no_text_ends_the_server(client: Client, text: str) -> None:
    assert client.change(text)
    for method in ("hover", "completion", "definition"):
        client.at(method, 0, 3)
        client.at(method, 9999, 9999)
    client.about("documentSymbol")

    assert client.change(_GOOD) == []


def test_it_says_what_it_can_and_ends_when_asked() -> None:
    """The whole life of a server: hello, shutdown, exit code 0."""
    words = [sys.executable, "-m", "lbw_policy.cli.main", "lsp"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        client = Client(process)
        encodings = {"general": {"positionEncodings": ["utf-32"]}}
        offered = client.ask("initialize", {"processId": None, "rootUri": None, "capabilities": encodings})
        client.send("initialized", {})
        found = client.open(_GOOD + 'alert a info when loss > 2 "😀😀" let b = lss\n')
        client.ask("shutdown")
        client.send("exit", None)

        assert process.wait(timeout=10) == 0
    abilities = offered["capabilities"]
    assert offered["serverInfo"]["name"] == "lbw"
    assert abilities["textDocumentSync"]["change"] == 1
    assert {"hoverProvider", "completionProvider", "definitionProvider", "documentSymbolProvider"} <= set(abilities)
    assert {"documentFormattingProvider", "codeActionProvider"} <= set(abilities)
    assert found[0]["range"]["start"]["character"] == len('alert a info when loss > 2 "😀😀" let b = ')


def test_without_pygls_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lsp.importlib.util, "find_spec", lambda name: None)

    assert main(["lsp"]) == 2
    assert 'pip install "lbw_policy[lsp]"' in capsys.readouterr().err


def test_the_command_loads_no_server_before_it_runs() -> None:
    script = "import lbw_policy.cli.lsp, sys; print([m for m in ('pygls', 'lsprotocol', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"
