"""Tree -> checked policy: names, units, windows, limits. Knows no machine and no runtime."""

from lbw_policy.semantics.checker import Checked, check_source
from lbw_policy.semantics.files import MOST_BYTES, exists
from lbw_policy.semantics.loading import check, check_bytes, check_path, load
from lbw_policy.semantics.policy import Policy

__all__ = [
    "MOST_BYTES",
    "Checked",
    "Policy",
    "check",
    "check_bytes",
    "check_path",
    "check_source",
    "exists",
    "load",
]
