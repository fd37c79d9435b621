"""Recounts from outside what a guard did to a run, and holds it against the limits of its policy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from attrs import define, field, frozen
from torch.optim import Optimizer

from lbw_policy.record import Intervention
from tests.runtime.hostile_plugins import Allowed
from tests.runtime.hostile_world import Picture, State, Used, alike, unguarded_step

GRANTED = ("granted", "reduced")
NO_INTERVENTION = ("halt", "checkpoint", "alert", "failure")


@frozen
class Seen:
    """One call of `optimizer.step()` as it looks from outside.

    `given` are copies of the gradients before it and `objects` the gradients themselves; `left` are
    the gradients after it. `raised` names the exception that came out of it. `told` is what the guard
    can have heard. `rates` are the learning rates that the run wants.
    """

    tick: int
    mode: str
    before: Picture
    given: list[torch.Tensor | None]
    objects: list[torch.Tensor | None]
    used: list[Used]
    after: Picture
    left: list[torch.Tensor | None]
    records: tuple[Intervention, ...]
    raised: str
    told: Mapping[str, float]
    rates: list[Any]

    def granted(self, action: str) -> Intervention | None:
        """Return the record of an action that was begun in this tick."""
        return next((r for r in self.records if r.action == action and r.outcome in GRANTED), None)

    @property
    def failed(self) -> bool:
        """Whether the guard itself failed, not only foreign code, so that nothing was done."""
        foreign = ("the plugin ", "the function ")
        return any(r.action == "failure" and not r.reason.startswith(foreign) for r in self.records)


@define
class Audit:
    """The independent count over one run; it outlives save and resume, as the budgets must."""

    allowed: Allowed
    layers: dict[str, list[int]]
    scheduled: bool
    progress: int = 0
    high_water: int = 0
    in_a_row: int = 0
    factor: float | None = 1.0
    excused: bool = False
    blurred: int = 0
    frozen_since: int | None = None
    frozen_last: int | None = None
    rest: int = 0
    events: list[tuple[int, str]] = field(factory=list)
    archive: dict[int, Picture] = field(factory=dict)
    refusing: set[str] = field(factory=set)

    def judge(self, optimizer: Optimizer, seen: Seen) -> None:
        """Hold one step against everything that was promised."""
        self._count(seen)
        self._records_explain_themselves(seen)
        if seen.raised == "ExplosionError":
            self._broke_off(seen)
        elif seen.raised:
            self._stopped_before_the_update(seen)
        elif seen.mode != "act":
            self._nothing_was_done(optimizer, seen)
        else:
            self._one_step(optimizer, seen)

    # Budgets, from the records

    def _count(self, seen: Seen) -> None:
        """Count what began at this tick; no window that ends here may hold too many."""
        for record in seen.records:
            if record.outcome in GRANTED and record.action not in ("alert", "failure", "halt"):
                assert record.tick == seen.tick
                self.events.append((record.tick, record.action))
                self._in_range(record)
        for action in ("skip", "clip", "rollback", "reset_moments", "checkpoint", "nudge"):
            count, window = getattr(self.allowed, action)
            assert self._within(seen.tick, window, action) <= count, (action, self.events)
        assert self._within(seen.tick, self.allowed.spacing, "rollback") <= 1, self.events
        count, window = self.allowed.intervene
        assert self._within(seen.tick, window) <= count, self.events

    def _within(self, tick: int, window: int, action: str | None = None) -> int:
        found = [name for at, name in self.events if at > tick - window and action in (None, name)]
        return len([name for name in found if action or name not in NO_INTERVENTION])

    def _in_range(self, record: Intervention) -> None:
        granted, allowed = record.granted, self.allowed
        match record.action:
            case "scale_lr":
                assert granted is not None
                assert allowed.lowest <= granted <= 1.0
            case "clip":
                assert granted is not None
                assert 0.0 <= granted <= 1.0
            case "freeze":
                assert granted is not None
                assert 0.0 < granted <= allowed.freeze_share
            case "nudge":
                assert granted is not None
                assert allowed.amounts[0] <= granted <= allowed.amounts[1]

    def _records_explain_themselves(self, seen: Seen) -> None:
        for record in seen.records:
            assert record.outcome in (*GRANTED, "refused", "failed", "info", "warning", "critical")
            assert record.outcome not in ("refused", "failed") or record.reason
            assert record.mode == seen.mode
            json.dumps(record.as_dict())

    # What one step did

    def _nothing_was_done(self, optimizer: Optimizer, seen: Seen) -> None:
        assert alike([one.gradients for one in seen.used], _grouped(optimizer, seen.given))
        assert alike([one.rate for one in seen.used], seen.rates)
        self._updated_as(unguarded_step(optimizer, seen.before, seen.used), seen)
        self._everything_given_back(seen, 1.0)
        self._thaw(excused=True)
        self.factor = None
        if seen.mode == "shadow":
            self._refusals_are_told(seen)
        if back := seen.granted("rollback"):
            self._go_back(int(back.granted or 0))  # a shadow's budgets count as if it had been done
        self.progress, self.in_a_row = self.progress + 1, 0
        self.high_water = max(self.high_water, self.progress)

    def _broke_off(self, seen: Seen) -> None:
        """The step raised by itself: no update counts, but what was granted is spent."""
        if seen.mode == "gone":
            return
        self._freeze_begins(seen)
        self._refusals_are_told(seen)
        self._spent_for_nothing(seen)
        back = seen.granted("rollback")
        if back and seen.mode == "act":
            assert alike(seen.after.weights, self.archive[int(back.granted or 0)].weights)

    def _spent_for_nothing(self, seen: Seen) -> None:
        self.factor = 1.0 if seen.granted("halt") else None
        self.in_a_row += seen.granted("skip") is not None
        if back := seen.granted("rollback"):
            self._go_back(int(back.granted or 0))

    def _go_back(self, progress: int) -> None:
        assert self.high_water - progress <= self.allowed.distance
        self.progress = progress
        self.archive = {at: picture for at, picture in self.archive.items() if at <= progress}

    def _stopped_before_the_update(self, seen: Seen) -> None:
        assert seen.raised != "Halted" or seen.mode == "act"
        assert seen.raised != "Halted" or any(r.action in ("halt", "failure") for r in seen.records)
        assert not seen.used
        assert alike(seen.after.weights, seen.before.weights)
        assert alike(seen.after.state, seen.before.state)
        self._everything_given_back(seen, 1.0)
        self._thaw(excused=not seen.granted("halt"))
        if seen.mode == "act":
            self._spent_for_nothing(seen)
            self._halted(seen)

    def _one_step(self, optimizer: Optimizer, seen: Seen) -> None:
        self._freeze_begins(seen)
        if back := seen.granted("rollback"):
            self._rolled_back(seen, int(back.granted or 0))
        elif seen.granted("skip"):
            self._skipped(seen)
        else:
            self._stepped(optimizer, seen)
        self._scaled(seen)
        self._refusals_are_told(seen)

    def _rolled_back(self, seen: Seen, progress: int) -> None:
        assert not seen.failed
        kept = self.archive[progress]
        assert alike(seen.after.weights, kept.weights)
        assert alike(seen.after.buffers, kept.buffers)
        assert alike(seen.after.state, _state(seen, kept.state))
        assert alike(seen.after.rates, seen.rates if self.scheduled else kept.rates)
        assert not any(gradient is not None for gradient in seen.left)
        self._go_back(progress)

    def _skipped(self, seen: Seen) -> None:
        self.in_a_row += 1
        assert self.in_a_row <= self.allowed.in_a_row
        assert all(gradient is None for one in seen.used for gradient in one.gradients)
        assert alike(seen.after.weights, seen.before.weights)
        assert alike(seen.after.state, _state(seen, seen.before.state))
        self._everything_given_back(seen, 1.0)

    def _stepped(self, optimizer: Optimizer, seen: Seen) -> None:
        """Check an applied update: exactly what the bare optimizer does with what was granted."""
        assert not self._had_to_skip(seen)
        clip = seen.granted("clip")
        factor = 1.0 if clip is None or clip.granted is None or seen.failed else clip.granted
        self._freeze(seen, self._frozen(seen, factor))
        start = Picture(seen.before.weights, _state(seen, seen.before.state), seen.before.rates)
        self._updated_as(unguarded_step(optimizer, start, seen.used), seen)
        self._everything_given_back(seen, factor)
        self.progress, self.in_a_row = self.progress + 1, 0
        self.high_water = max(self.high_water, self.progress)
        self.archive[self.progress] = seen.after

    def _updated_as(self, expected: Picture, seen: Seen) -> None:
        assert alike(seen.after.weights, expected.weights)
        assert alike(seen.after.state, expected.state)

    def _everything_given_back(self, seen: Seen, clipped: float) -> None:
        assert alike(seen.after.rates, seen.rates), (seen.after.rates, seen.rates)
        assert all(one is other for one, other in zip(seen.objects, seen.left, strict=True))
        for given, left in zip(seen.given, seen.left, strict=True):
            assert given is None or left is None or alike(left, given if clipped == 1.0 else given * clipped)

    def _had_to_skip(self, seen: Seen) -> bool:
        """Tell whether a skip was ordered and every limit would have let it through."""
        if seen.failed or not _fires(seen, "skip") or seen.tick < self.blurred:
            return False
        budgets = (("skip", self.allowed.skip), (None, self.allowed.intervene))
        spent = any(self._within(seen.tick - 1, window - 1, name) >= count for name, (count, window) in budgets)
        return not spent and self.in_a_row < self.allowed.in_a_row

    # The lr factor

    def _scaled(self, seen: Seen) -> None:
        """Check the factor that the groups were run with: the same for all, in range, lowered only on record."""
        wanted = [_number(rate) for rate in seen.after.rates]
        used = [_number(one.rate) for one in seen.used]
        if seen.failed:
            assert used == wanted or not all(map(math.isfinite, wanted))
            self.factor = None
            return
        record = seen.granted("scale_lr")
        if not all(math.isfinite(rate) and rate > 1e-30 for rate in wanted):
            self.factor = float(record.granted or 0.0) if record else None
            return
        factors = [one / other for one, other in zip(used, wanted, strict=True)]
        assert all(math.isclose(factor, factors[0], rel_tol=1e-6) for factor in factors)
        assert self.allowed.lowest * (1 - 1e-6) <= factors[0] <= 1.0
        if record is not None:
            assert alike([one.rate for one in seen.used], [rate * record.granted for rate in seen.after.rates])
        elif self.factor is not None:
            assert factors[0] >= self.factor * (1 - 1e-6), (seen.tick, factors, self.factor, self.events[-4:])
        self.factor = factors[0]

    # Frozen layers

    def _frozen(self, seen: Seen, factor: float) -> tuple[str, ...]:
        """Return the layers that were left out; the others must have got what was given, clipped."""
        used = [gradient for one in seen.used for gradient in one.gradients]
        found = []
        for name, numbers in self.layers.items():
            had = [number for number in numbers if seen.given[number] is not None]
            if had and all(used[number] is None for number in had):
                found.append(name)
                continue
            for number in numbers:
                given = seen.given[number]
                assert alike(used[number], given if factor == 1.0 or given is None else given * factor)
        return tuple(found)

    def _freeze(self, seen: Seen, frozen: tuple[str, ...]) -> None:
        """Check how many are frozen, and since when; a tick that had nothing to freeze tells nothing."""
        assert len(frozen) <= self.allowed.freeze_share * len(self.layers)
        if frozen:
            if self.frozen_since is None:
                assert self.excused
                self.frozen_since = seen.tick
            assert seen.tick - self.frozen_since < self.allowed.freeze_ticks
            self.frozen_last, self.excused = seen.tick, False
        elif any(gradient is not None for gradient in seen.given) and not seen.granted("freeze"):
            self._thaw(excused=seen.failed)

    def _freeze_begins(self, seen: Seen) -> None:
        if seen.granted("freeze"):
            self._thaw()
            assert seen.tick >= self.rest
            self.frozen_since = seen.tick

    def _thaw(self, *, excused: bool = False) -> None:
        """Note that nothing is frozen any more: the pause is as long as the freeze was seen to be.

        After a tick without a decision a freeze may go on, and then there is no new record: `excused`.
        """
        if self.frozen_since is not None and self.frozen_last is not None and not excused:
            self.rest = self.frozen_last + 1 + self.frozen_last - self.frozen_since + 1
        self.frozen_since = self.frozen_last = None
        self.excused = excused

    # Refusals

    def _refusals_are_told(self, seen: Seen) -> None:
        """What was ordered and not done was refused on record, now or when the refusal began."""
        if seen.granted("halt"):
            self._halted(seen)
        if seen.failed or seen.granted("halt"):
            return
        ended = {action for action in ("rollback", "skip") if seen.granted(action)}
        for action in ("skip", "rollback", "reset_moments", "nudge"):
            refused = any(r.action == action and r.outcome == "refused" for r in seen.records)
            if not _fires(seen, action) or seen.granted(action) or (action == "skip" and ended):
                self.refusing.discard(action)
            elif refused:
                self.refusing.add(action)
            else:
                assert action in self.refusing, (seen.tick, action)

    def _halted(self, seen: Seen) -> None:
        """Follow what a tick cut short has answered; one that was ordered to halt has answered nothing else.

        One that halts as a fallback may have granted more, which stays spent and is on no record.
        """
        if seen.granted("halt") and _fires(seen, "halt"):
            self.refusing.clear()
        elif seen.granted("halt"):
            self.blurred = seen.tick + max(self.allowed.skip[1], self.allowed.intervene[1])
        self.refusing -= {r.action for r in seen.records if r.outcome in GRANTED}
        self.refusing |= {r.action for r in seen.records if r.outcome == "refused"}


def _grouped(optimizer: Optimizer, flat: list[Any]) -> list[list[Any]]:
    values: Iterator[Any] = iter(flat)
    return [[next(values) for _ in group["params"]] for group in optimizer.param_groups]


def _state(seen: Seen, otherwise: State) -> State:
    """Return the optimizer's state that the step started from."""
    return [{} for _ in otherwise] if seen.granted("reset_moments") and not seen.failed else otherwise


def _fires(seen: Seen, action: str) -> bool:
    """Tell whether the loop surely ordered an action, by its own order or by what is broken."""
    order = seen.told.get("order_reset" if action == "reset_moments" else f"order_{action}")
    ordered = order is not None and (order > 0 or not math.isfinite(order))
    if action != "skip" or ordered:
        return ordered
    broken = [gradient for gradient in seen.given if gradient is not None and not bool(gradient.isfinite().all())]
    return bool(broken) or not math.isfinite(seen.told.get("loss", 0.0))


def _number(rate: Any) -> float:  # noqa: ANN401 - a float or a tensor
    return float(rate)
