"""The names of the risk models a policy may ask for, known without importing any model."""

from __future__ import annotations

RISK_MODELS: tuple[str, ...] = ("logistic", "trees", "anomaly", "baseline")
"""What may stand after `model` in a `risk` block; the models themselves are in `lbw_policy.risk.registry`."""
