from __future__ import annotations

import json
import math
import random

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_streams import RISK, Scripted, dice, episodes, healthy, risk, run_episodes, truthful

from lbw_policy.errors import StateError
from lbw_policy.risk import MODELS, STANDARD_SOURCES, RiskModel
from lbw_policy.risk.prior import Prior

HOSTILE = st.one_of(
    st.none(), st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, 0.0, 1.0, 9.0])
)
TICK = st.tuples(
    st.fixed_dictionaries({}, optional=dict.fromkeys(STANDARD_SOURCES, HOSTILE)), HOSTILE, st.booleans(), st.booleans()
)


def _warmed(model: RiskModel, ticks: int) -> random.Random:
    rng = dice(1)
    for tick in range(ticks):
        values = healthy(rng, tick)
        model.assess(tick, values, {"own": rng.gauss(0, 1)})
        model.learn(tick, values["loss"], finite=True, intervened=False)
    return rng


def _prior(**changes: object) -> Prior:
    """Return what a model learned on other runs of the `episodes` kind."""
    teacher = RiskModel(risk(standard=False))
    run_episodes(teacher, 4000, seed=11)
    return evolve(Prior("logistic", 10, teacher.state_dict()["model"]), **changes)


@settings(max_examples=40, deadline=None)
@given(st.lists(TICK, max_size=40), st.sampled_from(["logistic", "baseline"]))
def test_hostile_telemetry_gives_probabilities_and_plain_state(
    ticks: list[tuple[dict[str, float | None], float | None, bool, bool]], kind: str
) -> None:
    """Whatever comes, the probability is finite in [0, 1], an alarm needs trust, and the state is finite plain data."""
    model = RiskModel(risk(model=kind, trust_after=20))
    _warmed(model, 60)
    for tick, (values, loss, finite, intervened) in enumerate(ticks, start=60):
        said = model.assess(tick, values, {"own": loss})
        assert 0.0 <= said.probability <= 1.0
        assert said.raw is None or 0.0 <= said.raw <= 1.0
        assert said.trusted or not said.alarm
        model.learn(tick, loss, finite, intervened)
    json.dumps(model.state_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", ["logistic", "baseline"])
@pytest.mark.parametrize("cut", [5, 150, 455, 803])
def test_resume_is_exact(kind: str, cut: int) -> None:
    """A model restored from JSON, saved between assess and learn, says the same bit for bit ever after."""
    one, two = RiskModel(risk(model=kind, trust_after=50)), RiskModel(risk(model=kind, trust_after=50), seed=8)
    rng = dice(2)
    for tick, (lead, _, loss) in enumerate(episodes(1000)):
        values = {**healthy(rng, tick), "loss": loss}
        said = one.assess(tick, values, {"lead": lead})
        if tick > cut:
            assert two.assess(tick, values, {"lead": lead}) == said
        if tick == cut:
            two.load_state_dict(json.loads(json.dumps(one.state_dict(), allow_nan=False)))
        one.learn(tick, loss, finite=True, intervened=tick % 97 == 0)
        if tick >= cut:
            two.learn(tick, loss, finite=True, intervened=tick % 97 == 0)
    assert two.state_dict() == one.state_dict()


def test_the_same_seed_says_the_same() -> None:
    """Two models of one seed agree everywhere; another seed learns other negatives."""
    first, same, other = (run_episodes(RiskModel(risk(standard=False), seed), 900) for seed in (1, 1, 2))
    assert first == same
    assert [each.raw for each in first] != [each.raw for each in other]


def test_readiness_and_status_are_told_apart() -> None:
    """A model is first not ready, then not trusted with a reason, and the fallback is read meanwhile."""
    model = RiskModel(RISK)
    assert (model.status, model.ready) == ("not ready", False)
    assert model.assess(0, {"loss": 1.0}, {}).probability == RISK.fallback
    _warmed(model, 60)
    assert model.status == "not trusted"
    assert model.why == "61 of 200 steps before trust"
    assert model.assess(60, {"loss": 2.0}, {}).raw is not None


def test_a_prior_is_believed_from_trust_after_on_and_foresees_the_first_divergence() -> None:
    """With a prior the model is trusted at tick 200 and alarms before the first divergence; without, it does not."""
    with_prior = run_episodes(RiskModel(risk(standard=False), prior=_prior()), 500)
    without = run_episodes(RiskModel(risk(standard=False)), 500)
    assert [each.trusted for each in with_prior].index(True) == 199
    assert any(each.alarm for each in with_prior[385:400])
    assert not any(each.alarm for each in with_prior[:380])
    assert not any(each.alarm for each in without)


def test_a_prior_brings_its_threshold() -> None:
    """A prior's threshold holds from the first tick; quiet ticks lower it by the budget, in the prior's unit."""
    model = RiskModel(risk(standard=False), prior=_prior(thresholds=((3e-4, -2.85),)))
    assert model.threshold == -2.85
    run_episodes(model, 200, start=10_000)
    assert -2.87 < model.threshold < -2.85


def test_a_damaged_prior_is_refused() -> None:
    """A prior that is not a model's state raises `StateError`."""
    with pytest.raises(StateError):
        RiskModel(RISK, prior=Prior("logistic", 10, {"weights": {"a": math.nan}}))
    with pytest.raises(StateError, match="expected one of model `logistic`, found one of `trees`"):
        RiskModel(RISK, prior=Prior("trees", 10, {}))


def test_non_finite_is_certain_trouble_by_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN loss is answered with certainty and an alarm, without asking or teaching the model."""
    scripted = Scripted(lambda rng, features: truthful(features))
    monkeypatch.setitem(MODELS, "scripted", lambda seed: scripted)
    model = RiskModel(risk(model="scripted", standard=False))
    run_episodes(model, 300, start=10_000)
    said = model.assess(300, {"loss": math.nan}, {"lead": 0.0})
    model.learn(300, math.nan, finite=False, intervened=True)
    assert (said.raw, said.probability, said.alarm) == (1.0, 1.0, True)
    assert said.drivers == (("non_finite", 1.0),)
    for tick in range(301, 330):
        model.assess(tick, {}, {"lead": 0.0})
        model.learn(tick, 2.0, finite=True, intervened=False)
    assert True not in scripted.taught


def test_an_alarm_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run that never diverges a model that alarms, and is acted upon, is never taught a positive."""
    scripted = Scripted(lambda rng, features: truthful(features))
    monkeypatch.setitem(MODELS, "scripted", lambda seed: scripted)
    model, alarms = RiskModel(risk(model="scripted", standard=False, alarm=0.01)), 0
    for tick, (lead, noise, _) in enumerate(episodes(2000)):
        said = model.assess(tick, {}, {"lead": lead, "noise": noise})
        alarms += said.alarm
        model.learn(tick, 2.0, finite=True, intervened=said.alarm)
    assert alarms > 3
    assert True not in scripted.taught
    assert len(scripted.taught) > 1000


def test_drivers_name_the_cause() -> None:
    """An alarm comes with the features that raised it; without an alarm there are none."""
    said = run_episodes(RiskModel(risk(standard=False), prior=_prior()), 420)
    alarms = [each for each in said if each.alarm]
    assert alarms
    assert all(each.drivers[0][0] == "lead" for each in alarms)
    assert all(each.drivers == () for each in said if not each.alarm)


def test_learning_in_the_run_separates() -> None:
    """Fed only with outcomes, an empty model ranks the ticks before the sixth divergence above quiet ones."""
    said = run_episodes(RiskModel(risk(standard=False)), 2410)
    before, quiet = [each.raw for each in said[2390:2400]], [each.raw for each in said[2100:2300]]
    assert min(before) > max(quiet)


def test_learn_without_assess_is_no_accident() -> None:
    """Ticks that were not assessed, repeated or skipped change nothing but the outcome stream."""
    model = RiskModel(RISK)
    for tick in (3, 3, 1, 900, 901):
        model.learn(tick, 1.0, finite=True, intervened=False)
    assert model.status == "not ready"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"horizon": 20}, "horizon"), ({"name": "other"}, "risk"), ({"model": "baseline"}, "kind")],
)
def test_a_foreign_state_is_refused(changes: dict[str, object], message: str) -> None:
    """A state of another risk, horizon or model is a `StateError` that names the difference."""
    with pytest.raises(StateError, match=message):
        RiskModel(risk(**changes)).load_state_dict(RiskModel(RISK).state_dict())


def test_a_damaged_state_changes_nothing() -> None:
    """Every missing entry is a `StateError`, and the model that refused goes on as before."""
    model = RiskModel(RISK)
    _warmed(model, 60)
    before = json.dumps(model.state_dict())
    for key in model.state_dict():
        damaged = {name: value for name, value in model.state_dict().items() if name != key}
        with pytest.raises(StateError):
            model.load_state_dict(damaged)
    assert json.dumps(model.state_dict()) == before
