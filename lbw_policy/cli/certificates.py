"""Certificates on disk: written, read with suspicion, and checked again against their policy."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from lbw_policy.cli.proofs import FAILED, OPEN, PROVED, Proof
from lbw_policy.semantics import Policy
from lbw_policy.verify.certificate import certificate, verify

_MOST_BYTES = 16_000_000
"""The largest certificate that is read; that of a preset has 60 kB."""
_MOST_REASONS, _LONGEST, _WIDTH = 20, 200, 80


class Unusable(Exception):  # noqa: N818 - it carries a complaint to the one who called
    """A file that cannot be written, or holds nothing that could be a certificate; the message says why."""


@frozen
class Verified:
    """What became of a certificate that was checked again: why it is refused, if it is."""

    name: str
    path: Path
    reasons: tuple[str, ...]
    statuses: Counter[str]
    code: int

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        plain = {"version": 1, "path": self.name, "certificate": str(self.path), "holds": not self.reasons}
        return {**plain, "reasons": list(self.reasons), "summary": dict(self.statuses)}

    def lines(self) -> Iterator[str]:
        """Yield the outcome in words."""
        if not self.reasons:
            told = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
            yield f"{self.path}: holds of {self.name}; every promise was decided again: {told}"
            return
        yield f"{self.path}: refused, it does not hold of {self.name}"
        for reason in self.reasons[:_MOST_REASONS]:
            yield textwrap.fill(reason, _WIDTH, initial_indent="  - ", subsequent_indent="    ")
        more = len(self.reasons) - _MOST_REASONS
        if more > 0:
            yield f"  - and {more:_} more"
        yield "help: `--certificate` makes a new one, of the policy and params as they are now"


def write(path: Path, proof: Proof) -> None:
    """Write a policy's certificate; raises Unusable."""
    text = json.dumps(certificate(proof.policy, proof.results), indent=2) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot write `{path}`: {_reason(error)}") from error


def check(path: Path, name: str, policy: Policy, seconds: float) -> Verified:
    """Prove a policy again and compare; raises Unusable where the file is no JSON object."""
    document = _read(path)
    reasons = [_cut(reason) for reason in verify(policy, document, seconds=seconds)]
    entries = [] if reasons else document["promises"]
    code = FAILED if reasons else _code(entries)
    return Verified(name, path, tuple(reasons), Counter(entry["status"] for entry in entries), code)


def _code(entries: Sequence[dict[str, Any]]) -> int:
    """Return the exit code of what a certificate rightly says."""
    if any(entry["status"] == "failed" for entry in entries):
        return FAILED
    undecided = (entry["status"] == "unknown" or _only_tested(entry) for entry in entries)
    return OPEN if any(undecided) else PROVED


def _only_tested(entry: dict[str, Any]) -> bool:
    return entry["status"] == "tested" and bool(entry["obligations"])


def _cut(reason: str) -> str:
    return reason if len(reason) <= _LONGEST else reason[:_LONGEST] + "..."


def _read(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot read `{path}`: {_reason(error)}") from error
    if len(raw) > _MOST_BYTES:
        raise Unusable(f"`{path}` is no certificate: it has more than {_MOST_BYTES:_} bytes")
    try:
        return json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Unusable(f"`{path}` is no certificate: it is not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise Unusable(f"`{path}` is no certificate: {_of_json(error)}") from error


def _of_json(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"expected JSON, found a mistake in line {error.lineno}, column {error.colno}"
    return "expected JSON of a few layers and plain numbers"


def _reason(error: Exception) -> str:
    return ((error.strerror if isinstance(error, OSError) else "") or str(error)).lower()
