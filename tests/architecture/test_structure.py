"""The structure is held by tests: direction of imports, purity, exported names, sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lbw_policy

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lbw_policy"
MODULES = sorted(PACKAGE.rglob("*.py"))
_FORBIDDEN = {"utils", "common", "helpers", "helper", "manager", "handler", "processor", "engine"}


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_imports_go_one_way_and_the_language_half_is_pure() -> None:
    found = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert found.returncode == 0, found.stdout


def test_the_public_names_are_those_listed() -> None:
    for name in lbw_policy.__all__:
        assert getattr(lbw_policy, name) is not None

    assert sorted(lbw_policy.__all__) == lbw_policy.__all__
    assert set(lbw_policy.__all__) <= set(dir(lbw_policy))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute `nonsense`"):
        lbw_policy.nonsense  # noqa: B018


@pytest.mark.parametrize("command", ["import lbw_policy", "import lbw_policy.cli.check", "import lbw_policy.cli.main"])
def test_the_language_half_loads_without_torch_river_or_numpy(command: str) -> None:
    script = f"{command}, sys; print([m for m in ('torch', 'river', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)

    assert found.stdout.strip() == "[]"


def test_folders_are_one_level_deep_and_no_file_is_long() -> None:
    assert all(len(path.relative_to(PACKAGE).parts) <= 2 for path in MODULES)
    assert not [path for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 500]
    assert not [path for path in MODULES if path.stem in _FORBIDDEN]


def test_no_function_is_longer_than_35_lines_of_code() -> None:
    long = [
        f"{path.name}:{function.name}"
        for path in MODULES
        for function in _functions(path)
        if _code_lines(function) > 35
    ]

    assert not long


def _code_lines(function: ast.FunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return sum((node.end_lineno or 0) - node.lineno + 1 for node in body)


def test_nothing_loads_code_from_data() -> None:
    """Loading a guard, a model or a policy never executes code."""
    banned = ("pickle", "marshal", "shelve", "dill", "cloudpickle")
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        calls = {function.id for function in called if isinstance(function, ast.Name)}

        assert not names & set(banned), path
        assert not calls & {"eval", "exec"}, path
