"""Finds and reads policies: a path, the name of a preset, or the text itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lbw_policy.diagnostics import Diagnostic, Source, nearest, render
from lbw_policy.errors import PolicyError
from lbw_policy.resources import presets
from lbw_policy.semantics.checker import Checked, check_source
from lbw_policy.semantics.files import decode, exists, read
from lbw_policy.semantics.policy import Policy


def load(policy: str | os.PathLike[str], *, params: Mapping[str, float] | None = None) -> Policy:
    """Return the checked policy of a path, a preset's name, or a policy text.

    Args:
        policy: a path to an `.lbw` file, one of the presets' names, or a text with `{`.
        params: values for the policy's params, each inside its range.

    Raises:
        PolicyError: the policy does not check; it carries every diagnostic.
    """
    checked = check(policy, params=params)
    if checked.policy is None:
        raise PolicyError("\n".join(render(finding) for finding in checked.diagnostics), checked.diagnostics)
    return checked.policy


def check(policy: str | os.PathLike[str], *, params: Mapping[str, float] | None = None) -> Checked:
    """Return the policy, if it checks, and every finding; never raises on any input."""
    if isinstance(policy, str) and ("{" in policy or "\n" in policy):
        return check_source(Source("<text>", policy.removeprefix("\ufeff")), params)
    shipped = presets()
    if isinstance(policy, str) and policy in shipped:
        return check_path(shipped[policy], params)
    path = Path(policy)
    if path.suffix == "" and not exists(path):
        return _unknown(str(policy), tuple(shipped))
    return check_path(path, params)


def check_path(path: Path, params: Mapping[str, float] | None = None) -> Checked:
    """Check a policy file, with all it imports and extends."""
    found = read(path, str(path))
    return Checked(None, (found,)) if isinstance(found, Diagnostic) else check_source(found, params, path)


def check_bytes(
    name: str, raw: bytes, params: Mapping[str, float] | None = None, *, path: Path | None = None
) -> Checked:
    """Check a policy given as bytes, which must be UTF-8, with or without a byte order mark.

    `path` is where it stands or will stand: what it imports is looked for from there.
    """
    found = decode(name, raw)
    return Checked(None, (found,)) if isinstance(found, Diagnostic) else check_source(found, params, path)


def _unknown(name: str, shipped: tuple[str, ...]) -> Checked:
    meant = nearest(name, shipped)
    advice = f"did you mean `{meant}`?" if meant else f"presets: {', '.join(shipped)}"
    return Checked(
        None, (Diagnostic("LBW001", "no such file, and no preset of this name", Source(name, ""), help=advice),)
    )
