"""The device tier: one guard's acts on numbers that the host does not have yet, and the check when it has them."""

from __future__ import annotations

import torch
from attrs import define, field

from lbw_policy.limits import Outcome
from lbw_policy.machine import Session, Turn
from lbw_policy.machine.ahead import Ruling
from lbw_policy.machine.foresight import Foreseen, UnforeseenError
from lbw_policy.machine.session import Present
from lbw_policy.record import log
from lbw_policy.runtime.effects import Effects
from lbw_policy.runtime.ondevice import TensorOperations
from lbw_policy.runtime.tiers import read_ahead
from lbw_policy.semantics.policy import Signal
from lbw_policy.semantics.walk import own
from lbw_policy.telemetry import Collector, Packet, Readings, Sent

_RULING = "ruling"
_DONE = ("skip", "clip", "scale_lr")


class DisagreementError(RuntimeError):
    """What was done to an update is not what the limiter grants."""


@define(eq=False)
class Ahead:
    """Acts within a tick, and is told by the host's own decision a tick later whether that was right.

    One tick is `begin`, then `settle` and `check` once its numbers may be waited for. `trusted` is false once it
    was wrong, or failed: from then on every tick waits for its numbers.
    """

    session: Session
    collector: Collector
    effects: Effects
    operations: TensorOperations
    trusted: bool = field(init=False, default=True)
    _sent: Sent | None = field(init=False, default=None)
    _ruling: Ruling | None = field(init=False, default=None)
    _done: tuple[float, float, float] | None = field(init=False, default=None)
    _read: frozenset[str] = field(init=False)

    @_read.default
    def _signals(self) -> frozenset[str]:
        return read_ahead(self.session.policy)

    def begin(self, *, acts: bool) -> bool:
        """Measure the present tick, act on it, and tell whether it goes on without the host knowing its numbers.

        If it does not, nothing has been done: `settle` has the numbers for the host to decide on.
        """
        self._done = None
        packet = self.collector.measure(self.session.tick)
        self._ruling = self._foreseen() if acts and self.trusted else None
        if self._ruling is not None:
            self._queue(packet, self._ruling)
            self.effects.act_ahead(self._ruling)
        self._sent = packet.send()
        return self._ruling is not None or not acts

    def settle(self) -> Readings:
        """Return the readings of the tick that was begun, waiting for them if they are not there yet."""
        assert self._sent is not None
        numbers, self._sent = self.collector.received(self._sent), None
        self._done = self._told(numbers.pop(_RULING, None))
        return self.collector.settle(numbers)

    @property
    def skipped(self) -> bool:
        """Whether the update of the tick whose numbers are there was left out on the device."""
        return self._done is not None and self._done[0] != 0.0

    def check(self, turn: Turn) -> None:
        """Raise `DisagreementError` unless what was done is what the limiter now grants."""
        if self._ruling is None:
            return
        granted = {grant.request.action: grant.amount for grant in turn.grants if grant.outcome is not Outcome.REFUSED}
        right = (float("skip" in granted), granted.get("clip", 1.0), granted.get("scale_lr", 1.0))
        if self._done != right or not granted.keys() <= set(_DONE):
            done, wanted = (dict(zip(_DONE, one, strict=True)) for one in (self._done or (), right))
            raise DisagreementError(f"the device did {done}, and the limiter grants {wanted}")

    def _foreseen(self) -> Ruling | None:
        try:
            ruling = self.session.foresee(self._present(), self.operations, self._norm())
        except UnforeseenError as reason:
            log.debug("tick %d waits for its numbers: %s", self.session.tick, reason)
            return None
        except Exception:
            self.trusted = False
            raise
        return ruling if self.effects.can_act_ahead(ruling) else None

    def _present(self) -> Present:
        tick, values, unseen = self.session.tick, dict[str, Foreseen](), set[str]()
        due = [one for one in self.session.policy.signals if one.name in self._read and self._due(one, tick)]
        found = self.collector.present({signal.key for signal in due})
        for signal in due:
            if own(signal):
                continue
            if signal.key in found:
                values[signal.name] = self.operations.take(found[signal.key])
            else:
                unseen.add(signal.name)
        return Present(values, frozenset(unseen))

    def _due(self, signal: Signal, tick: int) -> bool:
        return not tick % (signal.every * self.session.factors.get(signal.name, 1))

    def _norm(self) -> Foreseen:
        """Return the norm of the gradients as they are now; where it is not measured the one that the loop told."""
        norm = self.collector.present_norm()
        return self.operations.take(self.collector.present({"grad_norm"}).get("grad_norm") if norm is None else norm)

    def _queue(self, packet: Packet, ruling: Ruling) -> None:
        parts = (ruling.skip, ruling.clip, ruling.scale)
        if not all(isinstance(part, float | bool) for part in parts):
            tensor = self.operations.tensor
            numbers = (self.operations.flag(ruling.skip), tensor(ruling.clip), tensor(ruling.scale))
            packet.add(_RULING, torch.stack(numbers))

    def _told(self, numbers: list[float] | None) -> tuple[float, float, float] | None:
        if numbers is not None:
            skip, clip, scale = numbers
            return skip, clip, scale
        found = self._ruling
        if found is None:
            return None
        assert isinstance(found.skip, bool)
        assert isinstance(found.clip, float)
        assert isinstance(found.scale, float)
        return float(found.skip), found.clip, found.scale
