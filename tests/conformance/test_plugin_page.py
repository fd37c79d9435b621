"""The page for authors of plugins shows what the check prints."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from lbw_policy.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


def test_the_page_prints_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rewrite_cases: bool
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    command, shown = re.findall(r"^```text\n\$ lbw (.*?)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "my_plugins.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_plugins", raising=False)

    assert main(shlex.split(command)) == 1
    printed = capsys.readouterr().out
    if rewrite_cases:
        PAGE.write_text(page.replace(f"\n{shown}```", f"\n{printed}```"), encoding="utf-8")
        shown = printed
    sys.modules.pop("my_plugins", None)
    assert printed == shown
