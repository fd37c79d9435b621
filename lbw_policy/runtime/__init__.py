"""The loop: telemetry, risk, decision, limits and actions around each update.

The guard is imported, and torch with it, only when it is asked for: a replay needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbw_policy.runtime.attaching import attach
    from lbw_policy.runtime.guard import Guard
    from lbw_policy.runtime.summary import Summary

__all__ = ["Guard", "Summary", "attach"]

_HOMES = {"Guard": "guard", "Summary": "summary", "attach": "attaching"}


def __getattr__(name: str) -> object:
    """Import what is asked for."""
    if name in _HOMES:
        return getattr(import_module(f"lbw_policy.runtime.{_HOMES[name]}"), name)
    raise AttributeError(f"module `lbw_policy.runtime` has no attribute `{name}`")
