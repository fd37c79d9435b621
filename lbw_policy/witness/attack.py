"""What every attack on a promise needs: the claim, runs that enter its levels, and what they would show."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from attrs import define

from lbw_policy.claims import Claim
from lbw_policy.semantics import policy as p
from lbw_policy.semantics import trial as t
from lbw_policy.semantics.walk import conditions_of
from lbw_policy.trials.trace import Trace
from lbw_policy.witness import goals
from lbw_policy.witness.exhibits import Exhibit
from lbw_policy.witness.scripts import Script, ready_after
from lbw_policy.witness.search import Effort, Goal, Search, Shapes, Standing

Case = tuple[Script, Exhibit]
"""A run that may break a promise, and what it would show."""
Claims = Callable[[Trace], Sequence[t.Claim]]
PATIENCE = 1_000
"""How long a promise without a bound of its own is watched, in steps."""
LONGEST = 5_000
"""A promise about longer stretches than this is watched for `PATIENCE` steps: a longer test shows nothing to anyone."""
EFFORT = Effort(tries=160, ticks=8_000)
"""What one step of an attack may cost; most of those that lead anywhere do so soon."""
_SETTLED = 8


@define
class Attack:
    """One claim under attack."""

    search: Search
    claim: Claim

    @property
    def policy(self) -> p.Policy:
        """The policy the claim is about."""
        return self.search.policy

    @property
    def titles(self) -> tuple[str, ...]:
        """The titles of everything the policy's rules read."""
        return tuple(one.title for one in self.search.channels)

    @property
    def levels(self) -> list[p.Level]:
        """The levels the claim is about; all if it names none."""
        words = set(re.findall(r"\w+", self.claim.about))
        above = self.policy.levels[1:]
        return [level for level in above if level.name in words] or list(above)

    def bound(self, otherwise: int = PATIENCE) -> int:
        """Return the bound of the claim, if it has one that a test can reach."""
        bound = self.claim.bound
        return otherwise if bound is None or not 0 < bound <= LONGEST else int(bound)

    def begin(self, noise: float = 0.0) -> Standing:
        """Return a healthy beginning, with snapshots to roll back to."""
        warm = ready_after(self.policy, conditions_of(self.policy))
        return self.search.begin(self.titles, max(warm, self._proof()), noise=noise)

    def reach(
        self, start: Standing, goal: Goal, first: Sequence[Shapes] = ({},), effort: Effort = EFFORT
    ) -> Standing | None:
        """Return the run that reaches a goal; None if it was not found with little effort."""
        return self.search.reach(start, goal, first, effort)

    def entered(self, level: p.Level) -> Standing | None:
        """Return a run that has just entered a level."""
        return self.reach(self.begin(), goals.enters(self.policy, level))

    def exhibit(self, name: str, claims: Claims) -> Exhibit:
        """Return what a run is to show: a test of this name that fails."""
        return Exhibit(self.policy, name, claims, passes=False)

    def _proof(self) -> int:
        """Return how many healthy ticks it takes until a snapshot has proved healthy."""
        limit = self.policy.limits.rollback
        return min(limit.distance // 4, PATIENCE) + _SETTLED if limit else 0
