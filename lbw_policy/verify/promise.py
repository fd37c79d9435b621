"""A claim together with what has to be proved for it."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import evolve, frozen

from lbw_policy.claims import Claim
from lbw_policy.verify.systems import Induction, Obligation


@frozen
class Promise:
    """A claim, and what must be unsatisfiable for it to count as proved.

    One without inductions and obligations can be tested and refuted, never proved.
    """

    claim: Claim
    inductions: tuple[Induction, ...] = ()
    obligations: tuple[Obligation, ...] = ()

    def everything(self) -> Iterator[Obligation]:
        """Yield every obligation, those of the inductions first and named after their system."""
        for induction in self.inductions:
            for one in induction.obligations():
                yield evolve(one, name=f"{induction.system.name}: {one.name}")
        yield from self.obligations
