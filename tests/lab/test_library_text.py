"""The text that the lab trains on."""

from pathlib import Path

import pytest
import torch

from lbw_policy.errors import ResourceError
from lbw_policy.lab.text import default_folders, library_prose, library_text, sources


def _library(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n" * 20)
    return root


def test_the_order_of_files_depends_on_their_names_and_not_on_where_the_library_lies(tmp_path: Path) -> None:
    names = [f"part{index}/module.py" for index in range(12)]
    here = _library(tmp_path / "here", names)
    there = _library(tmp_path / "there" / "deeper", names[::-1])
    assert [path.relative_to(here) for path in sources(here)] == [path.relative_to(there) for path in sources(there)]


def test_tests_and_installed_packages_are_left_out(tmp_path: Path) -> None:
    folder = _library(tmp_path, ["a.py", "site-packages/b.py", "x/test/c.py", "encodings/d.py", "notes.txt"])
    assert sources(folder) == [folder / "a.py"]


def test_this_python_has_enough_source_text_and_the_limit_is_kept() -> None:
    text = library_text(limit=300_000)
    assert len(text.train) + len(text.held_out) == 300_000
    assert len(text.held_out) == 15_000
    assert text.train.dtype == torch.uint8


def test_the_same_text_is_read_every_time() -> None:
    first, second = library_text(limit=50_000), library_text(limit=50_000)
    assert torch.equal(first.train, second.train)
    assert torch.equal(first.held_out, second.held_out)


def test_where_the_library_has_no_source_the_next_folder_stands_in(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    full = _library(tmp_path / "full", [f"module{index}.py" for index in range(9)])
    assert len(library_text(1000, [tmp_path / "missing", tmp_path / "empty", full]).train) == 950


def test_without_any_source_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="no Python source text"):
        library_text(1000, [tmp_path])


def test_the_fallback_exists_on_this_machine() -> None:
    assert len(default_folders()) == 2
    assert len(library_text(200_000, default_folders()[1:]).train) == 190_000


def test_prose_is_another_text_than_source() -> None:
    prose, without = library_prose(), library_text(limit=1_500_000, prose=False)
    assert prose is not None
    assert len(prose) > 200_000
    raw = bytes(prose[100_000:100_200].tolist())
    assert raw not in bytes(without.train.tolist())
