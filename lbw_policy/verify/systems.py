"""Transition systems: state, inputs and one step as terms; and what it takes to prove something of every run.

A promise is proved by induction over ticks: its invariants hold at the start, one step keeps them for every
input, and they imply the goal. Each of the three is a script that must be unsatisfiable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen

from lbw_policy.verify.smtlib import unsatisfiable
from lbw_policy.verify.terms import Term, Value, evaluate, every, substitute, variable, variables


@frozen
class System:
    """A machine that takes one step a tick.

    `start` has the first value of every state variable (a term over `fixed` ones), `step` its next
    value as a term over state, inputs and fixed variables. Inputs are anything that `allowed` does
    not exclude; fixed variables are anything that `given` does not exclude, and never change.
    """

    name: str
    start: Mapping[str, Term]
    step: Mapping[str, Term]
    allowed: Term = field(factory=every)
    given: Term = field(factory=every)

    def state(self, name: str) -> Term:
        """Return a state variable."""
        return variable(name, self.start[name].sort)

    def run_step(self, state: Mapping[str, Value], inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Return the state after one step; `inputs` also has the fixed variables."""
        values: dict[str, Value] = {**inputs, **state}
        known: dict[Term, Value] = {}
        return {name: evaluate(after, values, known) for name, after in self.step.items()}


@frozen
class Obligation:
    """One thing to prove: the facts cannot all hold."""

    name: str
    facts: tuple[Term, ...]

    @property
    def script(self) -> str:
        """The SMT-LIB script, which a solver must answer with `unsat`."""
        return unsatisfiable(*self.facts)


@frozen
class Induction:
    """That `goal` holds before every step of every run of a system.

    The goal may speak of state, inputs, and (as `NAME'`) of the state after the step.
    """

    system: System
    goal: Term
    invariants: tuple[Term, ...] = ()

    def obligations(self) -> Iterator[Obligation]:
        """Yield the start, the step and the conclusion."""
        system, holds = self.system, every(*self.invariants)
        if self.invariants:
            yield Obligation("start", (system.given, ~substitute(holds, system.start)))
            yield Obligation("step", (*self._before, *self._after(holds), ~_primed(holds, system)))
        yield Obligation("goal", (*self._before, *self._after(self.goal, primed=True), ~self.goal))

    @property
    def _before(self) -> tuple[Term, ...]:
        return (*self.invariants, self.system.given, self.system.allowed)

    def _after(self, root: Term, *, primed: bool = False) -> Iterator[Term]:
        """Yield an equation for each state variable after the step that a term speaks of."""
        names = set(variables(root))
        for name, after in self.system.step.items():
            if (f"{name}'" if primed else name) in names:
                yield after_step(name, after.sort).same(after)


def after_step(name: str, sort: str) -> Term:
    """Return the variable that stands for a state variable after the step."""
    return variable(f"{name}'", sort)


def _primed(root: Term, system: System) -> Term:
    return substitute(root, {name: after_step(name, after.sort) for name, after in system.step.items()})
