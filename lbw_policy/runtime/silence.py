"""Notices signals that the loop should tell and never does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lbw_policy.semantics.policy import Policy
from lbw_policy.semantics.signals import SIGNALS, Need

_PATIENCE = 20
"""Ticks after which a signal that was never told is worth a warning."""


class Silence:
    """Counts ticks, and says once which signals had no reading in any of the first of them."""

    def __init__(self, policy: Policy) -> None:
        told = {signal.name: _call(signal.source, signal.observed) for signal in policy.signals}
        self._silent: dict[str, str] | None = {name: call for name, call in told.items() if call}
        self._ticks = 0

    def notice(self, values: Mapping[str, float | None]) -> Iterator[str]:
        """Take note of a tick's readings, and yield what is worth a warning."""
        self._ticks += 1
        if self._silent is None:
            return
        self._silent = {name: call for name, call in self._silent.items() if values.get(name) is None}
        if self._ticks > _PATIENCE:
            silent, self._silent = self._silent, None
            for name, call in sorted(silent.items()):
                yield f"signal `{name}` was never observed: call `{call}`"


def _call(source: str, observed: bool) -> str:
    """Return what the loop calls to tell a signal, empty for one that is measured."""
    if observed or source == "loss":
        return "guard.observe(...)"
    return "guard.curvature(loss)" if source in SIGNALS and SIGNALS[source].need is Need.CURVATURE else ""
