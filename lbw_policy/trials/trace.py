"""What a run did, tick by tick."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from lbw_policy.limits import Grant, Outcome
from lbw_policy.machine import Decision, RiskValues


@frozen
class Moment:
    """One tick of a run: what was read, what was decided and granted, and where that left it.

    `values` has the signals that were due, None where there was no reading. `scale` is the lr factor
    of this tick's update, `progress` the accepted updates after it.
    """

    tick: int
    values: Mapping[str, float | None]
    risks: Mapping[str, RiskValues]
    decision: Decision
    grants: tuple[Grant, ...]
    scale: float
    progress: int

    @property
    def level(self) -> str:
        """The level after this tick's transition."""
        return self.decision.level

    def begins(self, action: str) -> bool:
        """Tell whether an intervention of this action begins: granted or reduced, and not merely held."""
        return any(
            grant.request.action == action and grant.starts and grant.outcome is not Outcome.REFUSED
            for grant in self.grants
        )

    def refuses(self, action: str) -> bool:
        """Tell whether a request for this action is refused."""
        return any(grant.request.action == action and grant.outcome is Outcome.REFUSED for grant in self.grants)

    def happens(self, kind: str, name: str) -> bool:
        """Tell whether an action begins, a reflex fires or an alert speaks."""
        if kind == "reflex":
            return name in self.decision.fired
        if kind == "alert":
            return any(message.alert == name for message in self.decision.messages)
        return self.begins(name)

    @property
    def quiet(self) -> bool:
        """Whether nothing changes: no transition, no message, no reflex, nothing that begins or is refused."""
        still = self.decision.previous == self.decision.level
        answered = any(grant.starts or grant.outcome is Outcome.REFUSED for grant in self.grants)
        return still and not answered and not self.decision.fired and not self.decision.messages


@frozen
class Trace:
    """A run: its ticks in order; a `halted` one ends before its series do."""

    moments: tuple[Moment, ...]
    halted: bool = False
