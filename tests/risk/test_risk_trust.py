from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from risk_streams import Scripted, risk, run_episodes, truthful

from lbw_policy.errors import StateError
from lbw_policy.risk import MODELS, RiskModel
from lbw_policy.risk.alarm import Outcome
from lbw_policy.risk.labels import Sample
from lbw_policy.risk.trust import MATURED, Record

Answer = Callable[[random.Random, Mapping[str, float]], object]


class _Panic(BaseException):
    """Stands for pyo3's PanicException, which is no Exception."""


def _panics(rng: random.Random, features: Mapping[str, float]) -> float:
    raise _Panic


LIARS: dict[str, Answer] = {
    "always 0": lambda rng, x: 0.0,
    "always 0.1 %": lambda rng, x: 0.001,
    "always half": lambda rng, x: 0.5,
    "always 1": lambda rng, x: 1.0,
    "random": lambda rng, x: rng.random(),
    "inverted": lambda rng, x: 1 - truthful(x),
    "nan": lambda rng, x: math.nan,
    "inf": lambda rng, x: math.inf,
    "beyond 1": lambda rng, x: 1.5,
    "text": lambda rng, x: "high",
    "nothing": lambda rng, x: None,
    "panic": _panics,
}
QUIET_LIARS: dict[str, Answer] = {
    "random below 2 %": lambda rng, x: rng.uniform(0, 0.02),
    "inverted below 2 %": lambda rng, x: 0.02 * (1 - truthful(x)),
}


def _model(monkeypatch: pytest.MonkeyPatch, answer: Answer, informed: bool = True) -> RiskModel:
    def make(seed: int) -> Scripted:
        scripted = Scripted(answer, seed)
        scripted.informed = informed
        return scripted

    monkeypatch.setitem(MODELS, "scripted", make)
    return RiskModel(risk(model="scripted", standard=False))


def _honest(rng: random.Random, features: Mapping[str, float]) -> float:
    return truthful(features)


def test_a_truthful_model_is_trusted_and_alarms_before_each_divergence(monkeypatch: pytest.MonkeyPatch) -> None:
    """From `trust_after` on a good model is believed for good, and alarms within 15 ticks before every divergence."""
    said = run_episodes(_model(monkeypatch, _honest), 3000)
    assert not any(each.trusted for each in said[:199])
    assert all(each.trusted for each in said[199:])
    for divergence in range(800, 3000, 400):
        assert any(each.alarm for each in said[divergence - 15 : divergence])


