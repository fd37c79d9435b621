"""What the limiter promises of every run, whatever is asked for: each limit, and what the limits mean together."""

from __future__ import annotations

from collections.abc import Iterator

from lbw_policy.claims import Claim
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.ceilings import TIMER
from lbw_policy.semantics.spelling import amount, share, steps
from lbw_policy.verify import floats, moving, progress
from lbw_policy.verify.progress import Means
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.refining import Part, budgets, refines
from lbw_policy.verify.spending import never_more
from lbw_policy.verify.systems import Induction, Obligation

LIMITS_HOLD, PROGRESS, LIVELOCK = "limits_hold", "progress_guaranteed", "skip_cannot_livelock"
REFINES, SURVIVES = "refines_parent", "survives_resume"

_BEGUN = {
    "skip": "skips",
    "clip": "clips",
    "rollback": "rollbacks",
    "reset_moments": "resets of the moments",
    "checkpoint": "checkpoints",
    "intervene": "interventions",
}


def promises(policy: p.Policy) -> list[Promise]:
    """Return the promises of a policy's limiter, each limit first."""
    limits = policy.limits
    found = [*_budgets(limits), *_skip(limits), *_rollback(limits), *_freeze(limits), *_amounts(limits)]
    return [*found, _nothing_else(), *_progress(policy), *_livelock(policy), *_refines(policy), _survives()]


def _limit(about: str, sentence: str, bound: float, unit: str, *parts: Part) -> Promise:
    return _promise(Claim(LIMITS_HOLD, about, sentence, bound, unit), *parts)


def _promise(claim: Claim, *parts: Part) -> Promise:
    return Promise(
        claim,
        tuple(one for one in parts if isinstance(one, Induction)),
        tuple(one for one in parts if isinstance(one, Obligation)),
    )


# Each limit


def _budgets(limits: p.Limits) -> Iterator[Promise]:
    for name, budget in budgets(limits).items():
        kind = _BEGUN.get(name, f"uses of `{name}`")
        sentence = f"no {steps(budget.window)} in a row hold more than {budget.count:_} {kind}"
        yield _limit(name, sentence, budget.count, f"per {steps(budget.window)}", never_more(name, budget))


def _skip(limits: p.Limits) -> Iterator[Promise]:
    if limits.skip:
        row = limits.skip.in_a_row
        sentence = f"no more than {row:_} updates are skipped without an accepted one between"
        yield _limit("skip in a row", sentence, row, "updates", moving.few_in_a_row(limits.skip))


def _rollback(limits: p.Limits) -> Iterator[Promise]:
    limit = limits.rollback
    if limit is None:
        return
    sentence = f"progress never lies more than {steps(limit.distance)} below the furthest point of the run"
    yield _limit("rollback distance", sentence, limit.distance, "steps", moving.near_the_top(limit))
    if limit.spacing:
        sentence = f"two rollbacks are at least {steps(limit.spacing)} apart"
        apart = never_more("rollback spacing", progress.apart(limit))
        yield _limit("rollback spacing", sentence, limit.spacing, "steps", apart)


def _freeze(limits: p.Limits) -> Iterator[Promise]:
    limit = limits.freeze
    if limit is None:
        return
    sentence = f"no more than {share(limit.share)} of the layers are frozen"
    yield _limit("freeze share", sentence, limit.share, "of layers", floats.stays_within("share", 0.0, limit.share))
    sentence = f"no freeze lasts longer than {steps(limit.duration)}"
    yield _limit("freeze duration", sentence, limit.duration, "steps", moving.brief_freezes(limit))
    sentence = "a freeze begins only after a pause as long as the freeze before it"
    yield _promise(Claim(LIMITS_HOLD, "freeze pause", sentence), moving.rested_freezes(limit))


def _amounts(limits: p.Limits) -> Iterator[Promise]:
    if limits.scale_lr:
        low, high = limits.scale_lr.low, limits.scale_lr.high
        sentence = f"every lr factor lies in {_range(low, high)}, and is 1 where none is granted"
        yield _limit("scale_lr", sentence, low, "at least", floats.factor_in_range(low, high))
    if limits.clip or limits.intervene:
        sentence = "a clip multiplies the gradients by a factor in [0, 1]: it never makes them larger"
        yield _limit("clip never loosens", sentence, 1.0, "at most", floats.clip_shrinks())
    for limit in limits.custom:
        if limit.low is not None and limit.high is not None:
            sentence = f"every amount of `{limit.name}` lies in {_range(limit.low, limit.high)}"
            within = floats.stays_within("amount", limit.low, limit.high)
            yield _limit(f"amount of {limit.name}", sentence, limit.high, "at most", within)


def _range(low: float, high: float) -> str:
    return f"[{amount(low)}, {amount(high)}]"


def _nothing_else() -> Promise:
    """Return the promise about actions that no limit names: of the code alone, so it is tested."""
    return Promise(Claim(LIMITS_HOLD, "all else", "an action that no limit allows is never granted"))


# What the limits mean together


def window(limits: p.Limits) -> int:
    """Return the number of steps that a policy's guarantees speak of: the window of its most drastic budget."""
    found = budgets(limits)
    return next((found[name].window for name in ("rollback", "skip", "intervene") if name in found), 1_000)


def _progress(policy: p.Policy) -> Iterator[Promise]:
    means, span = Means(policy.limits), window(policy.limits)
    gain = means.gain(span)
    claim = Claim(PROGRESS, "", _gain(gain, span), gain, f"updates in any {steps(span)}")
    yield _promise(claim, *_means(means, span), progress.gains(means, span))


def _means(means: Means, span: int) -> Iterator[Part]:
    yield from means.budgets(span)
    yield from means.gates()
    yield progress.keeps_moving(means)


def _gain(gain: int, span: int) -> str:
    if gain >= 0:
        return f"any {steps(span)} without a halt gain at least {gain:_} updates, net of rollbacks"
    return f"the budgets promise no progress; any {steps(span)} lose at most {-gain:_} updates"


def _livelock(policy: p.Policy) -> Iterator[Promise]:
    means = Means(policy.limits)
    stall = means.longest_stall()
    ticks = TIMER if stall is None else stall
    sentence = f"no more than {steps(ticks)} in a row are without an accepted update"
    claim = Claim(LIVELOCK, "", sentence if ticks else "every step ends in an accepted update", ticks, "steps in a row")
    yield _promise(claim, *_means(means, ticks + 1), progress.ends(means, ticks + 1))
    kept = policy.quarantine
    sentence = f"no more than {steps(kept)} in a row are kept from the baselines, so a new normal is learned"
    yield _promise(Claim(LIVELOCK, "baselines", sentence, kept, "steps in a row"), progress.always_learns(kept))


def _refines(policy: p.Policy) -> Iterator[Promise]:
    if policy.parent is not None:
        sentence = "every run stays within every limit of the policy that this one extends"
        yield _promise(Claim(REFINES, "", sentence), *refines(policy.limits, policy.parent))


def _survives() -> Promise:
    """Return the promise about saved states: of the code alone, so it is tested."""
    return Promise(Claim(SURVIVES, "", "a run that is saved and resumed goes on as if it had not been interrupted"))
