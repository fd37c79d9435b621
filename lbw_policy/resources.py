"""Finds grammar, preset policies and priors in a wheel, an editable install or a plain checkout."""

from __future__ import annotations

from pathlib import Path

from lbw_policy.errors import ResourceError

_PACKAGE = Path(__file__).resolve().parent


def folder(kind: str) -> Path:
    """Return the folder `grammar`, `policies` or `priors`; in a wheel it lies inside the package, else beside it.

    Raises:
        ResourceError: neither place has it.
    """
    for place in (_PACKAGE / kind, _PACKAGE.parent / kind):
        if place.is_dir():
            return place
    raise ResourceError(f"the folder `{kind}` that ships with lbw_policy is missing; reinstall the package")


def presets() -> dict[str, Path]:
    """Return the shipped policies by name, sorted."""
    return {path.stem: path for path in sorted(folder("policies").glob("*.lbw"))}


def priors() -> dict[str, Path]:
    """Return the shipped priors of risk models by the model's name, sorted."""
    return {path.stem: path for path in sorted(folder("priors").glob("*.json"))}


def code_pages() -> dict[str, Path]:
    """Return the pages about codes of findings by code, sorted; none where no page is installed."""
    for place in (_PACKAGE / "codes", _PACKAGE.parent / "docs" / "codes"):
        if place.is_dir():
            return {path.stem: path for path in sorted(place.glob("LBW[0-9][0-9][0-9].md"))}
    return {}


def grammar_path() -> Path:
    """Return the path of the one grammar file."""
    return folder("grammar") / "lbw.lark"
