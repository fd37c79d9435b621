"""A command that is used wrongly says so on stderr, and shows no traceback."""

from collections.abc import Callable, Sequence

import pytest


def refused(main: Callable[[Sequence[str]], object], capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must refuse its arguments, and return what it says."""
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return captured.err
