"""Alarms of a replayed policy, counted: false ones in healthy steps, divergences caught, and how early."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from attrs import frozen

from lbw_policy.errors import TraceError, TuneError
from lbw_policy.machine import Turn
from lbw_policy.runtime.replaying import Binding, Replay, readings
from lbw_policy.semantics.policy import Policy, name_of
from lbw_policy.semantics.walk import actions_of
from lbw_policy.tuning.runs import Run, told

GENTLE = frozenset({"clip", "checkpoint"})
"""Actions that take no update, nor a part of one, from the run: no alarms."""
CONFIDENCE = 0.95
"""Of the upper bound of a rate."""


def intervenes(turn: Turn) -> bool:
    """Tell whether a hard intervention begins at a tick: one that is granted, not one that is merely held."""
    return any(grant.starts and grant.request.action not in GENTLE for grant in turn.granted)


def alerts(turn: Turn) -> bool:
    """Tell whether an alert begins to hold at a tick."""
    return bool(turn.decision.messages)


@frozen
class Rule:
    """What counts as an alarm: what a tick did, and whether leaving the lowest level is one too."""

    rings: Callable[[Turn], bool]
    leaving: bool


RULES: Mapping[str, Rule] = {"interventions": Rule(intervenes, leaving=True), "alerts": Rule(alerts, leaving=False)}


@frozen
class Counted:
    """One run under one setting: its healthy steps, the false alarms in them, whether it diverged.

    `lead` counts rows from the first alarm in time to the divergence, None where there was none; it is negative where
    the alarm came after the divergence.
    """

    healthy: int
    false: int
    troubled: bool
    lead: int | None = None


def count(policy: Policy, runs: Iterable[Run], rule: Rule) -> Iterator[Counted]:
    """Replay every run as far as it tells anything, and count; raises TraceError where a run lacks a column."""
    bindings: dict[tuple[str, ...], Binding] = {}
    for run in runs:
        names = run.trace.names
        if names not in bindings:
            bindings[names] = Binding.of(policy, names)
        yield _count(policy, run, bindings[names], rule)


def _count(policy: Policy, run: Run, binding: Binding, rule: Rule) -> Counted:
    false, lead = 0, None
    for row in _alarms(policy, run, binding, rule):
        if row < run.healthy:
            false += 1
        elif run.trouble and row >= run.trouble.first:
            lead = run.trouble.event - row
            break
    return Counted(min(run.healthy, run.trace.rows), false, run.trouble is not None, lead)


def _alarms(policy: Policy, run: Run, binding: Binding, rule: Rule) -> Iterator[int]:
    """Yield the rows at which the policy alarms."""
    lowest = policy.levels[0].name if policy.levels and rule.leaving else ""
    replay = Replay(policy, run.trace.first)
    for row, (values, sources) in enumerate(islice(readings(policy, run.trace, binding), run.rows)):
        turn = replay.tick(values, sources)
        if rule.rings(turn) or turn.decision.previous == lowest != turn.decision.level:
            yield row


@frozen
class Score:
    """What a setting catches, and what it costs: `leads` are those of the runs that were caught, sorted."""

    healthy: int
    false: int
    troubled: int
    leads: tuple[int, ...]

    @classmethod
    def of(cls, counted: Sequence[Counted]) -> Score:
        """Add up what was counted in some runs."""
        return cls(
            healthy=sum(one.healthy for one in counted),
            false=sum(one.false for one in counted),
            troubled=sum(one.troubled for one in counted),
            leads=tuple(sorted(one.lead for one in counted if one.lead is not None)),
        )

    @property
    def caught(self) -> float:
        """The share of the divergences that an alarm met in time; 0 where there were none."""
        return len(self.leads) / self.troubled if self.troubled else 0.0

    @property
    def lead(self) -> float | None:
        """The median lead of those caught, in steps."""
        return float(statistics.median(self.leads)) if self.leads else None

    @property
    def rate(self) -> float:
        """False alarms per 1_000 healthy steps."""
        return per_1000(self.false, self.healthy)

    @property
    def at_most(self) -> float:
        """The rate that is not exceeded, with 95 % confidence, if alarms come by themselves and not in clusters.

        Source: the exact interval of a Poisson mean (Garwood 1936).
        """
        from scipy.special import gammaincinv

        return per_1000(float(gammaincinv(self.false + 1, CONFIDENCE)), self.healthy)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            "divergences": self.troubled,
            "caught": round(self.caught, 6),
            "lead": self.lead,
            "healthy_steps": self.healthy,
            "false_alarms": self.false,
            "false_per_1000": round(self.rate, 6),
            "false_per_1000_at_most": round(self.at_most, 6) if self.healthy else None,
        }


def per_1000(count: float, steps: int) -> float:
    """Return how often something happened in 1_000 steps; 0 where there are none."""
    return 1000.0 * count / steps if steps else 0.0


def complete(policy: Policy, runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Return the runs that recorded what the policy reads, and lines that tell what the others lack."""
    found, lacking = list[Run](), dict[str, list[Run]]()
    for run in runs:
        try:
            Binding.of(policy, run.trace.names)
        except TraceError as error:
            for line in str(error).splitlines():
                lacking.setdefault(line.partition(";")[0], []).append(run)
        else:
            found.append(run)
    lines = [f"{line}: {len(those)} of {len(runs)} runs, such as `{those[0].name}`" for line, those in lacking.items()]
    return found, lines


def check_complete(policy: Policy, runs: Sequence[Run]) -> None:
    """Raise TuneError, naming signals and runs, where the policy reads what a run did not record."""
    _, lines = complete(policy, runs)
    if lines:
        raise TuneError("\n".join([*told(lines), "leave such runs out with --skip-incomplete"]))


def check_alarming(policy: Policy, alarm: str) -> None:
    """Raise TuneError where nothing that the policy does can be an alarm of this kind."""
    acts = any(name_of(action) not in GENTLE for action in actions_of(policy)) or len(policy.levels) > 1
    if alarm == "interventions" and not acts:
        advice = "; count its alerts with --alarm alerts" if policy.alerts else ""
        raise TuneError(f"policy `{policy.name}` begins no hard intervention and has no levels to leave{advice}")
    if alarm == "alerts" and not policy.alerts:
        raise TuneError(f"policy `{policy.name}` has no alert to count")
