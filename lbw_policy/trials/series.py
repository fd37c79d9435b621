"""Series of a test -> its samples, the same on every machine and every Python."""

from __future__ import annotations

import random
from collections.abc import Iterator

from lbw_policy.semantics.trial import Series, Stretch

_UNIFORMS = 12


def samples(series: Series, ticks: int) -> list[float | None]:
    """Return the series' value at each of `ticks` ticks; None is no reading."""
    found = [value for at, stretch in enumerate(series.stretches) for value in _stretch(series, at, stretch)]
    return found[:ticks] + [None] * (ticks - len(found))


def starts(series: Series) -> list[int]:
    """Return the ticks at which a stretch of the series begins, and the one after its end."""
    found = [0]
    for stretch in series.stretches:
        found.append(found[-1] + stretch.ticks)
    return found


def _stretch(series: Series, at: int, stretch: Stretch) -> Iterator[float | None]:
    match stretch.kind:
        case "missing":
            yield from [None] * stretch.ticks
        case "ramp":
            yield from _ramp(stretch)
        case "noise":
            yield from _noise(f"{series.name} {at} {stretch.seed}", stretch)
        case _:
            yield from [stretch.values[0]] * stretch.ticks


def _ramp(stretch: Stretch) -> Iterator[float]:
    first, last = stretch.values
    steps = stretch.ticks - 1
    for step in range(steps):
        yield first + (last - first) * (step / steps)
    yield last


def _noise(seed: str, stretch: Stretch) -> Iterator[float]:
    """Yield bell-shaped noise: the sum of twelve uniform numbers, less six (Irwin 1927, Hall 1927).

    It has mean 0, variance 1 and no tail beyond 6. `random.gauss` would ask the platform's `sin` and
    `log`, whose last digit differs between machines; sums of IEEE doubles do not.
    """
    mean, spread = stretch.values
    draw = random.Random(seed).random  # noqa: S311 - noise for a test, not a secret
    for _ in range(stretch.ticks):
        total = -_UNIFORMS / 2
        for _ in range(_UNIFORMS):
            total += draw()
        yield mean + spread * total
