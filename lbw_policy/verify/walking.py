"""Random walks of a promise's systems, without a solver: whether a reachable state breaks an invariant or the goal."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import define, field

from lbw_policy.verify.promise import Promise
from lbw_policy.verify.systems import Induction, Obligation
from lbw_policy.verify.terms import BOOL, FLOAT, INT, Term, Value, evaluate, nodes, variables
from lbw_policy.witness.storms import STRANGE

_TRIES = 30
"""How often inputs are drawn anew before a walk that finds none allowed ends."""


def broken(promise: Promise, *, seed: int = 0, walks: int = 4, steps: int = 50) -> str | None:
    """Return what some random walk or value breaks of a promise, None if nothing; the same seed, the same walks."""
    for induction in promise.inductions:
        draw = random.Random(f"{seed} {induction.system.name}")  # noqa: S311 - walks for a test, not a secret
        for _ in range(walks):
            found = _Walk(induction, draw).go(steps)
            if found:
                return found
    return next((text for one in promise.obligations if (text := _met(one, seed, walks * steps))), None)


def _met(obligation: Obligation, seed: int, tries: int) -> str | None:
    """Return the values, if any are drawn, with which the facts of an obligation hold together."""
    draw = random.Random(f"{seed} {obligation.name}")  # noqa: S311 - values for a test, not a secret
    wanted, near = variables(*obligation.facts), _numbers(obligation.facts)
    for _ in range(tries if wanted else 1):
        values = {name: _value(draw, one, near) for name, one in wanted.items()}
        if all(evaluate(fact, values) for fact in obligation.facts):
            return f"{obligation.name}: {values}"
    return None


def _numbers(terms: Iterable[Term]) -> list[int]:
    """Return the whole numbers that terms speak of, in order, with 0 and 1."""
    found = {one.value for one in nodes(*terms) if one.op == "constant" and one.sort == INT}
    return sorted({0, 1, *(number for number in found if isinstance(number, int))})


def _value(draw: random.Random, one: Term, near: Sequence[int], rate: float = 0.5) -> Value:
    if one.sort == BOOL:
        return draw.random() < rate
    if one.sort == FLOAT:
        return draw.choice((*STRANGE, draw.random()))
    return draw.choice(near) + draw.randint(-2, 2)


@define
class _Walk:
    """One walk. `near` are the numbers its terms speak of: what is drawn lies at or beside one of them."""

    induction: Induction
    draw: random.Random
    near: Sequence[int] = field(init=False)
    inputs: Mapping[str, Term] = field(init=False)
    state: dict[str, Value] = field(init=False, factory=dict)
    rates: dict[str, float] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        system = self.induction.system
        terms = [*system.step.values(), *system.start.values(), system.allowed, system.given]
        terms += [self.induction.goal, *self.induction.invariants]
        known = {*system.step, *(f"{name}'" for name in system.step)}
        self.inputs = {name: one for name, one in variables(*terms).items() if name not in known}
        self.near = _numbers(terms)
        self.rates = {name: self.draw.choice((0.1, 0.5, 0.9, 1.0)) for name in self.inputs}

    def go(self, steps: int) -> str | None:
        """Walk so many steps; return what is broken."""
        system = self.induction.system
        fixed = self._drawn(variables(system.given, *system.start.values()), system.given)
        if fixed is None:
            return None
        self.state = {name: evaluate(first, fixed) for name, first in system.start.items()}
        for step in range(steps):
            inputs = self._drawn(self._free(fixed), system.allowed, fixed)
            if inputs is None:
                return None
            after = system.run_step(self.state, inputs)
            values = {**inputs, **self.state, **{f"{name}'": value for name, value in after.items()}}
            for rule in self._rules():
                if not evaluate(rule, values):
                    return f"{system.name}: step {step} breaks what it should keep, from {self.state}"
            self.state = after
        return None

    def _free(self, fixed: Mapping[str, Value]) -> dict[str, Term]:
        return {name: one for name, one in self.inputs.items() if name not in fixed}

    def _rules(self) -> Iterator[Term]:
        yield from self.induction.invariants
        yield self.induction.goal

    def _drawn(
        self, wanted: Mapping[str, Term], allowed: Term, fixed: Mapping[str, Value] | None = None
    ) -> dict[str, Value] | None:
        """Return values for variables that are allowed in the present state; None if none were found."""
        for _ in range(_TRIES):
            values = {**(fixed or {}), **{name: self._value(one) for name, one in wanted.items()}}
            if evaluate(allowed, {**values, **self.state}):
                return values
        return None

    def _value(self, one: Term) -> Value:
        present = [value for value in self.state.values() if type(value) is int]
        return _value(self.draw, one, [*self.near, *present], self.rates[one.name])
