"""RiskModel: what one `risk` block of a policy does at every tick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from lbw_policy.errors import StateError
from lbw_policy.risk import plain
from lbw_policy.risk.alarm import REFRACTORY, Threshold, log_odds
from lbw_policy.risk.calibration import Calibration
from lbw_policy.risk.features import StandardFeatures, non_finite, own_features
from lbw_policy.risk.labels import Labels, Sample
from lbw_policy.risk.prior import Prior
from lbw_policy.risk.registry import Model, ask, explain, make, teach
from lbw_policy.risk.standing import Standing
from lbw_policy.risk.trust import EPISODES, MATURED, Record
from lbw_policy.semantics.policy import Risk

_VERSION = 2
_HARD_RULE = (("non_finite", 1.0),)


@frozen
class Assessment:
    """What a risk says at one tick.

    `probability` is what the policy reads: the model's while it is trusted, else the policy's fallback.
    `alarm` is true while the score lies above the tracked threshold, only while trusted. `raw` is the
    model's calibrated probability whatever the trust, None where it has none. `drivers` are the features that
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
    `prior` is what earlier runs taught the model: its weights, where its alarms begin, its calibration.
    Raises `StateError` for a prior that is damaged or of another model, `KeyError` for a model that does not exist.
    """

    def __init__(self, risk: Risk, seed: int = 0, prior: Prior | None = None) -> None:
        self._risk = risk
        self._seed = seed
        self._model: Model = make(risk.model, seed)
        self._calibration, self._stretch = Calibration(), 1.0
        self._features = StandardFeatures()
        self._labels = Labels(risk.horizon)
        self._threshold = Threshold(risk.alarm, max(risk.horizon, REFRACTORY))
        self._record = Record(risk.horizon, risk.alarm)
        self._pending: Sample | None = None
        self._ticks = 0
        self._own_ready = False
        self._certain = False
        self._assessed: dict[str, float] = {}
        if prior is not None:
            self._start_from(prior)

    def _start_from(self, prior: Prior) -> None:
        if prior.kind != self._risk.model:
            message = f"risk prior: expected one of model `{self._risk.model}`, found one of `{prior.kind}`"
            raise StateError(message)
        self._model.load_prior(prior.model)
        self._threshold.start = prior.threshold(self._risk.alarm)
        self._threshold.unit = prior.unit(self._risk.alarm)
        self._calibration = prior.calibration
        self._stretch = self._risk.horizon / prior.horizon

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
    def score(self) -> float | None:
        """The score (log-odds) of the tick assessed last, until its outcome is learned; None where nobody was asked."""
        return None if self._pending is None else self._pending.score

    @property
    def troubled(self) -> bool:
        """True while the loss is above the bar of a divergence, or not finite."""
        return self._labels.divergence.troubled

    @property
    def standing(self) -> Standing:
        """How well it did in this run, over what has become known."""
        return self._record.standing()

    @property
    def threshold(self) -> float | None:
        """Return the score (log-odds) above which an alarm stands, or None while none can."""
        return self._threshold.value

    def assess(self, tick: int, values: Mapping[str, float | None], extra: Mapping[str, float | None]) -> Assessment:
        """Return the risk at this tick; `values` are the built-in signals, `extra` the policy's own features.

        A non-finite loss, norm or tensor is certain trouble by rule; the model is neither asked nor taught.
        """
        self._ticks += 1
        self._certain = non_finite(values)
        features, ready = self._gather(values, extra), self.ready
        if self._certain:
            self._pending = None
            return self._report(1.0, True, _HARD_RULE)
        answer = self._answer(features) if features and ready else None
        score, raw = (None, None) if answer is None else (log_odds(answer), self._calibrated(answer))
        self._assessed = features if ready else {}
        above = score is not None and self._threshold.judge(tick, score)
        self._pending = Sample(tick, features, raw, score) if features and ready else None
        drivers = self.drivers() if above and self.trusted else ()
        return self._report(raw, above, drivers)

    def drivers(self) -> tuple[tuple[str, float], ...]:
        """Return the features that raise the score of the tick assessed last most, at most three, largest first."""
        if self._certain:
            return _HARD_RULE
        return explain(self._model, self._assessed) if self._assessed else ()

    def learn(self, tick: int, loss: float | None, finite: bool, intervened: bool) -> None:
        """Take the tick's outcome: its loss, whether all was finite, whether the guard changed anything."""
        before = self._labels.divergence.diverged
        for sample in self._labels.observe(tick, loss, finite, intervened):
            self._mature(sample)
        divergence = self._labels.divergence
        self._record.alarmed(self._threshold.observe(tick, divergence.troubled, intervened))
        if divergence.diverged and not before:
            self._record.diverged(foreseen=self._threshold.warned, hidden=self._labels.censors(tick))
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
        answer = ask(self._model, features)
        self._record.answered(answer is not None)
        return answer

    def _calibrated(self, answer: float) -> float:
        """Return the probability within this risk's horizon: a prior of another one is stretched by a constant rate."""
        told = self._calibration(answer)
        return told if self._stretch == 1.0 else 1.0 - (1.0 - told) ** self._stretch

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
            "calibration": self._calibration.plain(),
            "stretch": self._stretch,
            "pending": None if self._pending is None else self._pending.state_dict(),
            "ticks": self._ticks,
            "own_ready": self._own_ready,
            "certain": self._certain,
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
        self._calibration = Calibration.of(plain.entry(state, "calibration"))
        self._stretch = plain.number(state, "stretch")
        pending = plain.entry(state, "pending")
        self._pending = None if pending is None else Sample.restored(pending)
        self._ticks, self._own_ready = plain.whole(state, "ticks"), plain.truth(state, "own_ready")
        self._certain = plain.truth(state, "certain")
