"""Every exception the package raises on purpose.

LBWError
|-- PolicyError          a policy text that does not check; carries its diagnostics
|-- AttachError          a policy that does not fit this optimizer, model or call
|-- StateError           a saved state that is damaged or belongs to another policy
|-- ResourceError        a preset or grammar file that cannot be found
|-- TraceError           recorded telemetry that cannot be read, or lacks what a policy reads
|-- TuneError            recorded runs on which no params of this policy can be chosen
`-- Halted               a policy's `halt` action stopped the run
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbw_policy.diagnostics import Diagnostic


class LBWError(Exception):
    """The base of every error this package raises on purpose."""


class PolicyError(LBWError, ValueError):
    """A policy text does not check; `diagnostics` has every finding, `str()` renders them."""

    def __init__(self, message: str, diagnostics: tuple[Diagnostic, ...] = ()) -> None:
        super().__init__(message)
        self.diagnostics = diagnostics


class AttachError(LBWError, ValueError):
    """A policy cannot be attached to this optimizer or model; the message says what to change."""


class StateError(LBWError, ValueError):
    """A saved state is damaged, or was made under another policy."""


class ResourceError(LBWError, LookupError):
    """A file that ships with the package cannot be found."""


class TraceError(LBWError, ValueError):
    """Recorded telemetry cannot be read, or lacks a column that the policy reads."""


class TuneError(LBWError, ValueError):
    """The params of this policy cannot be chosen on these recorded runs; a line for each reason."""


class Halted(LBWError, RuntimeError):  # noqa: N818 - an outcome asked for, not a failure
    """A policy's `halt` stopped the run; weights, gradients and learning rates are left intact."""

    def __init__(self, message: str, tick: int) -> None:
        super().__init__(message)
        self.tick = tick
