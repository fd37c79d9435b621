"""Units of numbers, and which may meet in one expression."""

from __future__ import annotations

from attrs import frozen


@frozen
class Unit:
    """What a number counts: a product of powers of base dimensions, with two special readings.

    `literal` marks a bare number such as `2.5`, which takes on the unit it meets.
    `probability` marks a number in [0, 1]; it has no dimensions.
    """

    powers: tuple[tuple[str, int], ...] = ()
    literal: bool = False
    probability: bool = False

    def __str__(self) -> str:
        if self.literal:
            return "number"
        if self.probability:
            return "probability"
        if self == STEPS:
            return "number of steps"
        return _spell(self.powers)

    def times(self, other: Unit, sign: int = 1) -> Unit:
        """Return the unit of a product (`sign` 1) or a quotient (`sign` -1)."""
        if self.literal and other.literal:
            return NUMBER
        powers = dict(self.powers)
        for name, power in other.powers:
            powers[name] = powers.get(name, 0) + sign * power
        return Unit(tuple(sorted((name, power) for name, power in powers.items() if power)))


NUMBER = Unit(literal=True)
RATIO = Unit()
PROBABILITY = Unit(probability=True)
STEPS = Unit((("steps", 1),))
COUNT = Unit((("count", 1),))
NORM = Unit((("norm", 1),))
LOSS = Unit((("loss", 1),))
RATE = Unit((("rate", 1),))
CURVATURE = Unit((("curvature", 1),))
VARIANCE = Unit((("variance", 1),))
SECONDS = Unit((("seconds", 1),))
TRUTH = Unit((("truth value", 1),))

NAMED = {
    "ratio": RATIO,
    "probability": PROBABILITY,
    "steps": STEPS,
    "count": COUNT,
    "norm": NORM,
    "loss": LOSS,
    "rate": RATE,
    "curvature": CURVATURE,
    "variance": VARIANCE,
    "seconds": SECONDS,
}
"""The units a param may have."""


def _spell(powers: tuple[tuple[str, int], ...]) -> str:
    if not powers:
        return "ratio"
    above = " ".join(_power(name, power) for name, power in powers if power > 0) or "1"
    below = " ".join(_power(name, -power) for name, power in powers if power < 0)
    return f"{above} per {below.replace('steps', 'step')}" if below else above


def _power(name: str, power: int) -> str:
    return name if power == 1 else f"{name}^{power}"


def meet(left: Unit, right: Unit) -> Unit | None:
    """Return the unit two numbers share when added or compared, or None where they must not meet.

    A bare number meets everything but steps and probabilities: those need `steps` and `%`
    written out (a literal in [0, 1] beside a probability is allowed by the checker).
    """
    if left == right:
        return left
    for one, other in ((left, right), (right, left)):
        if one.literal and other != STEPS and not other.probability and other != TRUTH:
            return other
        if one.probability and other == RATIO:
            return RATIO
    return None
