"""Decides every promise of a policy: proved by the solver, tested without one, failed with a run that shows it.

Nothing is proved by default. What the solver cannot do and no run refutes is unknown, and says why.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from attrs import define, evolve, field

from lbw_policy.claims import Claim, Result, Status
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.trial import Trial
from lbw_policy.verify import calm, conflicts, laddering, limiting, unknowns
from lbw_policy.verify.hostile import Run, runs
from lbw_policy.verify.monitors import Watched, monitor_of
from lbw_policy.verify.promise import Promise
from lbw_policy.verify.solver import UNKNOWN, UNSAT, Answer, available, check
from lbw_policy.verify.walking import broken
from lbw_policy.verify.wording import worded
from lbw_policy.witness import counterexamples

SECONDS = 5.0
"""How long all solving for one policy may take."""
EVERYTHING = "everything_can_fire"
_SOURCES = (limiting, laddering, calm, conflicts, unknowns)


def promises(policy: p.Policy) -> tuple[Promise, ...]:
    """Return every promise of a policy, in the order in which they are decided."""
    return tuple(one for source in _SOURCES for one in source.promises(policy))


def firing(policy: p.Policy) -> tuple[Claim, ...]:
    """Return, for each thing a policy can do, the claim that some run does it."""
    return tuple(Claim(EVERYTHING, rule, f"there is a run in which {rule}") for rule in counterexamples.rules(policy))


def prove(policy: p.Policy, *, solver: bool | None = None, seconds: float = SECONDS) -> tuple[Result, ...]:
    """Return how far each promise of a policy is known, and whether each of its rules can act.

    Args:
        policy: a checked policy.
        solver: whether to ask z3; None asks it where it is installed.
        seconds: how long all solving may take; what is left undone is unknown.

    Raises:
        ModuleNotFoundError: z3 is asked for and not installed.
    """
    if solver and not available():
        raise ModuleNotFoundError("z3 is not installed: `pip install lbw_policy[prove]`", name="z3")
    judge = Judge(policy, runs(policy), available() if solver is None else solver, seconds)
    search = counterexamples.Search(policy)
    shown = (judge.fires(claim, search) for claim in firing(policy))
    return (*(judge.decide(one) for one in promises(policy)), *shown)


@define
class Judge:
    """Decides promises of one policy; a script that occurs twice is solved once."""

    policy: p.Policy
    runs: Sequence[Run]
    solves: bool
    seconds: float = SECONDS
    _answers: dict[str, Answer] = field(factory=dict)

    def decide(self, promise: Promise) -> Result:
        """Return how far a promise is known."""
        start = time.perf_counter()
        found = self._decide(promise)
        invariants = tuple(worded(one) for each in promise.inductions for one in each.invariants)
        return evolve(found, seconds=time.perf_counter() - start, invariants=invariants)

    def _decide(self, promise: Promise) -> Result:
        claim = promise.claim
        seen = self._seen(claim)
        if seen:
            return Result(claim, Status.FAILED, f"a hostile run breaks it: {seen}", witness=self._refuted(claim))
        provable = bool(promise.inductions or promise.obligations)
        if self.solves and provable:
            return self._proved(promise)
        return self._tested(promise, provable)

    def _proved(self, promise: Promise) -> Result:
        for one in promise.everything():
            answer = self._answer(one.script)
            if answer.verdict != UNSAT:
                why = answer.why or "the solver found values that break it"
                return self._doubted(promise.claim, f"{one.name}: {why}")
        how = "by induction" if promise.inductions else "for every value"
        return Result(promise.claim, Status.PROVED, how)

    def _answer(self, script: str) -> Answer:
        if script not in self._answers:
            start, spent = time.perf_counter(), Answer(UNKNOWN, why="no time was left")
            self._answers[script] = check(script, self.seconds) if self.seconds > 0 else spent
            self.seconds -= time.perf_counter() - start
        return self._answers[script]

    def _tested(self, promise: Promise, provable: bool) -> Result:
        claim = promise.claim
        found = broken(promise) if provable else None
        if found:
            return self._doubted(claim, found)
        if monitor_of(claim) is None and not provable:
            return Result(claim, Status.UNKNOWN, "nothing tests it")
        ticks = sum(len(run.seen) for run in self.runs)
        how = f"{len(self.runs)} hostile runs of {ticks:_} steps in all found no violation"
        return Result(
            claim, Status.TESTED, how if monitor_of(claim) else "random walks of its model found no violation"
        )

    def _doubted(self, claim: Claim, why: str) -> Result:
        """Return that a claim failed, if a run shows it, else that it is unknown."""
        trial = self._refuted(claim)
        if trial:
            return Result(claim, Status.FAILED, "a run on the real engine breaks it", witness=trial)
        return Result(claim, Status.UNKNOWN, f"{why}; no run was found that shows it")

    def _seen(self, claim: Claim) -> str | None:
        monitor = monitor_of(claim)
        found = (monitor(Watched(self.policy, claim, run)) for run in self.runs) if monitor else ()
        return next((text for text in found if text), None)

    def _refuted(self, claim: Claim) -> Trial | None:
        return counterexamples.refute(self.policy, claim)

    def fires(self, claim: Claim, search: counterexamples.Search) -> Result:
        """Return whether a run was found in which a rule acts."""
        start = time.perf_counter()
        trial = counterexamples.witness(self.policy, claim.about, search)
        cost = time.perf_counter() - start
        if trial is None:
            return Result(claim, Status.UNKNOWN, "no run was found that shows it", cost)
        return Result(claim, Status.PROVED, f"by a run of {trial.ticks:_} steps", cost, trial)
