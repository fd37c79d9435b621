"""The signals a policy may read: name, unit, what must be at hand, meaning."""

from __future__ import annotations

import enum
import math

from attrs import frozen

from lbw_policy.semantics import ceilings, types
from lbw_policy.semantics.types import Unit


class Need(enum.Enum):
    """What a signal cannot exist without."""

    OPTIMIZER = "optimizer"
    MODEL = "model"
    OBSERVED = "observed"
    CURVATURE = "curvature"
    GUARD = "guard"


@frozen
class SignalKind:
    """A built-in signal: its unit, what it needs, its formula in a sentence, and the least and greatest finite value.

    `grouped` tells that it can also be taken over one group of layers.
    """

    name: str
    unit: Unit
    need: Need
    meaning: str
    low: float = 0.0
    high: float = math.inf
    grouped: bool = False


def _of_gradients(name: str, unit: Unit, meaning: str, low: float = 0.0, high: float = math.inf) -> SignalKind:
    return SignalKind(name, unit, Need.OPTIMIZER, meaning, low, high, grouped=True)


def _of_outputs(name: str, unit: Unit, meaning: str, high: float = math.inf) -> SignalKind:
    return SignalKind(name, unit, Need.MODEL, meaning, high=high, grouped=True)


def _of_exponents(name: str, meaning: str, low: float = 0.0, high: float = math.inf) -> SignalKind:
    return SignalKind(name, types.RATIO, Need.OPTIMIZER, meaning, low, high)


_ANY = -math.inf

_KINDS = (
    SignalKind("loss", types.LOSS, Need.OBSERVED, "the loss of this step, from `guard.observe(loss=...)`", _ANY),
    SignalKind("lr", types.RATE, Need.OPTIMIZER, "largest learning rate of the parameter groups, as the run set it"),
    SignalKind("step_time", types.SECONDS, Need.OPTIMIZER, "seconds between the last decision and this one"),
    # Gradients, exact
    _of_gradients("grad_norm", types.NORM, "L2 norm of all gradients, before this step's update"),
    _of_gradients("grad_norm_max", types.NORM, "largest L2 gradient norm of one layer, before this step's update"),
    _of_gradients("grad_norm_min", types.NORM, "smallest L2 gradient norm of one layer, before this step's update"),
    _of_gradients("grad_norm_spread", types.RATIO, "standard deviation, over layers, of log2 of the gradient norm"),
    _of_gradients("nonfinite_grads", types.COUNT, "parameter tensors whose gradient has NaN or inf"),
    # Gradients, from a fixed sample
    _of_gradients("grad_agreement", types.RATIO, "cosine of this gradient and the last one", -1.0, 1.0),
    _of_gradients("momentum_agreement", types.RATIO, "cosine of this gradient and the optimizer's momentum", -1.0, 1.0),
    _of_exponents("grad_underflow", "share of gradient elements too small for their type: 0 or subnormal", high=1.0),
    _of_exponents(
        "grad_overflow", "share of gradient elements above a quarter of the largest number of their type", high=1.0
    ),
    _of_exponents("exponent_spread", "standard deviation of the gradient elements' exponents, in powers of two"),
    _of_exponents("exponent_kurtosis", "excess kurtosis of the gradient elements' exponents, 0 if normal", -2.0),
    _of_exponents("exponent_shift", "how far the exponents moved since the last reading, in powers of two"),
    # Weights and updates
    _of_gradients("nonfinite_params", types.COUNT, "parameter tensors whose weights have NaN or inf"),
    _of_gradients("param_norm", types.NORM, "L2 norm of all weights, estimated from a fixed sample"),
    _of_gradients("update_norm", types.NORM, "L2 norm of the last update, estimated from a fixed sample"),
    _of_gradients("update_ratio", types.RATIO, "norm of the last update over the norm of the weights"),
    _of_gradients("update_ratio_max", types.RATIO, "largest update ratio of one layer"),
    _of_gradients(
        "curvature",
        types.CURVATURE,
        "secant estimate of the loss curvature along the last update: (g - g_prev).dw / dw.dw",
        _ANY,
    ),
    _of_gradients(
        "overshoot",
        types.RATIO,
        "curvature over slope along the last update: (g - g_prev).dw / -g_prev.dw; above 2 it went too far",
        _ANY,
    ),
    SignalKind(
        "gradient_curvature",
        types.CURVATURE,
        Need.CURVATURE,
        "exact loss curvature along the gradient: g.Hg / g.g, from `guard.curvature(loss)`",
        _ANY,
    ),
    SignalKind(
        "hessian_trace",
        types.CURVATURE,
        Need.CURVATURE,
        "Hutchinson's estimate of the Hessian's trace, from `guard.curvature(loss)`",
        _ANY,
    ),
    # Adam's second moments
    _of_gradients(
        "moment_rms",
        types.RATIO,
        "largest root mean square, over layers, of the gradient over the root of Adam's second moment",
    ),
    _of_gradients("moment_lag", types.RATIO, "root of the second moments' sum over that of the squared gradients"),
    # Outputs of modules
    _of_outputs(
        "activation_outliers",
        types.RATIO,
        "largest share, over layers, of sampled outputs beyond six times the layer's root mean square",
        1.0,
    ),
    _of_outputs("activation_variance", types.VARIANCE, "largest variance of the sampled outputs of one layer"),
    _of_outputs("activation_max", types.RATIO, "largest |output| of one layer over the rms of its sampled outputs"),
    SignalKind("attention_logit_max", types.RATIO, Need.MODEL, "largest attention logit of the longest queries", _ANY),
    _of_outputs("router_load", types.RATIO, "load of the busiest expert over the mean load, largest over routers"),
    _of_outputs(
        "router_entropy",
        types.RATIO,
        "entropy of the routing over that of an even one, smallest over routers",
        1.0,
    ),
    _of_outputs("router_dead", types.COUNT, "experts that were given no token in this step, over all routers"),
)

_OF = " of "


def key(source: str, group: str = "") -> str:
    """Return what a source taken over a group is called: `grad_norm of experts`; the source alone for all layers."""
    return f"{source}{_OF}{group}" if group else source


def source_of(key: str) -> str:
    """Return the source of a key."""
    return key.partition(_OF)[0]


def group_of(key: str) -> str:
    """Return the group of a key, empty for all layers."""
    return key.partition(_OF)[2]


SIGNALS: dict[str, SignalKind] = {kind.name: kind for kind in _KINDS}
"""Built-in signals, read as `telemetry.NAME`; a user's own are read as `observed.NAME`."""

EVENTS: dict[str, str] = {
    "interventions": "interventions that began at the last tick",
    "skips": "updates skipped at the last tick",
    "clips": "clips that bound at the last tick",
    "rollbacks": "rollbacks done at the last tick",
}
"""What the guard itself did, as counts a policy may read by name; `rate(EVENT, N steps)` sums them."""

LR_FACTOR = "lr_factor"

OWN: dict[str, SignalKind] = {
    **{name: SignalKind(name, types.COUNT, Need.GUARD, meaning) for name, meaning in EVENTS.items()},
    LR_FACTOR: SignalKind(
        LR_FACTOR,
        types.RATIO,
        Need.GUARD,
        "the factor granted for the learning rate at the last tick, 1 where nothing lowered it",
        ceilings.SCALE_FLOOR,
        ceilings.SCALE_CEILING,
    ),
}
"""The guard's own numbers, read by name and without a `signal`: its events, and the lr factor it granted."""

LAYER_STATISTICS = ("activation_outliers", "activation_variance", "grad_norm", "update_ratio")
"""What `freeze top N% of layers by ...` may rank layers by."""
