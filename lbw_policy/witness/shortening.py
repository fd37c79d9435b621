"""Makes a found run short and plain: fewer series, fewer and shorter phases, rounder numbers, and it still shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import define, evolve

from lbw_policy.semantics.trial import Stretch, Trial
from lbw_policy.witness.scripts import RAMP, VALUE, Phase, Script

Show = Callable[[Script], Trial | None]
"""Runs a script; returns the test that shows what is to be shown, None where it does not show it."""

_MOST_TICKS = 8_000
"""What all runs of one shortening may cost."""


def shortened(script: Script, show: Show) -> Trial | None:
    """Return the test of the shortest and plainest variant of a script that was found; None if it shows nothing."""
    trial = show(script)
    return None if trial is None else _Shortening(script, trial, show).run()


@define
class _Shortening:
    script: Script
    trial: Trial
    show: Show
    _left: int = _MOST_TICKS

    def run(self) -> Trial:
        steps = (_fewer_channels, _fewer_shapes, _shorter_beginning, _fewer_phases, _shorter_phases, _rounder)
        for step in steps:
            while self._take(step(self.script)):
                pass
        return self.trial

    def _take(self, variants: Iterator[Script]) -> bool:
        """Take on the first variant that still shows; tell whether there was one."""
        for variant in variants:
            if self._left < variant.ticks:
                return False
            self._left -= variant.ticks
            trial = self.show(variant)
            if trial is not None:
                self.script, self.trial = variant, trial
                return True
        return False


def _fewer_channels(script: Script) -> Iterator[Script]:
    if len(script.channels) > 1:
        changed = {title for phase in script.phases for title in phase.shapes}
        kept = tuple(one for one in script.channels if one.needed or one.title in changed)
        if 0 < len(kept) < len(script.channels):
            yield evolve(script, channels=kept)
        for one in (channel for channel in script.channels if not channel.needed):
            yield evolve(script, channels=tuple(other for other in script.channels if other is not one))


def _shorter_beginning(script: Script) -> Iterator[Script]:
    if script.warm:
        yield evolve(script, warm=0)
        yield evolve(script, warm=script.warm // 2)


def _fewer_phases(script: Script) -> Iterator[Script]:
    if len(script.phases) > 1:
        for place in range(len(script.phases)):
            yield _with(script, place)


def _fewer_shapes(script: Script) -> Iterator[Script]:
    for place, phase in reversed([*enumerate(script.phases)]):
        for title in phase.shapes:
            if any(one.title == title for one in script.channels):
                shapes = {name: shape for name, shape in phase.shapes.items() if name != title}
                yield _with(script, place, evolve(phase, shapes=shapes))


def _shorter_phases(script: Script) -> Iterator[Script]:
    for place, phase in enumerate(script.phases):
        for ticks in dict.fromkeys((phase.ticks // 2, phase.ticks * 3 // 4, phase.ticks - 1)):
            if 0 < ticks < phase.ticks:
                yield _with(script, place, phase.cut(ticks))


def _rounder(script: Script) -> Iterator[Script]:
    for place, phase in enumerate(script.phases):
        for title, shape in phase.shapes.items():
            for digits in (1, 2):
                rounder = _rounded(shape, digits)
                if rounder != shape:
                    yield _with(script, place, evolve(phase, shapes={**phase.shapes, title: rounder}))


def _rounded(shape: Stretch, digits: int) -> Stretch:
    if shape.kind not in (VALUE, RAMP):
        return shape
    values = tuple(float(f"{one:.{digits}g}") if one - one == 0 else one for one in shape.values)
    return (
        shape
        if any(len(f"{old:g}") <= len(f"{new:g}") for old, new in zip(shape.values, values, strict=True))
        else (evolve(shape, values=values))
    )


def _with(script: Script, place: int, *phases: Phase) -> Script:
    """Return a script with other phases, or none, in the place of one."""
    return evolve(script, phases=(*script.phases[:place], *phases, *script.phases[place + 1 :]))
