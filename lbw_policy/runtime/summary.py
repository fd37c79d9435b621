"""What a guard did so far, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import asdict, field, frozen

from lbw_policy.record import Ledger, instead
from lbw_policy.semantics.policy import Policy


@frozen
class Summary:
    """A guard's account of itself; `actions` counts outcomes by action, e.g. `{"skip": {"granted": 2}}`.

    `fallbacks` counts what was asked for instead of refused actions, "" for nothing: `{"skip": {"halt": 1}}`.
    `snapshots` says what memory they take, and where; `overhead` what the guard takes of a step; "" without. `tier` is
    where the reflexes act, `host` or `device`.
    """

    policy: str
    digest: str
    mode: str
    ticks: int
    progress: int
    level: str
    actions: Mapping[str, Mapping[str, int]]
    risks: Mapping[str, str]
    fallbacks: Mapping[str, Mapping[str, int]] = field(factory=dict)
    snapshots: str = ""
    overhead: str = ""
    tier: str = "host"

    def as_dict(self) -> dict[str, object]:
        """Return the summary as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"policy {self.policy} ({self.digest[:12]}), mode {self.mode}, tier {self.tier}",
            f"{self.ticks} ticks, {self.progress} updates kept, level {self.level}",
        ]
        for action, outcomes in sorted(self.actions.items()):
            lines.append(f"  {action}: " + counted(outcomes, self.fallbacks.get(action, {})))
        if not self.actions:
            lines.append("  no interventions")
        lines += [f"  risk {name}: {status}" for name, status in sorted(self.risks.items())]
        lines += [f"  snapshots: {self.snapshots}"] if self.snapshots else []
        lines += [f"  overhead: {self.overhead}"] if self.overhead else []
        return "\n".join(lines)


def counted(outcomes: Mapping[str, int], fallbacks: Mapping[str, int]) -> str:
    """Return how often an action was granted, reduced and refused, and what was asked for instead of it."""
    refused = ", ".join(f"{count} with {instead(name)}" for name, count in sorted(fallbacks.items()) if count)
    shown = [f"{count} {name}" for name, count in sorted(outcomes.items()) if count]
    return (", ".join(shown) or "none") + (f" ({refused})" if refused else "")


def by_action(counts: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Return counts by action, and under it by outcome or fallback."""
    found: dict[str, dict[str, int]] = {}
    for (action, name), count in sorted(counts.items()):
        found.setdefault(action, {})[name] = count
    return found


class Watched(Protocol):
    """What a summary is made from."""

    @property
    def mode(self) -> str:
        """`act` or `shadow`."""

    @property
    def tier(self) -> str:
        """`host` or `device`."""

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


def summarise(guard: Watched, risks: Mapping[str, str], ledger: Ledger, snapshots: str, overhead: str) -> Summary:
    """Return the account of a guard."""
    return Summary(
        policy=guard.policy.name,
        digest=guard.policy.digest,
        mode=guard.mode,
        ticks=guard.tick,
        progress=guard.progress,
        level=guard.level,
        actions=by_action(ledger.counts),
        risks=dict(risks),
        fallbacks=by_action(ledger.fallbacks),
        snapshots=snapshots,
        overhead=overhead,
        tier=guard.tier,
    )
