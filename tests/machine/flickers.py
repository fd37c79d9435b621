"""Busy policies that also answer to what the guard did last, and runs whose telemetry changes at nearly every tick."""

from __future__ import annotations

from attrs import evolve
from hypothesis import strategies as st

from lbw_policy.semantics import policy as p
from lbw_policy.semantics.expressions import Comparison, Constant, Reading
from tests.machine import busy
from tests.machine.reference_session import Heard
from tests.strategies import HOSTILE

_BEGAN = Comparison(">", Reading("interventions"), Constant(0.5))
_HIGH = Comparison(">", Reading("a"), Constant(0.5))
_PLACE = p.Place("p.lbw", 1)


@st.composite
def policies(draw: st.DrawFn) -> p.Policy:
    """A busy policy, often with a reflex on an intervention that began, and one that only skips or rolls back."""
    found = draw(busy.policies())
    after = p.Reflex("after", _BEGAN, (draw(busy.actions()),), _PLACE)
    ending = p.Reflex("ending", _HIGH, (draw(st.sampled_from((p.Skip(), p.Rollback(40)))),), _PLACE)
    more = draw(st.sampled_from(((), (after,), (ending,), (ending, after))))
    if ending in more:  # levels would keep snapshots from being proved
        few = draw(st.sampled_from((found.reflexes, ())))
        return evolve(found, reflexes=(*few, *more), levels=found.levels[: draw(st.sampled_from((1, 1, 4)))])
    return evolve(found, reflexes=(*found.reflexes, *more))


@st.composite
def runs(draw: st.DrawFn) -> list[Heard]:
    """Few different ticks in short stretches, so that triggers of K of N ticks are met and missed by one."""
    value = st.sampled_from((0.0, 0.0, 0.0, 0.0, 1.0, None, *HOSTILE))
    heard = st.builds(
        Heard,
        values=st.fixed_dictionaries(dict.fromkeys(busy.SIGNALS, value)),
        norm=st.sampled_from((None, 0.1, 2.0, 9.0)) | value,
        layer_norm=st.sampled_from((None, 0.1, 2.0, 9.0)) | value,
        impossible=st.sampled_from(((), (), (), ("freeze",), ("skip", "rollback"))),
    )
    calm = Heard(dict.fromkeys(busy.SIGNALS, 0.0), norm=0.1)
    ticks = [calm, *draw(st.lists(heard, min_size=2, max_size=4))]
    told = draw(st.lists(st.tuples(st.sampled_from(ticks), st.sampled_from((1, 1, 1, 2, 4))), min_size=12, max_size=26))
    return [one for one, stretch in told for _ in range(stretch)]
