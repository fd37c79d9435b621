"""Reads saved state: plain numbers, lists and dicts, refused with a reason where they are damaged."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from lbw_policy.errors import StateError


def number(value: object) -> float:
    """Return a saved number, which may be NaN or infinite, as a float; raise `StateError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise StateError(f"expected a number in the saved state, found `{type(value).__name__}`")
    try:
        return float(value)
    except OverflowError:
        raise StateError("expected a number in the saved state, found an integer too large for a float") from None


def whole(value: object) -> int:
    """Return a saved integer, or raise `StateError`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise StateError(f"expected an integer in the saved state, found `{type(value).__name__}`")
    return value


def within(value: object, most: int) -> int:
    """Return a saved integer in `[0, most]`, or raise `StateError`."""
    found = whole(value)
    if not 0 <= found <= most:
        raise StateError(f"expected an integer from 0 to {most} in the saved state, found `{found}`")
    return found


def truth(value: object) -> bool:
    """Return a saved truth value, or raise `StateError`."""
    if not isinstance(value, bool):
        raise StateError(f"expected true or false in the saved state, found `{type(value).__name__}`")
    return value


def items(value: object, at_most: int | None = None) -> list[object]:
    """Return a saved list of no more than `at_most` items, or raise `StateError`."""
    if not isinstance(value, list):
        raise StateError(f"expected a list in the saved state, found `{type(value).__name__}`")
    if at_most is not None and len(value) > at_most:
        raise StateError(f"expected at most {at_most} items in a saved list, found {len(value)}")
    return value


def exactly(value: object, count: int) -> list[object]:
    """Return a saved list of exactly `count` items, or raise `StateError`."""
    found = items(value)
    if len(found) != count:
        raise StateError(f"expected {count} items in a saved list, found {len(found)}")
    return found


def finite(value: object) -> float:
    """Return a saved number that must be finite, or raise `StateError`."""
    found = number(value)
    if not math.isfinite(found):
        raise StateError(f"expected a finite number in the saved state, found `{found}`")
    return found


def samples(value: object, at_most: int) -> list[float]:
    """Return a saved list of at most `at_most` finite numbers, or raise `StateError`."""
    return [finite(sample) for sample in items(value, at_most)]


def record(value: object, names: Collection[str]) -> dict[str, object]:
    """Return a saved dict whose keys are exactly `names`, or raise `StateError`."""
    if not isinstance(value, dict):
        raise StateError(f"expected a dict in the saved state, found `{type(value).__name__}`")
    if set(value) != set(names):
        missing = ", ".join(f"`{name}`" for name in sorted(set(names) - set(value)))
        raise StateError(f"expected other names in the saved state; missing: {missing or 'none'}")
    return value


def natural(value: object) -> int:
    """Return a saved integer that must not be negative, or raise `StateError`."""
    found = whole(value)
    if found < 0:
        raise StateError(f"expected an integer of at least 0 in the saved state, found `{found}`")
    return found


def mapping(value: object) -> dict[str, Any]:
    """Return a saved dict with names as keys, or raise `StateError`."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise StateError(f"expected a dict of names in the saved state, found `{type(value).__name__}`")
    return value
