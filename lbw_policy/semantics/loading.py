"""Finds and reads policies: a path, the name of a preset, or the text itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from lbw_policy.diagnostics import Diagnostic, Source, nearest, render
from lbw_policy.errors import PolicyError
from lbw_policy.resources import presets
from lbw_policy.semantics.checker import Checked, check_source
from lbw_policy.semantics.policy import Policy

_MOST_BYTES = 8_000_000


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
        return check_source(Source("<text>", policy), params)
    shipped = presets()
    if isinstance(policy, str) and policy in shipped:
        return check_path(shipped[policy], params)
    path = Path(policy)
    if not path.exists() and path.suffix == "":
        return _unknown(str(policy), tuple(shipped))
    return check_path(path, params)


def check_path(path: Path, params: Mapping[str, float] | None = None) -> Checked:
    """Check a policy file."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        finding = Diagnostic("LBW001", f"cannot read the file: {reason}", Source(str(path), ""))
        return Checked(None, (finding,))
    except ValueError:  # a null byte in the name
        return Checked(None, (Diagnostic("LBW001", "cannot read the file: not a path", Source(repr(path), "")),))
    return check_bytes(str(path), raw, params)


def check_bytes(name: str, raw: bytes, params: Mapping[str, float] | None = None) -> Checked:
    """Check a policy given as bytes, which must be UTF-8."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"expected UTF-8 text, found byte 0x{raw[error.start]:02X} on line {line}"
        advice = "this looks like a binary file, or a text in another encoding"
        return Checked(None, (Diagnostic("LBW002", message, Source(name, ""), help=advice),))
    return check_source(Source(name, text), params)


def _unknown(name: str, shipped: tuple[str, ...]) -> Checked:
    meant = nearest(name, shipped)
    advice = f"did you mean `{meant}`?" if meant else f"presets: {', '.join(shipped)}"
    return Checked(
        None, (Diagnostic("LBW001", "no such file, and no preset of this name", Source(name, ""), help=advice),)
    )
