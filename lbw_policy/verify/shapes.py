"""Whether a JSON value has the shape of a certificate: what is read from a file is anything at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

_LONGEST = 100_000
"""More characters than any text of a certificate has, and more items than any list."""

STATUSES = ("failed", "unknown", "tested", "proved")
"""How far a promise may be known, the least first."""

Check = Callable[[object], bool]


def shape_faults(found: object) -> Iterator[str]:
    """Yield what is wrong with the shape of a certificate; nothing where it can be read safely."""
    faults = [*_record(found, "the certificate", _HEAD)]
    yield from faults
    if faults or not isinstance(found, dict):
        return
    for at, entry in enumerate(found["promises"]):
        yield from _record(entry, f"promise {at}", _ENTRY)


def _record(found: object, what: str, checks: Mapping[str, Check]) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"{what} is not an object"
        return
    yield from (f"{what} has no `{name}`" for name in checks if name not in found)
    yield from (f"{what} has an unknown part, {str(name)!r:.80}" for name in found if name not in checks)
    yield from (
        f"`{name}` of {what} is not what it should be"
        for name, fits in checks.items()
        if name in found and not fits(found[name])
    )


def _whole(value: object) -> bool:
    return type(value) is int and abs(value) < 2**53


def _number(value: object) -> bool:
    return _whole(value) or (type(value) is float and math.isfinite(value))


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _numbers(value: object) -> bool:
    return isinstance(value, dict) and all(_text(name) and _number(one) for name, one in value.items())


def _list(value: object, fits: Check) -> bool:
    return isinstance(value, list) and len(value) <= _LONGEST and all(fits(one) for one in value)


def _plain(value: object, depth: int = 4) -> bool:
    """Tell whether a value is made of a few layers of plain data."""
    if value is None or isinstance(value, bool) or _number(value) or _text(value):
        return True
    if isinstance(value, list):
        return depth > 0 and _list(value, lambda one: _plain(one, depth - 1))
    if isinstance(value, dict):
        return depth > 0 and all(_text(name) and _plain(one, depth - 1) for name, one in value.items())
    return False


def _pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_text(one) for one in value)


_HEAD: Mapping[str, Check] = {
    "format": _whole,
    "package": _text,
    "policy": _text,
    "digest": _text,
    "params": _numbers,
    "limits": lambda value: isinstance(value, dict) and _plain(value),
    "solver": _text,
    "promises": lambda value: isinstance(value, list) and len(value) <= _LONGEST,
    "seal": _text,
}
_ENTRY: Mapping[str, Check] = {
    "promise": _text,
    "about": _text,
    "sentence": _text,
    "bound": lambda value: value is None or _number(value),
    "unit": _text,
    "status": lambda value: value in STATUSES,
    "how": _text,
    "invariants": lambda value: _list(value, _text),
    "obligations": lambda value: _list(value, _pair),
}
