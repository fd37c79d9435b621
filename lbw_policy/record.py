"""What the guard did and why: one record an intervention, kept in order."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from attrs import asdict, define, field, frozen

from lbw_policy import saved
from lbw_policy.errors import StateError
from lbw_policy.limits import Outcome

log = logging.getLogger("lbw_policy")

KEPT = 10_000
"""How many records stay in memory; older ones are counted, not kept."""


@frozen
class Intervention:
    """One answer of the limiter: which rule asked, on what evidence, what was granted, what is left.

    `action` is an action of the language, or `alert`, or `failure` where the guard itself failed.
    `asked` and `granted` are amounts in the action's own unit (lr factor, norm or gradient factor,
    steps or progress, share of layers). `values` are the signals' readings at that tick.
    `policy` is the policy's digest, `place` the rule's `path:line` and `why` the reason its author
    gave. `mode` is `act` or `shadow`. `fallback` names the actions asked for instead of a refused one,
    "" where none was declared and the update went on without. `drivers` has a line for each trusted risk that
    the rule reads: which features raised it most, and by how much.
    """

    tick: int
    progress: int
    level: str
    rule: str
    place: str
    policy: str
    action: str
    outcome: str
    asked: float | None = None
    granted: float | None = None
    reason: str = ""
    evidence: tuple[str, ...] = ()
    values: Mapping[str, float | None] = field(factory=dict)
    layers: tuple[str, ...] = ()
    left: int | None = None
    mode: str = "act"
    why: str = ""
    fallback: str = ""
    drivers: tuple[str, ...] = ()

    @property
    def instead(self) -> str:
        """What took over from a refused action, in words; empty for what was not refused."""
        return instead(self.fallback) if self.outcome == Outcome.REFUSED.value else ""

    def as_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self, recurse=False).items()}


def instead(fallback: str) -> str:
    """Return what takes over from a refused action, in words: `scale_lr instead`, or `nothing instead`."""
    return f"{fallback or 'nothing'} instead"


@define
class Ledger:
    """The records of a run, the newest `KEPT` in memory, with counts over all of them.

    `counts` are by action and outcome, `fallbacks` by refused action and what was asked for instead.
    """

    records: deque[Intervention] = field(factory=lambda: deque(maxlen=KEPT))
    counts: Counter[tuple[str, str]] = field(factory=Counter)
    fallbacks: Counter[tuple[str, str]] = field(factory=Counter)

    def add(self, record: Intervention) -> None:
        """Append a record, and log it: alerts by their severity, the rest at debug level."""
        self.records.append(record)
        self.counts[record.action, record.outcome] += 1
        if record.instead:
            self.fallbacks[record.action, record.fallback] += 1
        outcome = f"{record.outcome}, {record.instead}" if record.instead else record.outcome
        log.debug("tick %d: %s asks for %s: %s", record.tick, record.rule, record.action, outcome)

    def forget(self) -> None:
        """Start counting anew."""
        self.counts.clear()
        self.fallbacks.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the kept records and all counts as plain data."""
        return {
            "records": [record.as_dict() for record in self.records],
            "counts": _rows(self.counts),
            "fallbacks": _rows(self.fallbacks),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved records; raises StateError, changing nothing, where they are damaged."""
        parts = saved.record(state, ("records", "counts", "fallbacks"))
        records = [_record(item) for item in saved.items(parts["records"], KEPT)]
        counts, fallbacks = _counter(parts["counts"]), _counter(parts["fallbacks"])
        self.records, self.counts, self.fallbacks = deque(records, maxlen=KEPT), counts, fallbacks


def _rows(counts: Counter[tuple[str, str]]) -> list[list[Any]]:
    return [[*pair, count] for pair, count in sorted(counts.items())]


def _counter(rows: object) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for row in saved.items(rows):
        one, other, count = saved.exactly(row, 3)
        found[str(one), str(other)] = saved.natural(count)
    return found


def _record(item: object) -> Intervention:
    parts = saved.mapping(item)
    try:
        tuples = {name: tuple(parts[name]) for name in ("evidence", "layers", "drivers")}
        return Intervention(**{**parts, **tuples})
    except (TypeError, KeyError) as error:
        raise StateError(f"expected a saved record, found {parts!r:.80}") from error
