"""The functions a policy may call: arguments, units and meaning."""

from __future__ import annotations

from attrs import frozen

from lbw_policy.semantics import types
from lbw_policy.semantics.types import Unit


@frozen
class FunctionKind:
    """A built-in function.

    `windowed` ones take a window in steps after the value (`prev` may leave it out), and
    `quantile` a share after that. `unit` is None where the result has the argument's unit.
    """

    name: str
    windowed: bool
    meaning: str
    unit: Unit | None = None
    shares: int = 0
    default_window: int | None = None

    @property
    def example(self) -> str:
        """A call, as it is written."""
        return f"{self.name}(x{', 128 steps' if self.windowed else ''}{', 90%' if self.shares else ''})"


_KINDS = (
    FunctionKind(
        "zscore", True, "robust z-score: (x - median) / (1.4826 MAD) of earlier accepted samples", types.RATIO
    ),
    FunctionKind("median", True, "median of earlier accepted samples"),
    FunctionKind("mean", True, "mean of earlier accepted samples"),
    FunctionKind("std", True, "standard deviation of earlier accepted samples"),
    FunctionKind("min", True, "least of the earlier accepted samples"),
    FunctionKind("max", True, "greatest of the earlier accepted samples"),
    FunctionKind("quantile", True, "quantile of earlier accepted samples", shares=1),
    FunctionKind(
        "spread",
        True,
        "greatest less least of the earlier accepted samples, over their median's size",
        types.RATIO,
        default_window=128,
    ),
    FunctionKind("ewma", True, "exponentially weighted mean up to the present sample"),
    FunctionKind("slope", True, "least-squares slope per step up to the present sample"),
    FunctionKind("prev", True, "the value some steps ago", default_window=1),
    FunctionKind("rate", True, "how often the event happened in the last steps", types.COUNT),
    FunctionKind("log", False, "natural logarithm; unknown below zero", types.RATIO),
    FunctionKind("abs", False, "absolute value"),
    FunctionKind("finite", False, "true where the value is neither NaN nor infinite", types.TRUTH),
)

FUNCTIONS: dict[str, FunctionKind] = {kind.name: kind for kind in _KINDS}
