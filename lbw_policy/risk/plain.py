"""Reads saved state piece by piece: every number finite, every list a list, or a `StateError` that says which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lbw_policy.errors import StateError

_MOST = 2**53


def entry(state: object, key: str) -> Any:  # noqa: ANN401 - what was saved is unknown until it is read
    """Return `state[key]`; raise `StateError` where the state is no mapping or lacks the key."""
    if not isinstance(state, Mapping) or key not in state:
        message = f"risk state: expected an entry `{key}`, found {_spell(state)}"
        raise StateError(message)
    return state[key]


def number(state: object, key: str) -> float:
    """Return `state[key]` as a finite float; raise `StateError` otherwise."""
    return _finite(entry(state, key), key)


def whole(state: object, key: str) -> int:
    """Return `state[key]` as an int; raise `StateError` otherwise."""
    value = entry(state, key)
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"risk state: expected a whole number in `{key}`, found {_spell(value)}"
        raise StateError(message)
    return value


def natural(state: object, key: str) -> int:
    """Return `state[key]` as an int from 0 to 2**53, which a float holds exactly; raise `StateError` otherwise."""
    value = whole(state, key)
    if not 0 <= value <= _MOST:
        message = f"risk state: expected a count from 0 to 2**53 in `{key}`, found {_spell(value)}"
        raise StateError(message)
    return value


def truth(state: object, key: str) -> bool:
    """Return `state[key]` as a bool; raise `StateError` otherwise."""
    value = entry(state, key)
    if not isinstance(value, bool):
        message = f"risk state: expected true or false in `{key}`, found {_spell(value)}"
        raise StateError(message)
    return value


def text(state: object, key: str) -> str:
    """Return `state[key]` as a string; raise `StateError` otherwise."""
    value = entry(state, key)
    if not isinstance(value, str):
        message = f"risk state: expected text in `{key}`, found {_spell(value)}"
        raise StateError(message)
    return value


def items(state: object, key: str) -> list[Any]:
    """Return `state[key]` as a list; raise `StateError` otherwise."""
    value = entry(state, key)
    if not isinstance(value, list | tuple):
        message = f"risk state: expected a list in `{key}`, found {_spell(value)}"
        raise StateError(message)
    return list(value)


def numbers(state: object, key: str) -> list[float]:
    """Return `state[key]` as a list of finite floats; raise `StateError` otherwise."""
    return [_finite(value, key) for value in items(state, key)]


def mapping(state: object, key: str) -> Mapping[str, Any]:
    """Return `state[key]` as a mapping of names; raise `StateError` otherwise."""
    value = entry(state, key)
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        message = f"risk state: expected entries by name in `{key}`, found {_spell(value)}"
        raise StateError(message)
    return value


def exactly(state: object, key: str, count: int) -> list[float]:
    """Return `state[key]` as a list of so many finite floats; raise `StateError` otherwise."""
    found = numbers(state, key)
    if len(found) != count:
        message = f"risk state: expected {count} numbers in `{key}`, found {len(found)}"
        raise StateError(message)
    return found


def named_numbers(state: object, key: str) -> dict[str, float]:
    """Return `state[key]` as finite floats by name, in the saved order; raise `StateError` otherwise."""
    value = entry(state, key)
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        message = f"risk state: expected numbers by name in `{key}`, found {_spell(value)}"
        raise StateError(message)
    return {name: _finite(member, f"{key}.{name}") for name, member in value.items()}


def optional_number(state: object, key: str) -> float | None:
    """Return `state[key]` as a finite float or None; raise `StateError` otherwise."""
    return None if entry(state, key) is None else number(state, key)


def optional_whole(state: object, key: str) -> int | None:
    """Return `state[key]` as an int or None; raise `StateError` otherwise."""
    return None if entry(state, key) is None else whole(state, key)


def expect(state: object, key: str, wanted: str | int) -> None:
    """Raise `StateError` unless `state[key]` is what this policy's own risk would have written."""
    found = entry(state, key)
    if found != wanted:
        message = f"risk state of another policy: expected `{key}` {wanted!r}, found {found!r}"
        raise StateError(message)


def _finite(value: object, key: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e308:
        return float(value)
    message = f"risk state: expected a finite number in `{key}`, found {_spell(value)}"
    raise StateError(message)


def _spell(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
