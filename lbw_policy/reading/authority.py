"""A policy's limits in sentences: what the guard can never exceed, and what follows."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import fields

from lbw_policy.machine.schedule import SnapshotSchedule
from lbw_policy.reading.acts import sentence
from lbw_policy.reading.bounds import spelt
from lbw_policy.reading.guarantees import Guarantees
from lbw_policy.reading.phrases import budget
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.spelling import amount, share, steps
from lbw_policy.semantics.walk import actions_of


def limits(policy: p.Policy, bounds: Guarantees) -> list[str]:
    """Return each limit, and what the limits together guarantee, in sentences."""
    refused = ["What these limits refuse is recorded; where no rule says what is done instead, the update goes on."]
    found = [*_written(policy.limits), *_others(policy.limits), *_never(policy), *_derived(policy, bounds)]
    return [*found, *(refused if actions_of(policy) else [])]


def _written(limit: p.Limits) -> Iterator[str]:
    if limit.scale_lr:
        low, high = amount(limit.scale_lr.low), amount(limit.scale_lr.high)
        yield f"Where it slows the run down, the learning rate is multiplied by {low} at least and by {high} at most."
    if limit.skip:
        row = limit.skip.in_a_row
        yield f"It leaves out at most {_counted(row, 'update')} in a row, and skips {budget(limit.skip.budget)}."
    if limit.clip:
        yield f"It clips gradients {budget(limit.clip)}; a clip only ever makes them smaller."
    if limit.rollback:
        reach = f"A rollback reaches at most {steps(limit.rollback.distance)} below the furthest point of the run"
        apart = f", two of them {steps(limit.rollback.spacing)} apart at least" if limit.rollback.spacing else ""
        yield f"{reach}, and happens {budget(limit.rollback.budget)}{apart}."
    if limit.freeze:
        share_, length = share(limit.freeze.share), steps(limit.freeze.duration)
        yield f"It holds still at most {share_} of the layers, for at most {length} at a time."
        yield "Every freeze is followed by a pause of the same length."
    if limit.intervene:
        yield f"It intervenes {budget(limit.intervene)}, all actions counted together."
    if limit.overhead:
        yield (
            f"It measures its own time, and keeps it within {share(limit.overhead)} of that of a step: "
            "beyond, it samples more rarely what no reflex reads."
        )


_TOLD = frozenset({"scale_lr", "skip", "clip", "rollback", "freeze", "intervene", "overhead", "halt"})


def _others(limit: p.Limits) -> Iterator[str]:
    """Yield a sentence for each limit that has no words of its own."""
    for attribute in fields(p.Limits):
        value = getattr(limit, attribute.name)
        if attribute.name not in _TOLD and value:
            named = [(one.name, one) for one in value] if isinstance(value, tuple) else [(attribute.name, value)]
            yield from (f"The limit of `{name}`: {spelt(one)}." for name, one in named)


_VERBS = {
    "skip": "leaves out an update",
    "clip": "clips gradients",
    "scale_lr": "changes the learning rate",
    "rollback": "rolls back",
    "freeze": "freezes layers",
    "halt": "stops the run",
}


def _never(policy: p.Policy) -> Iterator[str]:
    done = {p.name_of(action) for action in actions_of(policy)}
    if policy.on_failure == "halt":
        done.add("halt")
    never = [verb for name, verb in _VERBS.items() if name not in done and not _allowed(policy.limits, name)]
    if never:
        yield f"It never {sentence(never).replace(' and ', ' or ')}."


def _allowed(limit: p.Limits, name: str) -> bool:
    """Tell whether a limit speaks of an action; one that no rule does is shown all the same."""
    return name != "halt" and getattr(limit, name) is not None


def _derived(policy: p.Policy, bounds: Guarantees) -> Iterator[str]:
    limit, span = policy.limits, steps(bounds.window)
    if limit.scale_lr:
        yield f"So the learning rate is never below {share(bounds.lowest_lr_factor)} of what the run set."
    if limit.skip:
        yield f"So in any {span} at most {_counted(bounds.most_skipped, 'update')} can be left out."
    if limit.skip or limit.rollback:
        yield _progress(bounds, span)
    schedule = SnapshotSchedule.of(policy)
    if schedule:
        every, proof = (_counted(schedule.every, "update"), steps(schedule.proof))
        yield f"Two snapshots are kept, {every} apart; one may be restored after {proof} of calm."
    yield f"Its windows hold at most {_counted(bounds.window_samples, 'sample')}."


def _progress(bounds: Guarantees, span: str) -> str:
    if bounds.least_progress <= 0:
        return f"These budgets alone do not promise progress: all of {span} could be lost to skips and rollbacks."
    kept = f"{100 * bounds.least_progress:.4g}%"
    return (
        f"So a run that is not stopped moves forward: in any {span} it gains at least {kept} of them, net of rollbacks."
    )


def _counted(count: int, word: str) -> str:
    return f"{count:_} {word}{'s' * (count != 1)}"
