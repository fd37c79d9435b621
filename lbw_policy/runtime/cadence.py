"""Which telemetry a policy asks for, how often, and how far each of it may be thinned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from attrs import evolve, frozen

from lbw_policy.machine.schedule import slack
from lbw_policy.risk import HOLD, STANDARD_SOURCES
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Expression, Reading, RiskReading
from lbw_policy.semantics.walk import actions_of, amounts, chain, own, parts

FACTORS = (1, 2, 4, 8, 16)
"""What the ticks between two samples may be multiplied by."""
_FREE = frozenset({"loss", "lr", "step_time"})
"""Sources that cost nothing, so there is nothing to be had by thinning them."""


@frozen
class Want:
    """A source to be read every `every` ticks, for a signal or for the guard itself, and the most it may be thinned."""

    key: str
    every: int
    most: int = 1
    signal: str = ""


def wants(policy: p.Policy) -> tuple[Want, ...]:
    """Return everything that is read.

    Never thinned is what a reflex reads, through a risk too; what a clip needs; what costs nothing; and what is
    measured for one of these anyway. What a level reads stays within the slack of the policy's rollbacks, if it has
    any, and what a risk's standard features read within the ticks that a feature stands for.
    """
    found = [Want("loss", 1), *_signals(policy), *_clips(policy), *_standard(policy)]
    return tuple(evolve(one, most=min(other.most for other in found if _covers(other, one))) for one in found)


def _covers(other: Want, one: Want) -> bool:
    """Tell whether the samples of one want are all taken for another one too."""
    return other.key == one.key and one.every % other.every == 0


def _signals(policy: p.Policy) -> Iterator[Want]:
    bounds = _Bounds.of(policy)
    for signal in policy.signals:
        if not (signal.observed or own(signal)):
            longest = bounds.longest(signal.name)
            most = 1 if signal.source in _FREE else _factor(signal.every, longest)
            yield Want(signal.key, signal.every, most, signal.name)


def _clips(policy: p.Policy) -> Iterator[Want]:
    if clips(policy):
        yield Want("grad_norm", 1)
    if clips_layers(policy):
        yield Want("grad_norm_max", 1)


def _standard(policy: p.Policy) -> Iterator[Want]:
    risks = [risk.name for risk in policy.risks if risk.standard]
    longest = min((_Bounds.of(policy).longest(name) for name in risks), default=0)
    for source, every in standard_cadence().items() if risks else ():
        yield Want(source, every, 1 if source in _FREE else _factor(every, min(HOLD, longest)))


def _factor(every: int, longest: float) -> int:
    """Return the greatest factor that leaves no more than so many ticks between two samples."""
    return max((factor for factor in FACTORS if every * factor <= longest), default=1)


@frozen
class _Bounds:
    """The names of signals and risks that reflexes read, those that levels read, and how late levels may see them."""

    reflexes: frozenset[str]
    levels: frozenset[str]
    late: float

    @classmethod
    def of(cls, policy: p.Policy) -> _Bounds:
        bound = slack(policy)
        triggers = [trigger for level in policy.levels for trigger in (level.enter, level.leave) if trigger]
        reflexes = [reflex.condition for reflex in policy.reflexes]
        numbers = amounts(one for reflex in policy.reflexes for action in reflex.actions for one in chain(action))
        return cls(
            _read(policy, [*reflexes, *numbers]),
            _read(policy, [trigger.condition for trigger in triggers]),
            bound.late if bound else math.inf,
        )

    def longest(self, name: str) -> float:
        """Return the most ticks that may lie between two samples of a signal, or of what a risk reads."""
        if name in self.reflexes:
            return 0.0
        return self.late if name in self.levels else math.inf


def _read(policy: p.Policy, roots: Sequence[Expression]) -> frozenset[str]:
    """Return the signals and risks that expressions read, and the signals that these risks read."""
    found = {part.risk if isinstance(part, RiskReading) else part.signal for part in _leaves(roots)}
    features = [number for risk in policy.risks if risk.name in found for _, number in risk.features]
    return frozenset(found | {part.signal for part in _leaves(features) if isinstance(part, Reading)})


def _leaves(roots: Sequence[Expression]) -> Iterator[Reading | RiskReading]:
    return (part for part in parts(*roots) if isinstance(part, Reading | RiskReading))


def standard_cadence() -> dict[str, int]:
    """Return what a risk's standard features read, and the ticks between two readings of each."""
    return dict.fromkeys(STANDARD_SOURCES, 1)


def clips(policy: p.Policy) -> bool:
    """Tell whether any rule clips, for which the gradient norm must be known."""
    return any(isinstance(action, p.Clip) for action in actions_of(policy))


def clips_layers(policy: p.Policy) -> bool:
    """Tell whether any rule clips each layer by itself, for which their norms must be known."""
    return any(isinstance(action, p.Clip) and action.layers for action in actions_of(policy))


def cadence(policy: p.Policy) -> dict[str, int]:
    """Return every built-in source to read and the ticks between two readings of it: a tick reads what divides it.

    One that is taken over a group of layers is named with it: `grad_norm of experts`.
    """
    found = wants(policy)
    return together(found, [1] * len(found))


def together(found: Sequence[Want], factors: Sequence[int]) -> dict[str, int]:
    """Return the ticks between two readings of each source, with every want thinned by its factor."""
    every: dict[str, int] = {}
    for want, factor in zip(found, factors, strict=True):
        every[want.key] = math.gcd(every.get(want.key, 0), want.every * factor)
    return every
