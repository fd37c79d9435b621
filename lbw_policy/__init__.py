"""lbw_policy: the declarative policy engine for training stability.

Write a policy, check it with `lbw-check`, attach it to any torch optimizer:

    import lbw_policy as lbw

    guard = lbw.attach(optimizer, lbw.load("transformer_pretraining"), model=model)

Importing the package imports no torch; the first use of `attach` or `Guard` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lbw_policy.diagnostics import Diagnostic, Severity
from lbw_policy.errors import AttachError, Halted, LBWError, PolicyError, ResourceError, StateError
from lbw_policy.resources import presets
from lbw_policy.semantics import Policy, check, load
from lbw_policy.version import __version__ as __version__

if TYPE_CHECKING:
    from lbw_policy.record import Intervention
    from lbw_policy.runtime import Guard, Summary, attach

__all__ = [
    "AttachError",
    "Diagnostic",
    "Guard",
    "Halted",
    "Intervention",
    "LBWError",
    "Policy",
    "PolicyError",
    "ResourceError",
    "Severity",
    "StateError",
    "Summary",
    "attach",
    "check",
    "load",
    "presets",
]

_RUNTIME = ("Guard", "Summary", "attach")


def __getattr__(name: str) -> object:
    """Import the runtime half, and with it torch, only when it is asked for."""
    if name in _RUNTIME:
        from lbw_policy import runtime

        return getattr(runtime, name)
    if name == "Intervention":
        from lbw_policy.record import Intervention

        return Intervention
    raise AttributeError(f"module `lbw_policy` has no attribute `{name}`")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*globals(), *_RUNTIME, "Intervention"])
