"""Alarms of a replayed policy, counted: false ones in healthy steps, divergences caught, and how early."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
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
FEWEST = -math.log(1.0 - CONFIDENCE)
"""The upper bound of a count of which none was seen: about 3."""
_SAMPLES = 2_000


def intervenes(turn: Turn, lowest: str) -> str:
    """Return the rule that begins a hard intervention at a tick, or leaves the lowest level; empty where none does.

    An intervention that is refused, or merely held, is none that begins.
    """
    began = (grant.request for grant in turn.granted if grant.starts and grant.request.action not in GENTLE)
    first = next(began, None)
    if first is not None:
        return first.rule
    left = turn.decision.previous == lowest != turn.decision.level
    return f"level {turn.decision.level}" if left else ""


def alerts(turn: Turn, _: str) -> str:
    """Return the first alert that begins to hold at a tick; empty where none does."""
    return turn.decision.messages[0].rule if turn.decision.messages else ""


RULES: Mapping[str, Callable[[Turn, str], str]] = {"interventions": intervenes, "alerts": alerts}
"""What counts as an alarm: from what a tick did, and the name of the lowest level, the rule that rings."""


@frozen
class Counted:
    """One run under one setting: its healthy steps, the rule of each false alarm in them, whether it diverged.

    `lead` counts rows from the first alarm in time to the divergence, None where there was none; it is negative where
    the alarm came after the divergence.
    """

    healthy: int
    false: tuple[str, ...]
    troubled: bool
    lead: int | None = None


def count(policy: Policy, runs: Iterable[Run], rings: Callable[[Turn, str], str]) -> Iterator[Counted]:
    """Replay every run as far as it tells anything, and count; raises TraceError where a run lacks a column."""
    bindings: dict[tuple[str, ...], Binding] = {}
    for run in runs:
        names = run.trace.names
        if names not in bindings:
            bindings[names] = Binding.of(policy, names)
        yield _count(policy, run, bindings[names], rings)


def _count(policy: Policy, run: Run, binding: Binding, rings: Callable[[Turn, str], str]) -> Counted:
    false, lead = list[str](), None
    for row, rule in _alarms(policy, run, binding, rings):
        if row < run.healthy:
            false.append(rule)
        elif run.trouble and row >= run.trouble.first:
            lead = run.trouble.event - row
            break
    return Counted(min(run.healthy, run.trace.rows), tuple(false), run.trouble is not None, lead)


def _alarms(policy: Policy, run: Run, binding: Binding, rings: Callable[[Turn, str], str]) -> Iterator[tuple[int, str]]:
    """Yield the rows at which the policy alarms, with the rule that does."""
    lowest = policy.levels[0].name if policy.levels else ""
    replay = Replay(policy, run.trace.first)
    for row, (values, sources) in enumerate(islice(readings(policy, run.trace, binding), run.rows)):
        if rule := rings(replay.tick(values, sources), lowest):
            yield row, rule


@frozen
class Score:
    """What a setting catches, and what it costs.

    `steps` and `alarms` are each run's healthy steps and false alarms, for those that have such steps; `rules` counts
    the false alarms by the rule that rang; `leads` are those of the runs that were caught, sorted.
    """

    steps: tuple[int, ...]
    alarms: tuple[int, ...]
    rules: Counter[str]
    troubled: int
    leads: tuple[int, ...]

    @classmethod
    def of(cls, counted: Sequence[Counted]) -> Score:
        """Add up what was counted in some runs."""
        healthy = [one for one in counted if one.healthy]
        return cls(
            steps=tuple(one.healthy for one in healthy),
            alarms=tuple(len(one.false) for one in healthy),
            rules=Counter(rule for one in counted for rule in one.false),
            troubled=sum(one.troubled for one in counted),
            leads=tuple(sorted(one.lead for one in counted if one.lead is not None)),
        )

    @property
    def healthy(self) -> int:
        """How many healthy steps there were."""
        return sum(self.steps)

    @property
    def false(self) -> int:
        """How many false alarms there were."""
        return sum(self.alarms)

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
        """The rate per 1_000 healthy steps that other runs like these do not exceed, with 95 % confidence.

        The larger of two upper bounds: the exact one of a Poisson mean (Garwood 1936), which holds if alarms come by
        themselves, and that of a bootstrap over runs, which holds where they come in clusters: a run has many or none.
        """
        return max(per_1000(_garwood(self.false), self.healthy), _resampled(self.steps, self.alarms))

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            "divergences": self.troubled,
            "caught": round(self.caught, 6),
            "lead": self.lead,
            "healthy_steps": self.healthy,
            "false_alarms": self.false,
            "false_by_rule": dict(self.rules.most_common()),
            "false_per_1000": round(self.rate, 6),
            "false_per_1000_at_most": round(self.at_most, 6) if self.healthy else None,
        }


def _garwood(count: int) -> float:
    from scipy.special import gammaincinv

    return float(gammaincinv(count + 1, CONFIDENCE))


def _resampled(steps: Sequence[int], alarms: Sequence[int]) -> float:
    """Return the quantile of the rate over samples of runs, each as many as there are, drawn with replacement."""
    if not any(alarms):
        return 0.0
    drawn = np.random.default_rng(0).integers(len(steps), size=(_SAMPLES, len(steps)))
    rates = 1000.0 * np.array(alarms)[drawn].sum(1) / np.array(steps)[drawn].sum(1)
    return float(np.quantile(rates, CONFIDENCE))


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
