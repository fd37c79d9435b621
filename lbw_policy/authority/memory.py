"""What the windows of a policy can hold at most."""

from __future__ import annotations

from attrs import frozen

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Number, Statistic
from lbw_policy.semantics.walk import conditions_of, numbers_of, parts

_FIXED = 2_500
"""Bytes of a window besides its samples: the objects themselves, and exact sums of up to 4_300 bits."""
_SORTED, _PLAIN, _PAIRS = 48, 40, 128
"""Bytes a sample: in order of arrival and of size; of arrival only; with its tick. CPython 3.11, 64 bits."""
_BYTES = {"ewma": 0, "mean": _PLAIN, "std": _PLAIN, "prev": _PLAIN, "slope": _PAIRS, "rate": _PAIRS}


@frozen
class Memory:
    """The most samples and bytes that all windows hold together, once they are full."""

    samples: int
    bytes: int


def memory(policy: p.Policy) -> Memory:
    """Return what the windows of a policy hold at most; equal windows are kept once, as `machine` does."""
    found = parts(*conditions_of(policy), *numbers_of(policy))
    windows = {_window(part): _BYTES.get(part.name, _SORTED) for part in found if isinstance(part, Statistic)}
    sizes = [(0 if kind == "ewma" else samples, each) for (kind, _, samples), each in windows.items()]
    return Memory(sum(count for count, _ in sizes), sum(_FIXED + count * each for count, each in sizes))


def _window(part: Statistic) -> tuple[str, Number, int]:
    """Return what tells one window from another: baselines that rank share one, and so do those that sum."""
    if part.name in ("mean", "std"):
        return "sum", part.argument, part.samples
    return part.name if part.name in _BYTES else "rank", part.argument, part.samples
