"""Checked `test` blocks: what a run is given, tick by tick, and what it must then do. Frozen and plain."""

from __future__ import annotations

from attrs import field, frozen

from lbw_policy.semantics.policy import Place

PROBABILITY, ALARM, TRUSTED = "probability", "alarm", "trusted"
VALUES = ("scale_lr", "progress")
"""Numbers an expectation may compare: the granted lr factor, and the accepted updates after the tick."""
MOST_TICKS = 100_000
"""The longest run of one test, in ticks."""


@frozen
class Stretch:
    """`ticks` samples of one kind.

    `value` repeats one number, `missing` has none, `ramp` goes evenly from the first of `values` to
    the second, `noise` has the mean and the standard deviation in `values`.
    """

    kind: str
    values: tuple[float, ...]
    ticks: int
    seed: int = 0


@frozen
class Series:
    """What a signal reads, or (with `part`) what a risk says, tick by tick; after its end nothing is read."""

    name: str
    part: str
    stretches: tuple[Stretch, ...]

    @property
    def ticks(self) -> int:
        """The length of the series."""
        return sum(stretch.ticks for stretch in self.stretches)

    @property
    def title(self) -> str:
        """The name as a test writes it."""
        return self.name if self.part in ("", PROBABILITY) else f"{self.name}.{self.part}"


@frozen
class During:
    """The ticks `first` to `last` of a run; a claim must hold at each of them, or at `any` one."""

    first: int
    last: int
    any: bool = False


@frozen
class Happens:
    """An action begins, a reflex fires or an alert speaks between `least` and `most` times; None is no bound."""

    kind: str
    name: str
    least: int | None
    most: int | None


@frozen
class Stands:
    """The run is at a level."""

    level: str
    during: During


@frozen
class Compares:
    """One of `VALUES` compares with a number."""

    name: str
    op: str
    value: float
    during: During


Claim = Happens | Stands | Compares


@frozen
class Expectation:
    """One line of a test: what must come true, and how and where the policy writes it."""

    claim: Claim
    text: str
    place: Place


@frozen
class Trial:
    """A checked `test` block."""

    name: str
    place: Place
    given: tuple[Series, ...]
    expectations: tuple[Expectation, ...]
    ticks: int = field(init=False)
    """The length of the longest series."""

    @ticks.default
    def _ticks(self) -> int:
        return max((series.ticks for series in self.given), default=0)
