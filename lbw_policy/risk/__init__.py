"""Observation -> probability of divergence, and whether to believe it. River is imported only when a model needs it."""

from lbw_policy.risk.features import HOLD, STANDARD_SOURCES
from lbw_policy.risk.model import Assessment, RiskModel
from lbw_policy.risk.prior import Prior, read_prior, starting
from lbw_policy.risk.registry import MODELS, Model

__all__ = [
    "HOLD",
    "MODELS",
    "STANDARD_SOURCES",
    "Assessment",
    "Model",
    "Prior",
    "RiskModel",
    "read_prior",
    "starting",
]
