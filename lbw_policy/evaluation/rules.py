"""What others alarm by, re-implemented from their published rules, as scores of a run's steps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np
from attrs import frozen

from lbw_policy.evaluation.counting import NEVER
from lbw_policy.evaluation.examples import Example, Floats
from lbw_policy.risk.alarm import log_odds
from lbw_policy.risk.baseline import Baseline
from lbw_policy.risk.features import STANDARD_FEATURES

Score = Callable[[Example], Floats]


@frozen
class Rule:
    """A rule's score, and the threshold its authors gave it."""

    name: str
    nominal: float
    score: Score


def _usable(values: Floats) -> Floats:
    """Return the values with NaN as a score that no threshold is below: a comparison with it is false."""
    return np.where(np.isnan(values), NEVER, np.clip(values, NEVER, 1e8))


def _norm(example: Example) -> Floats:
    return _usable(example.norms)


def _loss(example: Example) -> Floats:
    finite = example.losses[np.isfinite(example.losses)]
    first = float(np.median(finite[:10])) if len(finite) else 1.0
    return _usable(example.losses / max(abs(first), 1e-12))


def zclip(example: Example) -> Floats:
    """Score by ZClip's z of the gradient norm (arXiv 2504.02507; zclip.py, z-score mode with adaptive scaling).

    An exponential mean and variance, alpha 0.97, from the first 25 norms; the clipped norm updates them.
    A norm that is not finite poisons both, as it does there.
    """
    scores, mean, variance = np.full(example.steps, NEVER), math.nan, math.nan
    early: list[float] = []
    for step, norm in enumerate(example.norms):
        if len(early) < 25:
            early.append(norm)
            with np.errstate(invalid="ignore"):
                mean, variance = float(np.mean(early)), float(np.var(early))
            continue
        spread = math.sqrt(variance) if variance >= 0 else math.nan
        z = (norm - mean) / (spread + 1e-6)
        scores[step] = z
        kept = mean + 2.5 * spread * 2.5 / z if z > 2.5 else norm
        mean = 0.97 * mean + 0.03 * kept
        variance = 0.97 * variance + 0.03 * (kept - mean) ** 2
    return _usable(scores)


def skip_step(example: Example) -> Floats:
    """Score by OLMo's SkipStep (OLMo-core, skip_step_optimizer.py): the larger |z| of loss and gradient norm.

    Over the 128 values before, from the 64th on; outliers stay among them, and so does a NaN, until it leaves.
    """
    scores = np.full(example.steps, NEVER)
    losses: deque[float] = deque(maxlen=128)
    norms: deque[float] = deque(maxlen=128)
    for step, (loss, norm) in enumerate(zip(example.losses, example.norms, strict=True)):
        if len(losses) >= 63:
            # A z that is NaN is not `<= 6`, so there the step is skipped: infinitely high.
            scores[step] = max(_z(loss, losses), _z(norm, norms))
        losses.append(loss)
        norms.append(norm)
    return _usable(scores)


def _z(value: float, window: deque[float]) -> float:
    values = np.fromiter(window, float)
    with np.errstate(all="ignore"):
        z = abs(value - values.mean()) / values.std(ddof=1)
    return float(z) if np.isfinite(z) else 1e8


def baseline(example: Example) -> Floats:
    """Score by the package's own plain rule."""
    rule, scores = Baseline(), np.full(example.steps, NEVER)
    for step in np.flatnonzero(example.asked):
        row = example.points[step]
        scores[step] = log_odds(
            rule.predict({n: v for n, v in zip(STANDARD_FEATURES, row, strict=True) if not math.isnan(v)})
        )
    return scores


RULES = (
    Rule("gradient norm > 10", 10.0, _norm),
    Rule("loss > 1.5 x first", 1.5, _loss),
    Rule("ZClip z > 2.5", 2.5, zclip),
    Rule("SkipStep 6 sigma", 6.0, skip_step),
    Rule("baseline", -1.0, baseline),
)
"""The rules of others, with our own plain one."""
