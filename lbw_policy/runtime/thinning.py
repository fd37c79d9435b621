"""What is done where the guard's own time is above its limit: longer distances between samples and snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen

from lbw_policy import saved
from lbw_policy.machine.schedule import SnapshotSchedule
from lbw_policy.runtime.meter import WINDOW, Meter
from lbw_policy.runtime.pacing import Pace
from lbw_policy.semantics.spelling import steps

_ROOMY = 0.75
"""The share of the limit below which a shorter distance is expected to stay before it is taken again."""
_WORTH = 0.1
"""The share of the limit that sampling must take for there to be anything worth thinning."""
_PATIENCE = 10
"""Judgements in a row that must find room before a shorter distance is taken again."""
_MOST_PATIENCE = 160


@frozen
class Overhead:
    """What the guard costs: its `share` of the time of a step without it (None before it is known), and its limit.

    `factor` is what the ticks between two samples are multiplied by, `snapshot_every` the updates between two
    snapshots, None without rollbacks. `fits` is False once the share is above the limit and nothing is left to thin.
    """

    share: float | None
    limit: float
    factor: int
    snapshot_every: int | None
    fits: bool

    def __str__(self) -> str:
        known = "not measured yet" if self.share is None else f"{100 * self.share:.2g}% of a step"
        thinned = f", sampling every {_ordinal(self.factor)} time" if self.factor > 1 else ""
        return f"{known}, limit {100 * self.limit:g}%{thinned}{'' if self.fits else ', which cannot be kept'}"


@define(eq=False)
class Thinning:
    """Keeps the guard's share of a step at its limit, by longer distances between samples and snapshots.

    Judged every 50 steps. Above the limit the dearer of sampling and snapshots that can still be thinned is
    thinned to twice its distance. Back it goes step by step, after ten judgements in a row by which the shorter
    distance would take no more than three quarters of the limit; each time it has to be thinned again, that wait
    doubles. Only the share is read from the clock: what is decided follows from the readings.
    """

    limit: float
    pace: Pace
    meter: Meter
    schedule: SnapshotSchedule | None = None
    longest: int = 0
    """The most updates between two snapshots by which a healthy one is always in reach."""
    alone: Callable[[], bool] = lambda: True
    """Whether no other process takes part in the run: each has a clock of its own, and all must decide alike."""
    share: float | None = field(init=False, default=None)
    fits: bool = field(init=False, default=True)
    _quiet: int = field(init=False, default=0)
    _patience: int = field(init=False, default=_PATIENCE)
    _returned: bool = field(init=False, default=False)
    _told: bool = field(init=False, default=False)
    _written: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._written = self.schedule.every if self.schedule else 0

    @property
    def overhead(self) -> Overhead:
        """What the guard costs at present."""
        every = self.schedule.every if self.schedule else None
        return Overhead(self.share, self.limit, self.pace.factor, every, self.fits)

    def judge(self, every: Mapping[str, int]) -> tuple[str, ...]:
        """Thin or come back where it is time to; return what people should know of it.

        `every` has the ticks between two samples of each source at present.
        """
        step = self.meter.step
        if step is None or self.meter.laps < WINDOW:
            return ()
        self.meter.laps = 0
        sampling, snapshots = self.meter.sampling(every) / step, self._snapshots(step)
        self.share = sampling + snapshots
        if self.share > self.limit:
            self._quiet = 0
            return self._thin(sampling, snapshots)
        self.fits = True
        return self._come_back(sampling, snapshots, self.meter.least / step)

    def _snapshots(self, step: float) -> float:
        return self.meter.snapshot / self.schedule.every / step if self.schedule else 0.0

    def _thin(self, sampling: float, snapshots: float) -> tuple[str, ...]:
        stretch = self.schedule is not None and self.schedule.every < self.longest and snapshots > 0
        if not self.alone():
            return self._give_up("nothing is thinned in a run of several processes, which must decide alike")
        thin = self.pace.can_thin and sampling > _WORTH * self.limit
        if not stretch and not thin:
            return self._give_up("no more can be thinned without taking from protection")
        if self._returned:
            self._patience, self._returned = min(2 * self._patience, _MOST_PATIENCE), False
        if stretch and (snapshots >= sampling or not thin):
            return self._space(2)
        self.pace.factor *= 2
        return (self._said(self._sampled()),)

    def _come_back(self, sampling: float, snapshots: float, least: float) -> tuple[str, ...]:
        denser = self.pace.factor > 1 and 2 * sampling - least + snapshots <= _ROOMY * self.limit
        closer = self._stretched and sampling + 2 * snapshots <= _ROOMY * self.limit
        self._quiet = self._quiet + 1 if denser or closer else 0
        if self._quiet < self._patience:
            return ()
        self._quiet, self._returned = 0, True
        if not denser:
            return self._space(0.5)
        self.pace.factor //= 2
        return (self._said(self._sampled()),)

    @property
    def _stretched(self) -> bool:
        return self.schedule is not None and self.schedule.every > self._written

    def _space(self, factor: float) -> tuple[str, ...]:
        assert self.schedule is not None
        self.schedule.every = max(self._written, min(int(factor * self.schedule.every), self.longest))
        return (self._said(f"snapshots are taken every {steps(self.schedule.every)}"),)

    def _give_up(self, reason: str) -> tuple[str, ...]:
        self.fits = False
        if self._told:
            return ()
        self._told = True
        return (self._said(reason),)

    def _sampled(self) -> str:
        factor = self.pace.factor
        return f"signals are sampled {f'every {_ordinal(factor)} time' if factor > 1 else 'as the policy says'}"

    def _said(self, done: str) -> str:
        return f"the guard takes {100 * (self.share or 0.0):.3g}% of a step, its limit is {100 * self.limit:g}%: {done}"

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return what is thinned as plain data; what was measured is not kept, for the machine may be another."""
        counters = {"quiet": self._quiet, "patience": self._patience}
        flags = {"returned": self._returned, "told": self._told}
        every = self.schedule.every if self.schedule else 0
        return {"pace": self.pace.state_dict(), "snapshot_every": every, **counters, **flags}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what was thinned; raises StateError where it is damaged."""
        parts = saved.record(state, ("pace", "snapshot_every", "quiet", "patience", "returned", "told"))
        every = saved.within(parts["snapshot_every"], max(self._written, self.longest))
        quiet, patience = (saved.within(parts[name], _MOST_PATIENCE) for name in ("quiet", "patience"))
        self.pace.load_state_dict(saved.mapping(parts["pace"]))
        self._quiet, self._patience = quiet, max(patience, _PATIENCE)
        self._returned, self._told = (saved.truth(parts[name]) for name in ("returned", "told"))
        if self.schedule is not None:
            self.schedule.every = max(every, self._written)
        self.share, self.fits = None, True
        self.meter.gap()


def _ordinal(number: int) -> str:
    return f"{number}{'nd' if number == 2 else 'th'}"
