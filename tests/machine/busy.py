"""Policies whose rules fire often, and runs that make them: conditions are plain, so that levels and limits are met."""

from __future__ import annotations

from functools import cache

from attrs import evolve
from hypothesis import strategies as st

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Comparison, Condition, Constant, Finite, Not, Number, Reading, Statistic
from tests.machine.reference_session import Heard
from tests.strategies import HOSTILE

SIGNALS = ("a", "b", "c", "d")
OWN = ("interventions", "lr_factor")
_PLACE = p.Place("p.lbw", 1)


@cache
def numbers() -> st.SearchStrategy[Number]:
    """A constant, a reading, the lr factor of the last tick, or the mean of one of them."""
    reading = st.builds(Reading, st.sampled_from((*SIGNALS, *SIGNALS, "lr_factor")))
    constant = st.builds(Constant, st.sampled_from((0.0, 0.02, 0.3, 0.5, 0.7, 1.0, 3.0)))
    return constant | constant | reading | st.builds(Statistic, st.just("mean"), reading, st.integers(1, 4))


@cache
def conditions() -> st.SearchStrategy[Condition]:
    """A plain comparison of one signal or of the lr factor of the last tick, or whether a signal is finite."""
    reading = st.builds(Reading, st.sampled_from(SIGNALS))
    compared = st.builds(Comparison, st.sampled_from("<>"), reading, st.just(Constant(0.5)))
    lowered = st.just(Comparison("<", Reading("lr_factor"), Constant(0.6)))
    odd = st.builds(Finite, reading).map(Not)
    return st.one_of(*[compared] * 6, *[odd] * 2, lowered)


@cache
def _one() -> st.SearchStrategy[p.Action]:
    plain = st.sampled_from(
        (p.Skip(), p.Skip(), p.Checkpoint(), p.ResetMoments(), p.Rollback(4), p.Rollback(40), p.Halt())
    )
    slow = st.builds(p.ScaleLr, numbers(), st.integers(1, 5))
    freeze = st.builds(p.Freeze, st.sampled_from((0.0, 0.1, 0.3, 0.9)), st.sampled_from(("grad_norm", "update_ratio")))
    custom = st.builds(p.Custom, st.sampled_from(("boost", "nudge", "unlimited")), st.none() | numbers())
    return st.one_of(plain, plain, slow, slow, freeze, st.builds(p.Clip, numbers(), st.booleans()), custom)


@st.composite
def actions(draw: st.DrawFn) -> p.Action:
    """An action, half of the time with a chain of fallbacks of other kinds."""
    chain = draw(st.lists(_one(), min_size=1, max_size=4, unique_by=p.name_of))
    found = chain.pop()
    while chain:
        found = evolve(chain.pop(), otherwise=found)
    return found


@cache
def triggers() -> st.SearchStrategy[p.Trigger]:
    """A trigger with a short hold."""
    holds = st.integers(1, 3).flatmap(lambda window: st.tuples(st.integers(1, window), st.just(window)))
    return st.builds(lambda condition, hold: p.Trigger(condition, *hold), conditions(), holds)


@st.composite
def _level(draw: st.DrawFn, index: int) -> p.Level:
    return p.Level(
        name=f"level{index}",
        enter=draw(triggers()),
        leave=draw(st.none() | triggers()),
        stay=draw(st.integers(1, 8)),
        settles=draw(st.sampled_from((None, None, None, 1, 2, 4))),
        cooldown=draw(st.sampled_from((0, 0, 1, 2, 6))),
        actions=tuple(draw(st.lists(actions(), max_size=3))),
        periodic=tuple(draw(st.lists(st.builds(p.Periodic, st.integers(1, 3), actions()), max_size=1))),
    )


@cache
def _budgets() -> st.SearchStrategy[p.Budget]:
    return st.builds(p.Budget, st.sampled_from((1, 2, 5, 20)), st.integers(1, 20))


@st.composite
def _limits(draw: st.DrawFn) -> p.Limits:
    some = draw(st.sampled_from((None, "skip", "rollback", "freeze", "scale_lr", "clip")))
    bounds = draw(st.sampled_from(((None, None), (-1.0, 0.5))))
    found = p.Limits(
        scale_lr=p.ScaleLimit(draw(st.sampled_from((0.01, 0.3))), draw(st.sampled_from((0.7, 1.0)))),
        skip=p.SkipLimit(draw(st.integers(1, 3)), draw(_budgets())),
        clip=draw(st.none() | _budgets()),
        rollback=p.RollbackLimit(draw(st.sampled_from((2, 6, 12))), draw(_budgets()), draw(st.sampled_from((0, 0, 4)))),
        freeze=p.FreezeLimit(draw(st.sampled_from((0.2, 0.9))), draw(st.integers(1, 5))),
        reset_moments=draw(_budgets()),
        checkpoint=draw(_budgets()),
        intervene=draw(st.none() | _budgets()),
        custom=(p.CustomLimit("boost", *bounds, draw(_budgets())), p.CustomLimit("nudge", -1.0, 1.0, draw(_budgets()))),
    )
    return evolve(found, **{some: None}) if some else found


@st.composite
def policies(draw: st.DrawFn) -> p.Policy:
    """A policy that acts."""
    done = st.lists(actions(), min_size=1, max_size=2).map(tuple)
    reflexes = st.builds(p.Reflex, st.sampled_from("xyz"), conditions(), done, st.just(_PLACE))
    alert = st.builds(p.Alert, st.just("told"), st.just("info"), triggers(), st.just("!"), st.just(()), st.just(_PLACE))
    levels = [draw(_level(index)) for index in range(draw(st.integers(0, 3)))]
    return p.Policy(
        name="busy",
        doc="",
        digest="0",
        params=(),
        signals=tuple(p.Signal(name, name) for name in (*SIGNALS, *OWN)),
        risks=(),
        reflexes=tuple(draw(st.lists(reflexes, max_size=2))),
        levels=(p.Level("normal"), *levels),
        alerts=tuple(draw(st.lists(alert, max_size=1))),
        limits=draw(_limits()),
        quarantine=draw(st.integers(1, 9)),
        snapshot_every=draw(st.sampled_from((None, 1, 3))),
    )


@st.composite
def runs(draw: st.DrawFn) -> list[Heard]:
    """Stretches of the same telemetry, mostly calm, so that what is held, restored and proved has time to be."""
    value = st.sampled_from((0.0, 0.0, 0.0, 1.0, 1.0, None, *HOSTILE))
    heard = st.builds(
        Heard,
        values=st.fixed_dictionaries(dict.fromkeys(SIGNALS, value)),
        norm=st.sampled_from((None, 0.1, 2.0, 9.0)) | value,
        layer_norm=st.sampled_from((None, 0.1, 2.0, 9.0)) | value,
        impossible=st.sampled_from(((), (), (), ("freeze",), ("skip", "rollback"))),
    )
    told = draw(st.lists(st.tuples(heard, st.integers(1, 8)), min_size=4, max_size=9))
    return [one for one, ticks in told for _ in range(ticks)]
