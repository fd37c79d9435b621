"""The policy that is tuned."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from lbw_policy.diagnostics import Source
from lbw_policy.semantics import Policy


@frozen(eq=False)
class Subject:
    """A policy as it is, its text, and where it stands: what it imports is looked for from `path`.

    `path` is None for a text from the standard input. `alarm` is what counts as an alarm, a key of `counting.RULES`.
    """

    policy: Policy
    source: Source
    path: Path | None = None
    alarm: str = "interventions"
