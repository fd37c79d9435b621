"""Asks z3, where it is installed, whether a script can hold: the same script, the same answer, within a bound."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata, util

from attrs import field, frozen

UNSAT, SAT, UNKNOWN = "unsat", "sat", "unknown"

_SEED = 0
_STEPS_A_SECOND = 4_000_000
"""What z3 counts as a second's work; a bound by steps gives the same answer on a slow machine as on a fast one."""


@frozen
class Answer:
    """What the solver said: `unsat`, `sat` with the values it found, or `unknown` and why."""

    verdict: str
    values: Mapping[str, str] = field(factory=dict)
    why: str = ""


def available() -> bool:
    """Tell whether z3 is installed."""
    return util.find_spec("z3") is not None


def version() -> str | None:
    """Return the solver's name and version, None where it is not installed."""
    return f"z3 {metadata.version('z3-solver')}" if available() else None


def check(script: str, timeout_s: float = 5.0) -> Answer:
    """Return z3's answer to an SMT-LIB script; whatever goes wrong in the solver is `unknown`."""
    import z3

    try:
        solver = z3.Solver(ctx=z3.Context())  # one context a script, so that no script changes another's answer
        solver.set("random_seed", _SEED)
        solver.set("timeout", max(1, int(1000 * timeout_s)))
        solver.set("rlimit", max(1, int(_STEPS_A_SECOND * timeout_s)))
        solver.from_string(script)
        return _answer(solver)
    except z3.Z3Exception as error:
        return Answer(UNKNOWN, why=f"the solver failed: {error}")


def _answer(solver: object) -> Answer:
    import z3

    assert isinstance(solver, z3.Solver)
    verdict = solver.check()
    if verdict == z3.unsat:
        return Answer(UNSAT)
    if verdict == z3.unknown:
        return Answer(UNKNOWN, why=f"the solver gave up: {solver.reason_unknown()}")
    model = solver.model()
    named = {str(one.name()): str(model[one]) for one in model.decls()}
    return Answer(SAT, {name: value for name, value in named.items() if not name.startswith(".")})
