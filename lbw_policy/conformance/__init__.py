"""The check that authors of plugins run on their own plugins, on small real models and optimizers."""

from lbw_policy.conformance.checking import (
    assert_conforms,
    check,
    check_action,
    check_function,
    check_model,
    check_signal,
)
from lbw_policy.conformance.findings import Finding

__all__ = ["Finding", "assert_conforms", "check", "check_action", "check_function", "check_model", "check_signal"]
