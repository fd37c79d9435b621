"""What a tick's rules will be granted, worked out before the host has the tick's readings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

from attrs import field, frozen

from lbw_policy.limits.allowance import Allowance
from lbw_policy.limits.requests import Request
from lbw_policy.machine.asking import Asking
from lbw_policy.machine.foresight import Bit, Bits, Foreseen, Foresight, Late, UnforeseenError
from lbw_policy.semantics import policy as p

if TYPE_CHECKING:
    from lbw_policy.machine.machine import StateMachine

_Kind = TypeVar("_Kind", p.Skip, p.Clip, p.ScaleLr)
_FORESEEN = frozenset({"skip", "clip", "scale_lr"})


@frozen(eq=False)
class Ruling:
    """What is done to one update: left out or not, the factor of its gradients, the factor of its learning rate."""

    skip: Bit
    clip: Late | float
    scale: Late | float


@frozen(eq=False)
class Coming:
    """What the levels ask for in the coming tick: requests by action, and their lr factors below 1 in order."""

    requests: dict[str, Request] = field(factory=dict)
    factors: tuple[float, ...] = ()

    @classmethod
    def of(cls, machine: StateMachine, foresight: Foresight) -> Coming:
        """Let the levels ask, and forget it; `UnforeseenError` for what cannot be answered beforehand."""
        configuration, entered = machine.coming()
        if not entered and machine.ladder.at_rest(configuration):
            return cls()
        asking = Asking(machine.ladder, configuration, foresight.known)
        asking.levels(entered=entered)
        more = set(asking.found) - _FORESEEN
        if more or asking.falls_back or any(request.layers for request in asking.found.values()):
            raise UnforeseenError("a level asks for what is answered with all readings at hand")
        return cls(dict(asking.found), tuple(one for one in asking.configuration.factors if one < 1.0))


@frozen(eq=False)
class Answering:
    """One tick's answers, as the limiter will give them: it is asked the same, with the same left of its budgets.

    `norm` is that of the gradients as they are now. What is asked for together is put together as `Asking` does.
    """

    machine: StateMachine
    foresight: Foresight
    norm: Foreseen
    allowance: Allowance

    def ruling(self) -> Ruling:
        """Return what the coming tick does to its update."""
        coming = Coming.of(self.machine, self.foresight)
        skip = self._skip(coming) if self.allowance.skip else False
        binds, clip = self._clip(coming, skip)
        spent = self._bits.either(skip, binds)
        return Ruling(skip, clip, self._scale(coming, spent))

    @property
    def _bits(self) -> Bits:
        return self.foresight.bits

    def _asked(self, kind: type[_Kind]) -> Iterator[tuple[Bit, _Kind]]:
        for reflex in self.machine.policy.reflexes:
            wanted = [action for action in reflex.actions if isinstance(action, kind)]
            if wanted:
                fires = self.foresight.fires(reflex.condition)
                yield from ((fires, action) for action in wanted if fires is not False)

    def _skip(self, coming: Coming) -> Bit:
        found: Bit = "skip" in coming.requests
        for fires, _ in self._asked(p.Skip):
            found = self._bits.either(found, fires)
        return found

    def _clip(self, coming: Coming, skip: Bit) -> tuple[Bit, Late | float]:
        """Return whether a clip shortens the gradients, and by what factor; none is answered after a skip."""
        if not self.allowance.clip or self.norm is None or skip is True:
            return False, 1.0
        bits, norm, to = self._bits, self.norm, self._least(coming)
        if to == math.inf:
            return False, 1.0
        within = bits.both(bits.finite(norm), bits.compare(">=", to, 0.0))
        binds = bits.both(bits.both(within, bits.compare(">", norm, to)), bits.invert(skip))
        if binds is False:
            return False, 1.0
        return binds, bits.choose(binds, bits.combine("/", to, norm), 1.0)

    def _least(self, coming: Coming) -> Late | float:
        """Return the least norm that is asked for, infinity if none is; one that is NaN is not asked for."""
        bits, least = self._bits, math.inf
        found: Late | float = least
        norms = [(fires, self.foresight.number(clip.to)) for fires, clip in self._asked(p.Clip)]
        if "clip" in coming.requests:
            norms.append((True, coming.requests["clip"].amount))
        for fires, norm in norms:
            if norm is not None:
                found = bits.choose(bits.both(fires, bits.compare("<", norm, found)), norm, found)
        return found

    def _scale(self, coming: Coming, spent: Bit) -> Late | float:
        """Return the lr factor; `spent` tells whether the tick has begun an intervention before it is answered."""
        allowed, bits = self.allowance, self._bits
        if allowed.low is None or allowed.high is None:
            return 1.0
        asked, product = self._product(coming)
        if asked is False:
            return 1.0
        inside = bits.both(bits.compare("<=", allowed.low, product), bits.compare("<=", product, allowed.high))
        end = bits.choose(bits.compare(">", product, allowed.high), allowed.high, allowed.low)
        factor = bits.choose(inside, product, end)
        granted = bits.either(bits.compare(">=", factor, allowed.held), self._lowers(spent))
        return bits.choose(asked, bits.choose(granted, factor, allowed.held), 1.0)

    def _product(self, coming: Coming) -> tuple[Bit, Late | float]:
        bits = self._bits
        asked: Bit = bool(coming.factors)
        product: Late | float = 1.0
        for fires, action in self._asked(p.ScaleLr):
            by = self.foresight.number(action.by)
            asked = bits.either(asked, fires)
            product = bits.choose(fires, bits.combine("*", product, math.nan if by is None else by), product)
        for factor in coming.factors:
            product = bits.combine("*", product, factor)
        return asked, product

    def _lowers(self, spent: Bit) -> Bit:
        left = self.allowance.lowerings
        if left is None or left > 1:
            return True
        return self._bits.invert(spent) if left else False
