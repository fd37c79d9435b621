"""One run of a plan, trained under watch and labelled: the telemetry, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
from attrs import frozen

from lbw_policy.lab.architectures import ARCHITECTURES, task_of
from lbw_policy.lab.outcomes import AHEAD, LEAST_AHEAD, Outcome, outcome
from lbw_policy.lab.plan import Planned
from lbw_policy.lab.training import Run
from lbw_policy.lab.trouble import ATTENTION, CALM
from lbw_policy.lab.watching import Watch

AFTER = 30
"""Steps that are kept after a divergence."""
_LOOK_EVERY = 25


@frozen(eq=False)
class Recording:
    """The readings of one run by signal, one a step, and its outcome; signals without any reading are left out."""

    planned: Planned
    columns: dict[str, list[float | None]]
    outcome: Outcome
    parameters: int

    @property
    def steps(self) -> int:
        """Return how many steps were kept."""
        return len(self.columns["loss"])

    @property
    def start(self) -> int | None:
        """Return the step at which the fault strikes, if one does."""
        return None if self.planned.fault.name == CALM.name else self.planned.fault.start


def record(planned: Planned) -> Recording:
    """Train a run of the plan, unguarded, to its planned length or until it has diverged for 30 steps.

    ImportError where scikit-learn is needed and missing.
    """
    architecture = ARCHITECTURES[planned.architecture]
    attach = Watch.of_attention if ATTENTION in architecture.traits else Watch.plain
    run = Run(task_of(planned.architecture), planned.recipe, planned.fault, attach=attach)
    assert isinstance(run.guard, Watch)
    start = None if planned.fault.name == CALM.name else planned.fault.start
    found = _train(run, planned.recipe.steps, start)
    run.guard.detach()
    kept = planned.recipe.steps if found.diverged_at is None else found.diverged_at + 1 + AFTER
    columns = {name: column[:kept] for name, column in run.guard.columns.items()}
    return Recording(
        planned=planned,
        columns={name: column for name, column in columns.items() if any(v is not None for v in column)},
        outcome=attrs.evolve(found, undecided=None),
        parameters=sum(weight.numel() for weight in run.model.parameters()),
    )


def _train(run: Run, steps: int, start: int | None) -> Outcome:
    """Train until the outcome is known: a crossing that comes last is given the steps that it takes to judge it."""
    while True:
        run.step()
        length = len(run.losses)
        if length % _LOOK_EVERY == 0 or length >= steps or not math.isfinite(run.losses[-1]):
            found = outcome(run.losses, start, steps)
            if length > _enough(found, run.losses, steps):
                return found


def _enough(found: Outcome, losses: Sequence[float], steps: int) -> int:
    """Return the step after which no further one can change the outcome, or is kept."""
    if found.undecided is not None:
        return found.undecided + LEAST_AHEAD
    if found.diverged_at is None:
        return steps - 1
    broken = not math.isfinite(losses[-1])
    return found.diverged_at + (AFTER if broken or len(losses) >= steps else AHEAD)
