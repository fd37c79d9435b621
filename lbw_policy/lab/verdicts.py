"""What became of a run of a comparison: crash, loss, time away, and what the guard did. Plain numbers in and out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import frozen

from lbw_policy.lab import measures
from lbw_policy.lab.closed_loop import Finding
from lbw_policy.lab.scenarios import BENIGN, SCENARIOS, Case

HARD = frozenset({"skip", "rollback", "scale_lr", "freeze", "reset_moments", "halt"})
"""What counts as a hard intervention: all that takes an update, or a part of it, from the run. A clip does not."""
HARMED = 1.05
"""A run ends well whose final held-out loss is at most so many times the trouble-free one's."""
MOST = 3.0
"""The highest ratio of final losses that is counted; of a broken run too."""
_FLOOR = 0.02
_SMALL = 0.2


@frozen
class Verdict:
    """The figures of one run; `docs/efficacy.md` says what they mean.

    `ratio` is the final held-out loss over that of the trouble-free unguarded run, `harm` by how much it is above that
    of the unguarded run under the same trouble. `harmful` tells whether the trouble did lasting harm to the unguarded
    run. `away` is None where the run was not back by its end. Of a guard with levels, `climbs` is how often the run
    left the lowest one, and `ended` the level it ended in, "" for others.
    """

    case: Case
    contender: str
    steps: int
    crashed: bool
    halted: bool
    harmful: bool
    ratio: float
    harm: float
    away: int | None
    hard: int
    climbs: int = 0
    ended: str = ""

    @property
    def nature(self) -> str:
        """Return how its trouble comes."""
        return SCENARIOS[self.case.scenario].nature if self.case.scenario in SCENARIOS else BENIGN


def judge(case: Case, finding: Finding, calm: Finding, plain: Finding) -> Verdict:
    """Judge a run by its trouble-free unguarded twin and by its unguarded one; both are of the same seed."""
    return Verdict(
        case=case,
        contender=finding.contender,
        steps=len(finding.losses),
        crashed=crashed(finding, calm),
        halted=finding.halted is not None,
        harmful=crashed(plain, calm) or ratio(plain, calm) > HARMED,
        ratio=ratio(finding, calm),
        harm=_excess(finding, _end(plain, calm.untrained), calm.untrained),
        away=away(finding.losses, calm.losses),
        hard=sum(len(ticks) for action, ticks in finding.acts.items() if action in HARD),
        climbs=_climbs(finding),
        ended=finding.levels[-1][1] if finding.levels else "",
    )


def crashed(finding: Finding, calm: Finding) -> bool:
    """Tell whether a run was halted, was broken by its guard, or was lost.

    Lost: it ended non-finite, or over half of what there was to learn is not learned.

    Definition: `measures.crashed`.
    """
    if finding.halted is not None or finding.raised:
        return True
    return measures.crashed(finding.losses, finding.held_out, calm.held_out, calm.untrained)


def ratio(finding: Finding, calm: Finding) -> float:
    """Return the final held-out loss over the trouble-free one's; of a broken run, that of an untrained one.

    Of losses below a fifth of the untrained one, the difference is divided by that fifth: they differ by chance.
    """
    return 1 + _excess(finding, calm.held_out, calm.untrained)


def away(losses: Sequence[float], reference: Sequence[float]) -> int | None:
    """Return the longest stretch of steps in which the loss was away from that of the trouble-free run.

    It is away where its smoothed value is over 10 % above the reference's at the same step, and by more than 2 % of the
    first loss, below which small losses only differ by chance; and back with ten steps that are near. 0: it never was
    away. None: it still is at the end, or the run ended early. `measures.recovery` is the time of the first return.
    """
    near, longest, began = _near(losses, reference), 0, None
    for step, here in enumerate(near):
        if not here and began is None:
            began = step
        elif here and began is not None and all(near[step : step + measures.SETTLED]):
            longest, began = max(longest, step - began), None
    still = began is not None and len(near) - began >= measures.SETTLED
    return None if still or len(losses) < len(reference) else max(longest, 0 if began is None else len(near) - began)


def _climbs(finding: Finding) -> int:
    """Return how often the run left the level that it began in."""
    calm = finding.levels[0][1] if finding.levels else ""
    return sum(level == calm for _, level in finding.levels[:-1])


def _near(losses: Sequence[float], reference: Sequence[float]) -> list[bool]:
    floor = _FLOOR * reference[0]
    pairs = zip(measures.smoothed(losses), measures.smoothed(reference), strict=False)
    return [math.isfinite(here) and here <= max((1 + measures.NEAR) * there, there + floor) for here, there in pairs]


def _excess(finding: Finding, other: float, untrained: float) -> float:
    return min((_end(finding, untrained) - other) / max(other, _SMALL * untrained), MOST - 1)


def _end(finding: Finding, untrained: float) -> float:
    return min(finding.held_out, untrained) if math.isfinite(finding.held_out) else untrained