@pytest.mark.parametrize("name", LIARS)
def test_a_liar_is_found_out_without_any_divergence(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A model that lies is not believed at any time from `trust_after` on, though the run is healthy."""
    model = _model(monkeypatch, LIARS[name])
    said = run_episodes(model, 900, start=10_000)
    assert not any(each.trusted or each.alarm for each in said)
    assert model.status == "not trusted"
    assert all(each.probability == 0.25 for each in said)


@pytest.mark.parametrize("name", LIARS)
def test_a_model_that_turns_liar_loses_trust_within_100_labels(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of a model that was right for 1_000 ticks trust is gone at most 110 ticks after it begins to lie."""
    asked = [0]

    def turns(rng: random.Random, features: Mapping[str, float]) -> object:
        asked[0] += 1
        return truthful(features) if asked[0] <= 1000 else LIARS[name](rng, features)

    said = run_episodes(_model(monkeypatch, turns), 1400, start=10_000)
    assert said[999].trusted
    assert not any(each.trusted for each in said[1111:])


@pytest.mark.parametrize("name", QUIET_LIARS)
def test_a_quiet_liar_is_found_out_by_three_divergences(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A model whose small numbers mean nothing keeps trust in a healthy run, and loses it with the third divergence."""
    said = run_episodes(_model(monkeypatch, QUIET_LIARS[name]), 1800)
    assert not any(each.trusted for each in said[1210:])


def test_trust_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """One NaN costs trust at once, and 100 good labels bring it back."""
    asked = [0]

    def slips(rng: random.Random, features: Mapping[str, float]) -> float:
        asked[0] += 1
        return math.nan if asked[0] == 500 else truthful(features)

    said = run_episodes(_model(monkeypatch, slips), 800, start=10_000)
    assert said[498].trusted
    assert not said[499].trusted
    assert said[620].trusted


def test_a_model_without_a_prior_earns_trust_on_three_divergences(monkeypatch: pytest.MonkeyPatch) -> None:
    """A good but uninformed model is not believed before it ranked three divergences well."""
    model = _model(monkeypatch, _honest, informed=False)
    said = run_episodes(model, 1400)
    assert not any(each.trusted for each in said[:1200])
    assert said[-1].trusted


def test_an_empty_logistic_model_never_trusts_itself_in_a_healthy_run() -> None:
    """Without a prior and without a divergence, `logistic` stays untrusted and says why."""
    model = RiskModel(risk(standard=False))
    said = run_episodes(model, 800, start=10_000)
    assert not any(each.trusted or each.alarm for each in said)
    assert "no prior" in model.why


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_not_swallowed(monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]) -> None:
    """What is meant for the process goes through, though panics are caught."""

    def stops(rng: random.Random, features: Mapping[str, float]) -> float:
        raise interrupt

    with pytest.raises(interrupt):
        run_episodes(_model(monkeypatch, stops), 5)


def test_too_many_false_alarms_cost_trust() -> None:
    """Three false alarms in a few hundred labels are more than 0.3 per 1_000 explains; one is not."""
    record = Record(10, 3e-4)
    for tick in range(250):
        record.learn(Sample(tick, {}, 0.001 + tick * 1e-9, -6.0, label=False), 0.5)
        record.alarmed(Outcome(false=int(tick in (50, 100, 150))))
        assert (record.suspended > 0) == (tick >= 150)
    assert "false alarms" in record.reason


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.booleans(), st.floats(0, 1)), max_size=120))
def test_a_record_stays_plain_and_is_restored_exactly(labels: list[tuple[float, bool, bool, float]]) -> None:
    """Any record is finite plain data, and one restored from it says the same about the next labels."""
    one = Record(10, 3e-4)
    for tick, (probability, label, alarmed, rank) in enumerate(labels):
        event = tick // 20 if label else None
        one.learn(Sample(tick, {"a": probability}, probability, 0.0, label, event=event), rank)
        one.alarmed(Outcome(false=int(alarmed), true=tick % 3))
        one.diverged(foreseen=alarmed, hidden=label)
    two = Record(10, 3e-4)
    two.load_state_dict(json.loads(json.dumps(one.state_dict(), allow_nan=False)))
    for record in (one, two):
        record.learn(Sample(200, {"a": 0.5}, 0.5, 0.0, label=False), 0.5)
    assert one.state_dict() == two.state_dict()
    assert one.standing() == two.standing()


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("sums", "false_alarms", -1e6), ("sums", "excess", -1e9), ("sums", "labels", 1e9), ("counts", "suspended", -5),
     ("counts", "matured", -1), ("events", "true", 10**400)],
)  # fmt: skip
def test_a_record_that_no_run_can_have_is_refused(part: str, name: str, value: float) -> None:
    """Else a state from elsewhere could bring a credit of good answers that no lie would ever use up."""
    state = Record(10, 3e-4).state_dict()
    state[part][name] = value
    with pytest.raises(StateError):
        Record(10, 3e-4).load_state_dict(state)


def test_a_record_says_nothing_early() -> None:
    """Before MATURED labels even a constant one half is not held against the model."""
    record = Record(10, 3e-4)
    for tick in range(MATURED - 1):
        record.learn(Sample(tick, {"a": tick}, 0.5, 0.0, label=False), 0.5)
    assert record.against() == ""
