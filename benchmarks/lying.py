"""Telemetry that teaches a risk model the wrong thing, or makes it cry wolf, before real trouble comes."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import frozen

from lbw_policy.risk import Assessment, RiskModel, starting
from lbw_policy.risk.alarm import REFRACTORY
from lbw_policy.risk.logistic import RADIUS, Logistic
from lbw_policy.risk.trust import most_alarms
from lbw_policy.semantics.policy import Risk

RISK = Risk("divergence", 10, (), standard=True, model="logistic", alarm=3e-4, trust_after=200, fallback=0.0)
"""As in the presets."""
START, TICKS = 300, 3_000
"""When lying begins, and when the real trouble does."""
CALM, WOLF, CRASH, TROUBLE = "calm", "wolf", "crash", "trouble"
_LONGEST = 60
_CRASH = 12

Mood = Callable[[int], str]
"""What a tick looks like, by its number since lying began."""

LIARS: Mapping[str, Mood] = {
    "nobody lies": lambda _: CALM,
    "cries wolf every 60 ticks": lambda tick: WOLF if tick % 60 < 4 else CALM,
    "cries wolf every 800 ticks": lambda tick: WOLF if tick % 800 < 4 else CALM,
    "crashes out of calm, cries wolf in between": lambda tick: (
        CRASH if tick % 200 >= 200 - _CRASH else WOLF if tick % 200 < 4 else CALM
    ),
    "looks like trouble, always": lambda _: WOLF,
}


def reading(draw: random.Random, mood: str, since: int = 0) -> dict[str, float | None]:
    """Return one tick's telemetry; `since` counts the ticks of real trouble, which grows by 12 % a tick."""
    worse = {CALM: 1.0, CRASH: 1.0, WOLF: 8.0, TROUBLE: 1.12**since}[mood]
    loss = {CALM: 2.0, CRASH: 20.0, WOLF: 2.4, TROUBLE: 2.0 * min(10.0, 1.06**since)}[mood]
    return {
        "loss": loss + draw.gauss(0, 0.1),
        "grad_norm": worse * math.exp(draw.gauss(0, 0.3)),
        "lr": 1e-3,
        "grad_agreement": draw.uniform(-0.2, 0.6) - (0.5 if worse > 2 else 0.0),
        "overshoot": draw.gauss(1.0, 0.3) + (2.0 if worse > 2 else 0.0),
        "update_ratio": 1e-3 * worse * math.exp(draw.gauss(0, 0.1)),
        "param_norm": 50.0,
        "nonfinite_grads": 0.0,
        "nonfinite_params": 0.0,
    }


@frozen
class Told:
    """What a risk said while it was lied to, and of the real trouble that came then.

    `alarms` are those that a policy saw before it, `bound` the most it may see of a run without trouble; `moved` is how
    far weights and intercept are from the prior's. `lead` is how many ticks before the loss crossed its bar the alarm
    came that a policy saw, None if none came.
    """

    alarms: int
    bound: int
    trusted: float
    reason: str
    moved: float
    threshold: float
    lead: int | None


def lie(mood: Mood, seed: int = 0, ticks: int = TICKS) -> Told:
    """Lie to a risk of the presets, with the prior that ships, and then bring real trouble."""
    model, draw = RiskModel(RISK, seed, starting(RISK)), random.Random(seed)  # noqa: S311 - made telemetry
    said: list[Assessment] = []
    reasons: list[str] = []
    for tick in range(ticks):
        look = mood(tick - START) if tick >= START else CALM
        said.append(_tick(model, tick, reading(draw, look)))
        reasons += [model.why] if tick >= START and model.why and model.why != (reasons or [""])[-1] else []
    threshold = model.threshold or math.nan
    inner = model._model  # an adversary reads along
    moved = inner.distance() if isinstance(inner, Logistic) else math.nan
    return Told(
        alarms=begun(said),
        bound=most_alarms(ticks, RISK.alarm),
        trusted=statistics.fmean(one.trusted for one in said[START:]),
        reason=reasons[0] if reasons else "",
        moved=moved,
        threshold=1 / (1 + math.exp(-threshold)),
        lead=_lead(model, draw, ticks),
    )


def _tick(model: RiskModel, tick: int, values: dict[str, float | None]) -> Assessment:
    said = model.assess(tick, values, {})
    model.learn(tick, values["loss"], finite=True, intervened=False)
    return said


def _lead(model: RiskModel, draw: random.Random, first: int) -> int | None:
    alarmed = None
    for since in range(_LONGEST):
        said = _tick(model, first + since, reading(draw, TROUBLE, since))
        if model.troubled:
            return None if alarmed is None else since - alarmed
        alarmed = since if said.alarm and alarmed is None else alarmed
    return None


def begun(said: Sequence[Assessment]) -> int:
    """Count alarms that a policy saw, as a budget counts them: again only after 25 ticks."""
    count, last = 0, -REFRACTORY
    for tick, one in enumerate(said):
        if one.alarm and tick - last >= REFRACTORY:
            count, last = count + 1, tick
    return count


def rows(seeds: Sequence[int]) -> Iterator[list[str]]:
    """Yield a row of a table for each way to lie, over seeds."""
    for name, mood in LIARS.items():
        found = [lie(mood, seed) for seed in seeds]
        leads = [each.lead for each in found if each.lead is not None]
        yield [
            name,
            f"{max(each.alarms for each in found)} (at most {found[0].bound})",
            f"{statistics.fmean(each.trusted for each in found):.0%}".replace("%", " %"),
            f"{max(each.moved for each in found):.3f} (at most {RADIUS:g})",
            f"{100 * statistics.fmean(each.threshold for each in found):.1f} %",
            f"{len(leads)} of {len(found)}" + (f", {statistics.median(leads):g} ahead" if leads else ""),
            next((each.reason for each in found if each.reason), "-"),
        ]
