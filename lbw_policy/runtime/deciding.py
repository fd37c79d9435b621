"""What one tick's readings lead to: state machine, risk models and limiter. Guard and replay both drive this."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field

from lbw_policy.errors import AttachError
from lbw_policy.limits import Request
from lbw_policy.machine import RiskValues, Session, Turn
from lbw_policy.risk import Assessment, Prior, RiskModel, starting
from lbw_policy.semantics.policy import Policy

Readings = Mapping[str, float | None]


@define(eq=False)
class Deciding:
    """A session and the risk models of its policy. One tick is `decide`, `learn`, and the session's `finish`.

    `said` has what each risk said at the last tick, by name.
    """

    session: Session
    risks: Mapping[str, RiskModel]
    said: Mapping[str, Assessment] = field(init=False, factory=dict)

    def decide(
        self,
        values: Readings,
        readings: Readings,
        impossible: Callable[[Request], str | None] = lambda _: None,
        norm: float | None = None,
    ) -> Turn:
        """Decide from the signals by name and the same readings by source.

        `norm` is that of the gradients as they are, where the reading is from before the loop's own clip;
        `impossible` is the session's.
        """
        self.session.begin(values)
        told, largest = readings.get("grad_norm"), readings.get("grad_norm_max")
        present = told if norm is None else norm
        if present is not None and told and largest is not None:
            largest *= present / told  # the loop's own clip shortened all alike
        return self.session.decide(self._assess(readings), present, impossible, largest)

    def _assess(self, readings: Readings) -> dict[str, RiskValues]:
        session, found = self.session, {}
        for risk in session.policy.risks:
            extra = session.machine.features(risk)
            found[risk.name] = self.risks[risk.name].assess(session.tick, readings, extra)
        self.said = found
        return {name: RiskValues(one.probability, one.alarm, one.trusted) for name, one in found.items()}

    def learn(self, readings: Readings, *, intervened: bool) -> None:
        """Teach the risk models the tick's outcome; `intervened` tells whether the update was altered."""
        finite = not (readings.get("nonfinite_grads") or readings.get("nonfinite_params"))
        for model in self.risks.values():
            model.learn(self.session.tick, readings.get("loss"), finite, intervened)

    def status(self, name: str) -> str:
        """Return `not ready`, `not trusted` or `trusted` for a risk of the policy, with the reason why not."""
        model = self.risks[name]
        return model.status + (f": {model.why}" if model.why else "")

    def standing(self, name: str) -> str:
        """Return the status of a risk, and how well its model did in this run."""
        return f"{self.status(name)} ({self.risks[name].standing})"

    def drivers(self, name: str) -> str:
        """Return which features raise a trusted risk most at this tick, such as `divergence.alarm: x +1.2`, else ``."""
        said = self.said.get(name)
        found = self.risks[name].drivers() if said is not None and said.trusted else ()
        if said is None or not found:
            return ""
        what = f"{name}.alarm" if said.alarm else f"{name} = {said.probability:.3g}"
        return f"{what}: " + ", ".join(f"{feature} {share:+.3g}" for feature, share in found)


def risk_models(policy: Policy, seed: int = 0, prior: Prior | None = None) -> dict[str, RiskModel]:
    """Return a new model for each risk of a policy, by name, started from `prior` or from what ships with its kind.

    Raises AttachError for a prior that no risk of the policy can start from, StateError for a damaged one.
    """
    if prior is not None and not any(risk.standard and risk.model == prior.kind for risk in policy.risks):
        message = f"no risk of policy `{policy.name}` has `standard` features and model `{prior.kind}`, as the prior"
        raise AttachError(message)
    return {risk.name: RiskModel(risk, seed, starting(risk, prior)) for risk in policy.risks}
