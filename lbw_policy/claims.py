"""What is claimed of a policy, and how far it is known."""

from __future__ import annotations

import enum
from typing import Any

from attrs import field, frozen

from lbw_policy.semantics.trial import Trial


class Status(enum.Enum):
    """How far a claim is known. Nothing is proved by default: what no one could decide is unknown."""

    PROVED = "proved"
    TESTED = "tested"
    UNKNOWN = "unknown"
    FAILED = "failed"


@frozen
class Claim:
    """One promise about one part of a policy.

    `promise` is the promise's name, `about` the part (`skip`, `level caution`), "" for the whole
    policy. `bound` is the number the claim speaks of, in `unit`.
    """

    promise: str
    about: str
    sentence: str
    bound: float | None = None
    unit: str = ""


@frozen
class Result:
    """How far a claim is known, how it was found out, and at what cost.

    `how` says it in words: `by induction`, `1_000 random runs of 400 steps`, or why it is unknown.
    `witness` is the run that shows a failed claim, or that a rule can fire: a `test` block.
    """

    claim: Claim
    status: Status
    how: str = ""
    seconds: float = 0.0
    witness: Trial | None = None
    invariants: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain data, without the witness."""
        claim = self.claim
        return {
            "promise": claim.promise,
            "about": claim.about,
            "sentence": claim.sentence,
            "bound": claim.bound,
            "unit": claim.unit,
            "status": self.status.value,
            "how": self.how,
            "seconds": round(self.seconds, 4),
        }
