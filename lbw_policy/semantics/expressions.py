"""Checked expressions: every name resolved, every unit settled, every window in samples.

All nodes are frozen and compare by value, so equal sub-expressions share one window at run time.
A number is a float that may be NaN or infinite; a condition is a `Truth`.
"""

from __future__ import annotations

import enum

from attrs import frozen


class Truth(enum.IntEnum):
    """The value of a condition; `and` is the least of its operands, `or` the greatest."""

    FALSE = 0
    NOT_READY = 1
    UNKNOWN = 2
    TRUE = 3


@frozen(cache_hash=True)
class Constant:
    """A number written in the policy, or a parameter's value."""

    value: float


@frozen(cache_hash=True)
class Reading:
    """The present value of a declared signal."""

    signal: str


@frozen(cache_hash=True)
class RiskReading:
    """What a risk model says: `probability` (a number), or `alarm` and `trusted` (conditions)."""

    risk: str
    field: str


@frozen(cache_hash=True)
class Statistic:
    """A function of a value's history over a window.

    `name` is a baseline (`zscore median mean std min max quantile spread`), which is taken over earlier
    accepted samples and never over the present one, or a trend (`ewma slope prev rate`), which
    follows every finite sample up to the present one. `samples` is the window's length.
    `share` is the quantile asked for, in [0, 1].
    """

    name: str
    argument: Number
    samples: int
    share: float | None = None


@frozen(cache_hash=True)
class Arithmetic:
    """`left op right` with op one of `+ - * /`, by IEEE rules (division by zero gives inf or NaN)."""

    op: str
    left: Number
    right: Number


@frozen(cache_hash=True)
class Function:
    """`log`, `abs` or `neg` of a number; outside its domain the result is NaN."""

    name: str
    argument: Number


@frozen(cache_hash=True)
class Comparison:
    """`left op right` with op one of `< <= > >= == !=`; unknown if an operand is not finite."""

    op: str
    left: Number
    right: Number


@frozen(cache_hash=True)
class Finite:
    """True if the number is finite, false if it is NaN or infinite; it is ready from the first reading on."""

    argument: Number


@frozen(cache_hash=True)
class Not:
    """The negation; it moves inward to the comparisons before anything is evaluated."""

    operand: Condition


@frozen(cache_hash=True)
class Both:
    """`left and right`."""

    left: Condition
    right: Condition


@frozen(cache_hash=True)
class Either:
    """`left or right`."""

    left: Condition
    right: Condition


Number = Constant | Reading | RiskReading | Statistic | Arithmetic | Function
Condition = Comparison | Finite | RiskReading | Not | Both | Either
Expression = Number | Condition

BASELINES = ("zscore", "median", "mean", "std", "min", "max", "quantile", "spread")
TRENDS = ("ewma", "slope", "prev", "rate")
