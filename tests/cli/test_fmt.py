"""`lbw fmt`: rewrites in place and at once, says what it would do, and leaves alone what it cannot read."""

from __future__ import annotations

import io
import stat
import sys
from pathlib import Path

import pytest

from lbw_policy.cli.main import main
from lbw_policy.resources import folder

UGLY = "lbw   1 policy p { }\nlet a=1 let long=2 # two\n"
CANONICAL = "lbw 1\n\npolicy p { }\n\nlet a    = 1\nlet long = 2  # two\n"
BROKEN = "lbw 1\npolicy p { }\nlet = 2\n"

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    return _file(tmp_path, "ugly.lbw", UGLY)


def _file(place: Path, name: str, text: str) -> Path:
    path = place / name
    path.write_bytes(text.encode())
    return path


def _text(path: Path) -> str:
    return path.read_bytes().decode()


def _type(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# In place


def test_files_are_rewritten_once_and_then_left_alone(ugly: Path, capsys: Capture) -> None:
    assert main(["fmt", str(ugly)]) == 0
    assert _text(ugly) == CANONICAL
    assert capsys.readouterr().out == f"reformatted: {ugly}\n1 file reformatted, 0 files already canonical\n"
    before = ugly.stat()
    assert main(["fmt", str(ugly)]) == 0
    assert capsys.readouterr().out == "0 files reformatted, 1 file already canonical\n"
    assert (ugly.stat().st_ino, ugly.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_mode_link_line_ends_and_byte_order_mark_are_kept(ugly: Path) -> None:
    ugly.write_bytes(b"\xef\xbb\xbf" + UGLY.replace("\n", "\r\n").encode())
    ugly.chmod(0o640)
    link = ugly.with_name("link.lbw")
    link.symlink_to(ugly)
    assert main(["fmt", str(link)]) == 0
    assert link.is_symlink()
    assert stat.S_IMODE(ugly.stat().st_mode) == 0o640
    assert ugly.read_bytes() == b"\xef\xbb\xbf" + CANONICAL.replace("\n", "\r\n").encode()


def test_folders_and_globs_name_files_each_formatted_once(ugly: Path, capsys: Capture) -> None:
    (ugly.parent / "deep").mkdir()
    deep = _file(ugly.parent / "deep", "deep.lbw", UGLY)
    _file(ugly.parent, "other.txt", UGLY)
    assert main(["fmt", str(ugly.parent), str(ugly.parent / "*.lbw"), str(ugly)]) == 0
    assert "2 files reformatted" in capsys.readouterr().out
    assert _text(deep) == _text(ugly) == CANONICAL
    assert _text(ugly.parent / "other.txt") == UGLY


def test_a_failed_write_leaves_the_file_whole_and_nothing_beside_it(
    ugly: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    assert main(["fmt", str(ugly)]) == 2
    assert capsys.readouterr().err == f"lbw fmt: cannot write `{ugly}`: permission denied\n"
    assert _text(ugly) == UGLY
    assert list(ugly.parent.iterdir()) == [ugly]


# Without writing


def test_check_lists_what_would_change_and_writes_nothing(ugly: Path, capsys: Capture) -> None:
    clean = _file(ugly.parent, "clean.lbw", CANONICAL)
    assert main(["fmt", "--check", str(clean), str(ugly)]) == 1
    expected = f"would reformat: {ugly}\n1 file would be reformatted, 1 file already canonical\n"
    assert capsys.readouterr().out == expected
    assert main(["fmt", "--check", str(clean)]) == 0
    assert _text(ugly) == UGLY


def test_diff_shows_what_would_change_and_writes_nothing(ugly: Path, capsys: Capture) -> None:
    assert main(["fmt", "--diff", str(ugly)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"--- {ugly} (as it is)", f"+++ {ugly} (canonical)"]
    assert [line for line in lines[3:] if line[0] == "+"] == [f"+{line}" for line in CANONICAL.splitlines()]
    assert _text(ugly) == UGLY
    ugly.write_text(CANONICAL)
    assert main(["fmt", "--diff", str(ugly)]) == 0
    assert capsys.readouterr().out == ""


def test_diff_tells_of_a_missing_last_line_end(ugly: Path, capsys: Capture) -> None:
    ugly.write_text(CANONICAL.rstrip("\n"))
    assert main(["fmt", "--diff", str(ugly)]) == 1
    assert "-let long = 2  # two\n\\ No newline at end of file\n+let long = 2  # two\n" in capsys.readouterr().out


# Standard input


def test_standard_input_goes_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    _type(monkeypatch, UGLY.encode())
    assert main(["fmt", "-"]) == 0
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == CANONICAL.encode()


def test_standard_input_can_be_checked(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    _type(monkeypatch, UGLY.encode())
    assert main(["fmt", "--check", "-"]) == 1
    assert "would reformat: <stdin>" in capsys.readouterr().out


def test_standard_input_and_files_do_not_mix(ugly: Path, capsys: Capture) -> None:
    assert main(["fmt", "-", str(ugly)]) == 2
    assert "cannot be mixed" in capsys.readouterr().err
    assert _text(ugly) == UGLY


# What cannot be formatted


@pytest.mark.parametrize("option", [[], ["--check"], ["--diff"]])
@pytest.mark.parametrize(
    ("content", "code"), [(BROKEN.encode(), "LBW100"), (b"\xff\xfe", "LBW002"), (b"", "LBW005"), (b"a\0", "LBW004")]
)
def test_a_file_that_cannot_be_read_is_reported_and_left_as_it_is(
    option: list[str], content: bytes, code: str, ugly: Path, capsys: Capture
) -> None:
    ugly.write_bytes(content)
    assert main(["fmt", *option, str(ugly)]) == 2
    captured = capsys.readouterr()
    assert f"error[{code}]" in captured.err
    assert str(ugly) not in captured.out
    assert ugly.read_bytes() == content


def test_other_files_are_formatted_all_the_same(ugly: Path) -> None:
    broken = _file(ugly.parent, "broken.lbw", BROKEN)
    assert main(["fmt", str(broken), str(ugly)]) == 2
    assert (_text(broken), _text(ugly)) == (BROKEN, CANONICAL)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.lbw", "cannot read the file: no such file or directory"),
        ("conservative", "cannot read the file: no such file or directory"),
        ("", "expected a path, found an empty word"),
        ("*.nothing", "the glob matches no file"),
        ("empty_folder", "the folder has no `.lbw` file"),
        ("a\0b", "not a path"),
    ],
)
def test_a_name_of_no_file_is_told_in_words(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "empty_folder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["fmt", name]) == 2
    assert reason in capsys.readouterr().err


def test_a_broken_standard_input_writes_no_output(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    _type(monkeypatch, BROKEN.encode())
    assert main(["fmt", "-"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "<stdin>:3:5: error[LBW100]" in captured.err


def test_shipped_policies_are_canonical() -> None:
    assert main(["fmt", "--check", str(folder("policies"))]) == 0
