"""The same training twice, unguarded and guarded, under the same trouble; and what came of it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from lbw_policy.lab import measures
from lbw_policy.lab.faults import CALM, Fault
from lbw_policy.lab.recipes import Recipe
from lbw_policy.lab.results import Intervention, PairResult, RunResult
from lbw_policy.lab.tasks import Task
from lbw_policy.lab.training import Attach, Run


@frozen
class Reference:
    """The trouble-free unguarded run, which every other run is judged by."""

    losses: list[float]
    held_out: float
    untrained: float


@frozen(eq=False)
class Pair:
    """Two runs of one training with the same seeds, the same data and the same trouble."""

    fault: Fault
    plain: Run
    guarded: Run

    def step(self) -> None:
        """Train one step of both; they take turns at going first, so that neither has the warmer cache."""
        first, second = (self.plain, self.guarded) if len(self.plain.losses) % 2 else (self.guarded, self.plain)
        first.step()
        second.step()


@frozen
class Experiment:
    """A task, a recipe and a guard, to be tried under one fault after another."""

    task: Task
    recipe: Recipe
    attach: Attach

    def train(self, fault: Fault, after_step: Callable[[Pair], None]) -> Pair:
        """Train a pair to the end, interleaved step by step so that their step times can be compared."""
        pair = Pair(fault, Run(self.task, self.recipe, fault), Run(self.task, self.recipe, fault, attach=self.attach))
        for _ in range(self.recipe.steps):
            pair.step()
            after_step(pair)
        if pair.guarded.guard is not None:
            pair.guarded.guard.detach()
        return pair

    def reference(self, pair: Pair) -> Reference:
        """Make the unguarded run of a trouble-free pair the one that others are judged by."""
        untrained = self.task.held_out(self.task.model(self.recipe.seed))
        return Reference(pair.plain.losses, pair.plain.held_out(), untrained)


def judge(pair: Pair, reference: Reference) -> PairResult:
    """Return the figures of a pair."""
    return PairResult(
        fault=pair.fault.name,
        title=pair.fault.title,
        start=pair.fault.start,
        length=pair.fault.length,
        plain=_judge_run(pair.plain, pair.fault, reference),
        guarded=_judge_run(pair.guarded, pair.fault, reference),
        overhead=measures.overhead(pair.guarded.seconds, pair.plain.seconds),
    )


def _judge_run(run: Run, fault: Fault, reference: Reference) -> RunResult:
    held_out = run.held_out()
    lost = measures.crashed(run.losses, held_out, reference.held_out, reference.untrained)
    trouble_free = fault.name == CALM.name
    return RunResult(
        losses=tuple(run.losses),
        held_out=held_out,
        crashed=lost or run.halted is not None,
        recovery=None if trouble_free else measures.recovery(run.losses, reference.losses, fault.start),
        halted=run.halted,
        step_ms=measures.typical(run.seconds) * 1000,
        interventions=_interventions(run),
    )


def _interventions(run: Run) -> tuple[Intervention, ...]:
    records = () if run.guard is None else run.guard.interventions
    return tuple(Intervention(each.tick, each.action, each.outcome, each.rule) for each in records)
