"""Made telemetry for searches: a healthy beginning, then one phase after another in which something is different."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import evolve, field, frozen

from lbw_policy.machine.windows import warm_up
from lbw_policy.semantics import expressions as e
from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.plugins import signal_kind
from lbw_policy.semantics.walk import children, conditions_of, numbers_of, own, parts

LONGEST_WARM_UP = 4_000
"""Statistics that need more healthy steps than this are not waited for."""

_LEVELS: Mapping[str, float] = {
    "loss": 4.0, "grad_norm": 1.0, "grad_norm_max": 0.5, "nonfinite_grads": 0.0, "nonfinite_params": 0.0,
    "param_norm": 100.0, "update_norm": 0.3, "update_ratio": 0.003, "curvature": 1.0, "lr": 0.001,
    "activation_outliers": 0.02, "activation_variance": 1.0, "activation_max": 5.0,
}  # fmt: skip
"""Where built-in signals stand in an ordinary healthy run."""
_UNIT_LEVELS = {"loss": 4.0, "count": 0.0, "rate": 0.001, "probability": 0.01}
"""Where signals of plugins stand, by unit; others stand at 1."""
_RISK_LEVELS = {t.PROBABILITY: 0.01, t.ALARM: 0.0, t.TRUSTED: 1.0}

VALUE, MISSING, RAMP, NOISE = "value", "missing", "ramp", "noise"


def value(number: float) -> t.Stretch:
    """Return the shape of a stretch at one value; a phase sets its length."""
    return t.Stretch(VALUE, (number,), 1)


GAP = t.Stretch(MISSING, (), 1)


@frozen
class Channel:
    """What a test may give, a signal or a part of a risk, and how it looks in a healthy run.

    Without one that is `needed` a run is not healthy.
    """

    name: str
    part: str
    base: t.Stretch
    needed: bool = False

    @property
    def title(self) -> str:
        """The name as a test writes it."""
        return t.Series(self.name, self.part, ()).title

    @property
    def level(self) -> float:
        """Where it stands in a healthy run."""
        return self.base.values[0]

    def noisy(self, share: float) -> Channel:
        """Return the channel with noise of so much of its level; what a risk says, and counts of 0, are left alone."""
        spread = abs(self.level) * share
        return self if self.part or not spread else evolve(self, base=t.Stretch(NOISE, (self.level, spread), 1))


@frozen
class Phase:
    """Ticks in which some channels, by title, take another shape; the others go on as they were at first."""

    ticks: int
    shapes: Mapping[str, t.Stretch] = field(factory=dict)

    def cut(self, ticks: int) -> Phase:
        """Return its first ticks."""
        return Phase(ticks, {title: _cut(shape, self.ticks, ticks) for title, shape in self.shapes.items()})


@frozen
class Script:
    """A whole made run: `warm` healthy ticks, then the phases."""

    channels: tuple[Channel, ...]
    warm: int
    phases: tuple[Phase, ...] = ()

    @property
    def ticks(self) -> int:
        """The length of the run."""
        return self.warm + sum(phase.ticks for phase in self.phases)

    def then(self, *phases: Phase) -> Script:
        """Return the script with more phases at its end."""
        return evolve(self, phases=(*self.phases, *phases))

    def keeping(self, titles: Sequence[str]) -> Script:
        """Return the script with these channels needed."""
        kept = (evolve(one, needed=one.needed or one.title in titles) for one in self.channels)
        return evolve(self, channels=tuple(kept))

    def given(self) -> tuple[t.Series, ...]:
        """Return the series of a test."""
        return tuple(t.Series(one.name, one.part, self._stretches(one)) for one in self.channels)

    def trial(self, name: str = "") -> t.Trial:
        """Return a test that is given this and expects nothing yet."""
        return t.Trial(name, p.Place("", 0), self.given(), ())

    def _stretches(self, channel: Channel) -> tuple[t.Stretch, ...]:
        whole = [Phase(self.warm), *self.phases]
        shapes = [evolve(phase.shapes.get(channel.title, channel.base), ticks=phase.ticks) for phase in whole]
        return tuple(_joined(_sound(shape) for shape in shapes if shape.ticks))


def _cut(shape: t.Stretch, ticks: int, kept: int) -> t.Stretch:
    """Return how a shape that was to last for `ticks` looks over its first ones."""
    if shape.kind != RAMP or ticks < 2:
        return shape
    first, last = shape.values
    return evolve(shape, values=(first, first + (last - first) * ((kept - 1) / (ticks - 1))))


def _sound(stretch: t.Stretch) -> t.Stretch:
    """Return the stretch, or for a ramp of one tick, which has no slope, the value where it ends."""
    return evolve(value(stretch.values[1]), ticks=1) if stretch.kind == RAMP and stretch.ticks < 2 else stretch


def _joined(stretches: Iterable[t.Stretch]) -> Iterator[t.Stretch]:
    """Join neighbours of one shape, except ramps."""
    last: t.Stretch | None = None
    for stretch in stretches:
        if last and last.kind == stretch.kind != RAMP and evolve(last, ticks=stretch.ticks) == stretch:
            last = evolve(last, ticks=last.ticks + stretch.ticks)
            continue
        if last:
            yield last
        last = stretch
    if last:
        yield last


# What a policy can be given


def channels(policy: p.Policy) -> tuple[Channel, ...]:
    """Return everything a test may give to a policy that its rules read: signals, and what each risk says."""
    told = [Channel(one.name, part, value(level)) for one in policy.risks for part, level in _RISK_LEVELS.items()]
    signals = [_signal(one) for one in policy.signals if not own(one)]
    read = titles_in(*conditions_of(policy), *numbers_of(policy))
    return tuple(one for one in (*signals, *told) if one.needed or one.title in read)


def _signal(signal: p.Signal) -> Channel:
    return Channel(signal.name, "", value(_level(signal)), signal.missing.kind == "unsafe")


def _level(signal: p.Signal) -> float:
    if signal.observed:
        return 1.0
    if signal.source in _LEVELS:
        return _LEVELS[signal.source]
    kind = signal_kind(signal.source)
    return _UNIT_LEVELS.get(str(kind.unit), 1.0) if kind else 1.0


def titles_in(*roots: e.Expression) -> tuple[str, ...]:
    """Return the titles of what expressions read, in the order in which they are met."""
    found = [_title(node) for node in parts(*roots) if isinstance(node, e.Reading | e.RiskReading)]
    return tuple(dict.fromkeys(found))


def _title(node: e.Reading | e.RiskReading) -> str:
    if isinstance(node, e.Reading):
        return node.signal
    return t.Series(node.risk, node.field, ()).title


# How long a healthy beginning has to be


def ready_after(policy: p.Policy, roots: Sequence[e.Expression]) -> int:
    """Return how many healthy ticks expressions need until each is ready, bounded by `LONGEST_WARM_UP`."""
    every = {signal.name: signal.every for signal in policy.signals}
    known: dict[e.Expression, int] = {}
    return min(LONGEST_WARM_UP, max((_ready(root, every, known) for root in roots), default=0))


def _ready(node: e.Expression, every: Mapping[str, int], known: dict[e.Expression, int]) -> int:
    if node not in known:
        inner = max((_ready(child, every, known) for child in children(node)), default=0)
        known[node] = inner + (_filling(node, every) if isinstance(node, e.Statistic) else 0)
    return known[node]


def _filling(node: e.Statistic, every: Mapping[str, int]) -> int:
    if node.name == "rate":
        return 0
    paces = [every.get(one.signal, 1) for one in parts(node) if isinstance(one, e.Reading)]
    return max(paces, default=1) * (node.samples if node.name == "prev" else warm_up(node.samples))
