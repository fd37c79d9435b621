"""RiskModel: what one `risk` block of a policy does at every tick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from lbw_policy.risk import plain
from lbw_policy.risk.alarm import REFRACTORY, Threshold, log_odds
from lbw_policy.risk.features import StandardFeatures, non_finite, own_features
from lbw_policy.risk.labels import Labels, Sample
from lbw_policy.risk.registry import MODELS, Model, ask, explain, teach
from lbw_policy.risk.trust import EPISODES, MATURED, Record
from lbw_policy.semantics.policy import Risk

_VERSION = 1
_HARD_RULE = (("non_finite", 1.0),)


@frozen
class Assessment:
    """What a risk says at one tick.

    `probability` is what the policy reads: the model's while it is trusted, else the policy's fallback.
    `alarm` is true while the score lies above the tracked threshold, only while trusted. `raw` is the
    model's own probability whatever the trust, None where it has none. `drivers` are the features that
    raised the score most, in log-odds for the default model; empty without an alarm.
    """

    probability: float
    alarm: bool
    trusted: bool
    ready: bool
    raw: float | None
    drivers: tuple[tuple[str, float], ...] = ()


class RiskModel:
    """Predicts divergence within a risk's horizon, learns from what came, and says whether to believe it.

    Call `assess` once a tick with what is known before the update, then `learn` with the tick's outcome.
    `prior` is what earlier runs taught the model (its `state_dict()["model"]`); with a key `threshold` it
    also sets the score (log-odds) where alarms begin until this run's own quiet ticks are known.
    Raises `StateError` for a damaged prior and `KeyError` for a model name that is not registered.
    """

    def __init__(self, risk: Risk, seed: int = 0, prior: Mapping[str, Any] | None = None) -> None:
        self._risk = risk
        self._seed = seed
        self._model: Model = MODELS[risk.model](seed)
        self._features = StandardFeatures()
        self._labels = Labels(risk.horizon)
        self._threshold = Threshold(risk.alarm, max(risk.horizon, REFRACTORY))
        self._record = Record(risk.horizon, risk.alarm)
        self._pending: Sample | None = None
        self._ticks = 0
        self._own_ready = False
        if prior is not None:
            self._start_from(prior)

    def _start_from(self, prior: Mapping[str, Any]) -> None:
        self._model.load_prior(prior)
        if "threshold" in prior:
            self._threshold.start = plain.number(prior, "threshold")

    @property
    def ready(self) -> bool:
        """True once the features have a baseline to be judged against."""
        return self._features.ready if self._risk.standard else self._own_ready

    @property
    def trusted(self) -> bool:
        """True while nothing says that the model should not be believed."""
        return self.why == ""

    @property
    def status(self) -> str:
        """Return `not ready`, `not trusted` or `trusted`; `why` says why."""
        if not self.ready:
            return "not ready"
        return "trusted" if self.trusted else "not trusted"

    @property
    def why(self) -> str:
        """Return the first reason not to believe the model, or an empty text."""
        record = self._record
        if not self.ready:
            return "the features have no baseline yet"
        if self._ticks < self._risk.trust_after:
            return f"{self._ticks} of {self._risk.trust_after} steps before trust"
        if record.suspended > 0:
            return record.reason
        if record.matured < MATURED:
            return f"{record.matured} of {MATURED} labels have matured"
        if not self._model.informed and record.rank() is None:
            return f"no prior, and it has foreseen fewer than {EPISODES} divergences"
        return ""

    @property
    def threshold(self) -> float | None:
        """Return the score (log-odds) above which an alarm stands, or None while none can."""
        return self._threshold.value

    def assess(self, tick: int, values: Mapping[str, float | None], extra: Mapping[str, float | None]) -> Assessment:
        """Return the risk at this tick; `values` are the built-in signals, `extra` the policy's own features.

        A non-finite loss, norm or tensor is certain trouble by rule; the model is neither asked nor taught.
        """
        self._ticks += 1
        features, ready = self._gather(values, extra), self.ready
        if non_finite(values):
            self._pending = None
            return self._report(1.0, True, _HARD_RULE)
        raw = self._answer(features) if features and ready else None
        score = None if raw is None else log_odds(raw)
        above = score is not None and self._threshold.judge(tick, score)
        self._pending = Sample(tick, features, raw, score) if features and ready else None
        drivers = explain(self._model, features) if above and self.trusted else ()
        return self._report(raw, above, drivers)

    def learn(self, tick: int, loss: float | None, finite: bool, intervened: bool) -> None:
        """Take the tick's outcome: its loss, whether all was finite, whether the guard changed anything."""
        for sample in self._labels.observe(tick, loss, finite, intervened):
            self._mature(sample)
        troubled = self._labels.divergence.troubled
        self._record.alarmed_falsely(self._threshold.observe(tick, troubled, intervened))
        if self._pending is not None and self._pending.tick == tick:
            self._labels.admit(self._pending)
        self._pending = None

    def _gather(self, values: Mapping[str, float | None], extra: Mapping[str, float | None]) -> dict[str, float]:
        features = self._features.update(values) if self._risk.standard else {}
        own = own_features(extra)
        self._own_ready = self._own_ready or bool(own)
        features.update(own)
        return features

    def _answer(self, features: dict[str, float]) -> float | None:
        raw = ask(self._model, features)
        self._record.answered(raw is not None)
        return raw

    def _report(self, raw: float | None, above: bool, drivers: tuple[tuple[str, float], ...]) -> Assessment:
        trusted = self.trusted
        believed = raw if trusted and raw is not None else self._risk.fallback
        alarm = above and trusted
        return Assessment(believed, alarm, trusted, self.ready, raw, drivers if alarm else ())

    def _mature(self, sample: Sample) -> None:
        if sample.score is not None:
            self._record.learn(sample, self._threshold.rank(sample.score))
        if sample.score is not None and sample.label is False:
            self._threshold.learn(sample.score)
        if sample.label is not None and not teach(self._model, sample.features, sample.label):
            self._record.answered(valid=False)

    def state_dict(self) -> dict[str, Any]:
        """Return everything the model remembers as plain data: finite numbers, texts, lists, dicts."""
        return {
            "version": _VERSION,
            "risk": self._risk.name,
            "horizon": self._risk.horizon,
            "kind": self._risk.model,
            "features": self._features.state_dict(),
            "labels": self._labels.state_dict(),
            "threshold": self._threshold.state_dict(),
            "record": self._record.state_dict(),
            "model": self._model.state_dict(),
            "pending": None if self._pending is None else self._pending.state_dict(),
            "ticks": self._ticks,
            "own_ready": self._own_ready,
        }

    def load_state_dict(self, state: object) -> None:
        """Go on exactly where the state was saved; a damaged or foreign state raises `StateError`, changing nothing."""
        wanted: tuple[tuple[str, str | int], ...] = (
            ("version", _VERSION),
            ("risk", self._risk.name),
            ("horizon", self._risk.horizon),
            ("kind", self._risk.model),
        )
        for key, value in wanted:
            plain.expect(state, key, value)
        fresh = RiskModel(self._risk, self._seed)
        fresh._take(state)
        self.__dict__.update(fresh.__dict__)

    def _take(self, state: object) -> None:
        self._features.load_state_dict(plain.entry(state, "features"))
        self._labels.load_state_dict(plain.entry(state, "labels"))
        self._threshold.load_state_dict(plain.entry(state, "threshold"))
        self._record.load_state_dict(plain.entry(state, "record"))
        self._model.load_state_dict(plain.entry(state, "model"))
        pending = plain.entry(state, "pending")
        self._pending = None if pending is None else Sample.restored(pending)
        self._ticks, self._own_ready = plain.whole(state, "ticks"), plain.truth(state, "own_ready")
