"""The figures by which a run under trouble is judged. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

AHEAD = 5
NEAR = 0.10
LOST = 0.50
SETTLED = 10


def smoothed(losses: Sequence[float], ahead: int = AHEAD) -> list[float]:
    """Return, for each step, the median of the losses from it on, `ahead` at most; NaN counts as the highest."""
    ranked = [math.inf if math.isnan(loss) else loss for loss in losses]
    return [median(ranked[step : step + ahead]) for step in range(len(ranked))]


def recovery(losses: Sequence[float], reference: Sequence[float], start: int) -> int | None:
    """Return how many steps after `start` the smoothed loss is near that of the trouble-free run again.

    Near means at most 10 % above it at the same step, and so for 10 steps: a short visit is no recovery.
    0: it never left. None: it was not back by the end.
    """
    near = _near(losses, reference)
    for step in range(start, len(reference) - SETTLED + 1):
        if len(near) >= step + SETTLED and all(near[step : step + SETTLED]):
            return step - start
    return None


def crashed(losses: Sequence[float], held_out: float, reference: float, untrained: float) -> bool:
    """Tell whether a run ended non-finite, or lost over half of what the trouble-free run had learned.

    `reference` and `untrained` are the trouble-free run's held-out loss at its end and at its beginning.
    """
    if not losses or not math.isfinite(losses[-1]) or not math.isfinite(held_out):
        return True
    return held_out - reference > LOST * (untrained - reference)


def overhead(guarded: Sequence[float], plain: Sequence[float], warm: int = 5) -> float:
    """Return by how much a guarded step is slower: the median, over steps, of its time over that of its twin, less 1.

    The twins ran one right after the other, so a machine that is busy for a while slows both.
    The first `warm` steps are left out where there are more. NaN where a run has no steps.
    """
    return typical([slow / quick for slow, quick in zip(guarded, plain, strict=False)], warm) - 1


def typical(measured: Sequence[float], warm: int = 5) -> float:
    """Return the median over steps, without the first `warm` where there are more; NaN where there are none."""
    return median(measured[warm:] or measured) if measured else math.nan


def _near(losses: Sequence[float], reference: Sequence[float]) -> list[bool]:
    pairs = zip(smoothed(losses), smoothed(reference), strict=False)
    return [math.isfinite(here) and here <= (1 + NEAR) * there for here, there in pairs]
