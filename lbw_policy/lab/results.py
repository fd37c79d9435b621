"""What an experiment found, as plain frozen data that can be printed, drawn and written."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import attrs
from attrs import frozen


@frozen
class Intervention:
    """Something a guard did, or was refused, at a tick."""

    tick: int
    action: str
    outcome: str
    rule: str


@frozen
class RunResult:
    """The figures of one run; `lab.measures` says what they mean.

    `recovery` is None where the run did not come back, and for a trouble-free run.
    `halted` is the step at which the guard stopped the run, None where it did not.
    """

    losses: tuple[float, ...]
    held_out: float
    crashed: bool
    recovery: int | None
    halted: int | None
    step_ms: float
    interventions: tuple[Intervention, ...]

    def counts(self) -> Counter[str]:
        """Count what was done, by kind of action; what was refused is left out."""
        return Counter(each.action for each in self.interventions if each.outcome != "refused")

    @property
    def refused(self) -> int:
        """Return how many requests the limits refused."""
        return sum(each.outcome == "refused" for each in self.interventions)


@frozen
class PairResult:
    """The figures of an unguarded and a guarded run under the same fault."""

    fault: str
    title: str
    start: int
    length: int
    plain: RunResult
    guarded: RunResult
    overhead: float


@frozen
class Report:
    """A whole experiment; the first pair is the trouble-free one."""

    policy: str
    task: str
    parameters: int
    seed: int
    steps: int
    untrained: float
    pairs: tuple[PairResult, ...]

    @property
    def calm(self) -> PairResult:
        """Return the trouble-free pair."""
        return self.pairs[0]

    @property
    def troubled(self) -> tuple[PairResult, ...]:
        """Return the pairs with a fault."""
        return self.pairs[1:]


def write_json(report: Report, path: Path) -> None:
    """Write the report as JSON; a number that is not finite becomes null, as JSON has none."""
    plain = attrs.asdict(report, value_serializer=_finite)
    path.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _finite(_owner: object, _field: object, value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
