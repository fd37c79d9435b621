"""A policy that extends another keeps the other's limits: the child's limiter, watched by the parent's observer."""

from __future__ import annotations

from collections.abc import Iterator

from lbw_policy.semantics import policy as p
from lbw_policy.verify import floats, moving
from lbw_policy.verify.spending import over
from lbw_policy.verify.systems import Induction, Obligation
from lbw_policy.verify.terms import FLOAT, Term, term, variable

Part = Induction | Obligation
Parts = Iterator[Part]


def refines(child: p.Limits, parent: p.Limits) -> Parts:
    """Yield what has to be proved for every run under the child's limits to stay within the parent's."""
    yield _fact("actions", allowed(child) <= allowed(parent))
    found, kept = budgets(child), budgets(parent)
    for name in sorted(kept):
        if name in found:
            yield from _budget(name, found[name], kept[name])
        elif name == "intervene" or name in allowed(child):
            yield _fact(f"budget of {name}", holds=False)
    yield from _counters(child, parent)
    yield from _amounts(child, parent)


def allowed(limits: p.Limits) -> frozenset[str]:
    """Return the actions that limits allow at all."""
    found = {name for name in p.ACTION_NAMES.values() if getattr(limits, name)}
    clips = {"clip"} if limits.clip or limits.intervene else set()
    return frozenset(found | clips | {limit.name for limit in limits.custom})


def budgets(limits: p.Limits) -> dict[str, p.Budget]:
    """Return every budget by the name of what it counts."""
    found = {
        "skip": limits.skip and limits.skip.budget,
        "clip": limits.clip,
        "rollback": limits.rollback and limits.rollback.budget,
        "reset_moments": limits.reset_moments,
        "checkpoint": limits.checkpoint,
        "intervene": limits.intervene,
    }
    return {name: budget for name, budget in found.items() if budget} | {one.name: one.budget for one in limits.custom}


def _fact(name: str, holds: bool) -> Obligation:
    return Obligation(name, (term(not holds),))


def _budget(name: str, child: p.Budget, parent: p.Budget) -> Parts:
    """Yield that so many of the child's own windows cover the parent's, and hold no more than it allows."""
    whole = -(-parent.window // child.window)
    yield from over(name, child, whole * child.window)
    yield _fact(f"count of {name}", whole * child.count <= parent.count)


def _counters(child: p.Limits, parent: p.Limits) -> Parts:
    if child.skip and parent.skip:
        yield moving.few_in_a_row(parent.skip, moving.skipping(child.skip))
    if child.rollback and parent.rollback:
        yield moving.near_the_top(parent.rollback, moving.returning(child.rollback))
        yield from _spacing(child.rollback, parent.rollback)
    if child.freeze and parent.freeze:
        yield moving.brief_freezes(parent.freeze, moving.freezing(child.freeze))
        yield moving.rested_freezes(child.freeze)


def _spacing(child: p.RollbackLimit, parent: p.RollbackLimit) -> Parts:
    if parent.spacing > 1:
        own = p.Budget(1, max(1, child.spacing))
        yield from _budget("rollback spacing", own, p.Budget(1, parent.spacing))


def _amounts(child: p.Limits, parent: p.Limits) -> Parts:
    if child.scale_lr and parent.scale_lr:
        yield floats.factor_in_range(child.scale_lr.low, child.scale_lr.high)
        yield _inside("scale_lr", (child.scale_lr.low, child.scale_lr.high), parent.scale_lr)
    if child.freeze and parent.freeze:
        yield floats.stays_within("freeze", 0.0, child.freeze.share)
        yield _inside("freeze", (0.0, child.freeze.share), p.ScaleLimit(0.0, parent.freeze.share))
    kept = {limit.name: limit for limit in parent.custom}
    for limit in child.custom:
        yield from _custom(limit, kept.get(limit.name))


def _custom(child: p.CustomLimit, parent: p.CustomLimit | None) -> Parts:
    if parent is None or parent.low is None or parent.high is None:
        return
    if child.low is None or child.high is None:
        yield _fact(f"{child.name}: range", holds=False)
        return
    yield floats.stays_within(child.name, child.low, child.high)
    yield _inside(child.name, (child.low, child.high), p.ScaleLimit(parent.low, parent.high))


def _inside(name: str, child: tuple[float, float], parent: p.ScaleLimit) -> Obligation:
    amount: Term = variable("amount", FLOAT)
    return Obligation(f"{name}: range", (floats.held(amount, *child), ~floats.held(amount, parent.low, parent.high)))
