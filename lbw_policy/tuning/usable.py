"""Whether a setting may be chosen at all: it checks as well as the present one, and passes the policy's own tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from attrs import frozen

from lbw_policy.diagnostics import Diagnostic
from lbw_policy.semantics import Policy, check_source
from lbw_policy.trials import run_trial
from lbw_policy.tuning.params import Setting
from lbw_policy.tuning.subject import Subject


@frozen
class Usable:
    """What the policy has now: findings by code, and the names of the tests that pass; no setting may do worse."""

    subject: Subject
    findings: Counter[str]
    tests: frozenset[str]

    @classmethod
    def of(cls, subject: Subject, *, tests: bool) -> Usable:
        """Note what the present setting does; without `tests`, those of the policy are left out of it."""
        policy = subject.policy
        passing = frozenset(trial.name for trial in policy.tests) - frozenset(_failing(policy) if tests else ())
        return cls(subject, _codes(policy.warnings), passing if tests else frozenset())

    def why_not(self, setting: Setting) -> str:
        """Return why a setting cannot be chosen, empty where it can."""
        checked = check_source(self.subject.source, setting, self.subject.path)
        if worse := _codes(checked.diagnostics) - self.findings:
            return f"`lbw-check` finds {', '.join(sorted(worse))}"
        failed = self.failing(setting) if self.tests else ()
        return f'its test "{failed[0]}" fails' if failed else ""

    def failing(self, setting: Setting) -> tuple[str, ...]:
        """Return the tests that pass now and fail under a setting that checks."""
        policy = check_source(self.subject.source, setting, self.subject.path).policy
        return tuple(name for name in _failing(policy) if name in self.tests) if policy else ()


def _failing(policy: Policy) -> Iterator[str]:
    return (trial.name for trial in policy.tests if not run_trial(policy, trial).passed)


def _codes(findings: Sequence[Diagnostic]) -> Counter[str]:
    return Counter(finding.code for finding in findings)
