"""What a guard did so far, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import asdict, frozen

from lbw_policy.record import Ledger
from lbw_policy.semantics.policy import Policy


@frozen
class Summary:
    """A guard's account of itself; `actions` counts outcomes by action, e.g. `{"skip": {"granted": 2}}`."""

    policy: str
    digest: str
    mode: str
    ticks: int
    progress: int
    level: str
    actions: Mapping[str, Mapping[str, int]]
    risks: Mapping[str, str]

    def as_dict(self) -> dict[str, object]:
        """Return the summary as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"policy {self.policy} ({self.digest[:12]}), mode {self.mode}",
            f"{self.ticks} ticks, {self.progress} updates kept, level {self.level}",
        ]
        for action, outcomes in sorted(self.actions.items()):
            lines.append(f"  {action}: " + ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())))
        if not self.actions:
            lines.append("  no interventions")
        lines += [f"  risk {name}: {status}" for name, status in sorted(self.risks.items())]
        return "\n".join(lines)


class Watched(Protocol):
    """What a summary is made from."""

    @property
    def mode(self) -> str:
        """`act` or `shadow`."""

    @property
    def tick(self) -> int:
        """Ticks so far."""

    @property
    def policy(self) -> Policy:
        """The attached policy."""

    @property
    def progress(self) -> int:
        """Accepted updates."""

    @property
    def level(self) -> str:
        """The present level."""


def summarise(guard: Watched, risks: Mapping[str, str], ledger: Ledger) -> Summary:
    """Return the account of a guard."""
    actions: dict[str, dict[str, int]] = {}
    for (action, outcome), count in ledger.counts.items():
        actions.setdefault(action, {})[outcome] = count
    return Summary(
        policy=guard.policy.name,
        digest=guard.policy.digest,
        mode=guard.mode,
        ticks=guard.tick,
        progress=guard.progress,
        level=guard.level,
        actions=actions,
        risks=dict(risks),
    )
