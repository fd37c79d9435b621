"""The loop: telemetry, risk, decision, limits and actions around each update."""

from lbw_policy.runtime.attaching import attach
from lbw_policy.runtime.guard import Guard
from lbw_policy.runtime.summary import Summary

__all__ = ["Guard", "Summary", "attach"]
