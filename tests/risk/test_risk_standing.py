from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st
from risk_streams import RISK, dice, risk, run_episodes

from lbw_policy.risk import RiskModel
from lbw_policy.risk.drift import Drift
from lbw_policy.risk.prior import Prior
from lbw_policy.risk.standing import Events, Standing


def test_precision_and_recall_are_counted_by_event() -> None:
    """Three alarms, two of them true; four divergences, one of them foreseen."""
    events = Events()
    assert (events.precision, events.recall) == (None, None)
    events.alarmed(true=2, false=1)
    for number in range(4):
        events.diverged(foreseen=number == 0)
    assert (events.alarms, events.divergences) == (3, 4)
    assert (events.precision, events.recall) == (2 / 3, 0.25)
    again = Events()
    again.load_state_dict(json.loads(json.dumps(events.state_dict())))
    assert again.state_dict() == events.state_dict()
    assert (again.precision, again.recall) == (events.precision, events.recall)


def test_standing_says_it_in_words() -> None:
    """What is not known is left out."""
    assert str(Standing(9, 0, 0, None, None, None, 0.0, 0.0, 0, 0)) == "9 labels"
    told = str(Standing(900, 3, 4, 2 / 3, 0.25, 0.1, 12.0, 10.0, 1, 0))
    assert told == "900 labels, 2 of 3 alarms true, 1 of 4 divergences foreseen, Brier skill 0.10, errors grew 1 time"


def test_a_model_that_learned_knows_how_well_it_does() -> None:
    """A prior of the same kind of run has its alarms and divergences in its standing, nearly all of them right."""
    teacher = RiskModel(risk(standard=False))
    run_episodes(teacher, 4000, seed=11)
    model = RiskModel(risk(standard=False), prior=Prior("logistic", 10, teacher.state_dict()["model"]))
    run_episodes(model, 4000)
    standing = model.standing
    assert standing.divergences == 9
    assert standing.recall is not None
    assert standing.recall >= 8 / 9
    assert standing.precision is not None
    assert standing.precision > 0.8
    assert standing.skill is not None
    assert standing.skill > 0.3
    assert standing.drifts == 0


def test_a_change_is_noticed_after_a_long_good_time() -> None:
    """After 3_000 values near 0, values of 0.25 are noticed within 60; steady ones never are."""
    drift, rng = Drift(8.0, "up"), dice(0)
    assert not any(drift.push(rng.gauss(0, 0.01)) for _ in range(3000))
    assert any(drift.push(0.25) for _ in range(60))
    assert drift.found == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(), max_size=60))
def test_drift_survives_anything_and_is_restored_exactly(values: list[float]) -> None:
    """NaN and infinity are bounded before River sees them; a restored test goes on bit for bit."""
    one, two = Drift(2.0, "both"), Drift(2.0, "both")
    for value in values:
        one.push(value)
    two.load_state_dict(json.loads(json.dumps(one.state_dict(), allow_nan=False)))
    for value in (*values, 1.0, -1.0, math.nan, 0.5) * 3:
        assert one.push(value) == two.push(value)
    assert one.state_dict() == two.state_dict()


def test_the_standing_is_plain_from_the_first_step() -> None:
    """Before anything is known every figure is 0 or None."""
    assert str(RiskModel(RISK).standing) == "0 labels"
