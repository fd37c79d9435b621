"""The signals a policy may read: name, unit, what must be at hand, meaning."""

from __future__ import annotations

import enum

from attrs import frozen

from lbw_policy.semantics import types
from lbw_policy.semantics.types import Unit


class Need(enum.Enum):
    """What a signal cannot exist without."""

    OPTIMIZER = "optimizer"
    MODEL = "model"
    OBSERVED = "observed"
    GUARD = "guard"


@frozen
class SignalKind:
    """A built-in signal: its unit, what it needs, and its formula in a sentence."""

    name: str
    unit: Unit
    need: Need
    meaning: str


_KINDS = (
    SignalKind("loss", types.LOSS, Need.OBSERVED, "the loss of this step, from `guard.observe(loss=...)`"),
    SignalKind("grad_norm", types.NORM, Need.OPTIMIZER, "L2 norm of all gradients, before this step's update"),
    SignalKind(
        "grad_norm_max", types.NORM, Need.OPTIMIZER, "largest L2 gradient norm of one layer, before this step's update"
    ),
    SignalKind("nonfinite_grads", types.COUNT, Need.OPTIMIZER, "parameter tensors whose gradient has NaN or inf"),
    SignalKind("nonfinite_params", types.COUNT, Need.OPTIMIZER, "parameter tensors whose weights have NaN or inf"),
    SignalKind("param_norm", types.NORM, Need.OPTIMIZER, "L2 norm of all weights, estimated from a fixed sample"),
    SignalKind("update_norm", types.NORM, Need.OPTIMIZER, "L2 norm of the last update, estimated from a fixed sample"),
    SignalKind("update_ratio", types.RATIO, Need.OPTIMIZER, "norm of the last update over the norm of the weights"),
    SignalKind(
        "curvature",
        types.CURVATURE,
        Need.OPTIMIZER,
        "secant estimate of the loss curvature along the last update: (g - g_prev).dw / dw.dw",
    ),
    SignalKind("lr", types.RATE, Need.OPTIMIZER, "largest learning rate of the parameter groups, as the run set it"),
    SignalKind(
        "activation_outliers",
        types.RATIO,
        Need.MODEL,
        "largest share, over layers, of sampled outputs beyond six times the layer's root mean square",
    ),
    SignalKind(
        "activation_variance", types.VARIANCE, Need.MODEL, "largest variance of the sampled outputs of one layer"
    ),
    SignalKind("activation_max", types.RATIO, Need.MODEL, "largest sampled |output| of one layer over its rms"),
)

SIGNALS: dict[str, SignalKind] = {kind.name: kind for kind in _KINDS}
"""Built-in signals, read as `telemetry.NAME`; a user's own are read as `observed.NAME`."""

EVENTS: dict[str, str] = {
    "interventions": "interventions that began at the last tick",
    "skips": "updates skipped at the last tick",
    "clips": "clips that bound at the last tick",
    "rollbacks": "rollbacks done at the last tick",
}
"""What the guard itself did, as counts a policy may read by name; `rate(EVENT, N steps)` sums them."""

LAYER_STATISTICS = ("activation_variance", "grad_norm")
"""What `freeze top N% of layers by ...` may rank layers by."""
