"""What a tick would be granted, told before its requests are known."""

from __future__ import annotations

from attrs import frozen

from lbw_policy.limits.limiter import Limiter


@frozen
class Allowance:
    """What `Limiter.rule` will answer in one tick to `skip`, `clip` and `scale_lr`, if nothing else is asked for.

    `skip`: whether one is granted; `clip`: whether one that binds is, unless a skip was; `low` and `high`: the range
    of the lr factor, None if it has no limit; `held`: the present factor, which a refusal to lower it keeps;
    `lowerings`: how many interventions may begin before the factor can no longer be lowered, None if any number.
    """

    skip: bool
    clip: bool
    low: float | None
    high: float | None
    held: float
    lowerings: int | None

    @classmethod
    def of(cls, limiter: Limiter, tick: int) -> Allowance:
        """Read it off a limiter, which is left as it is."""
        limits, skip, scale = limiter.limits, limiter.limits.skip, limiter.limits.scale_lr
        bounded = limits.clip is not None or limits.intervene is not None
        return cls(
            skip=skip is not None and limiter.in_a_row < skip.in_a_row and limiter.left(tick, "skip") != 0,
            clip=bounded and limiter.left(tick, "clip") != 0,
            low=scale.low if scale else None,
            high=scale.high if scale else None,
            held=limiter.scale,
            lowerings=limiter.left(tick, "scale_lr"),
        )
