"""For authors of plugins: what an entry point of `lbw_policy.signals`, `.functions`, `.actions`, `.models` points at.

Imports no torch: a plugin that needs none keeps `lbw-check` free of it.
"""

from lbw_policy.semantics.plugins import (
    ActionContext,
    ActionPlugin,
    FunctionPlugin,
    ModelPlugin,
    SignalContext,
    SignalPlugin,
)

__all__ = ["ActionContext", "ActionPlugin", "FunctionPlugin", "ModelPlugin", "SignalContext", "SignalPlugin"]
