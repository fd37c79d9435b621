"""Proofs for people and for machines: which promises of a policy hold, and the run that breaks one that does not."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen

from lbw_policy.authority.card import Proved
from lbw_policy.claims import Result, Status
from lbw_policy.semantics import Policy
from lbw_policy.semantics.spelling import share
from lbw_policy.verify import solver
from lbw_policy.verify.proving import promises, prove
from lbw_policy.witness.counterexamples import block

PROVED, FAILED, OPEN = 0, 1, 3
"""Exit codes: every promise that can be proved is; one does not hold; neither."""
INSTALL = 'pip install "lbw_policy[prove]"'
_WIDTH = 80
_ABOUT, _BOUND = 26, 30
"""The widest the columns of a table are made for one name that is long."""


@frozen
class Proof:
    """What was found out about the promises of one policy.

    `open` has the results that a proof could still settle: those unknown, and those only tested for want of a solver.
    """

    name: str
    policy: Policy
    results: tuple[Result, ...]
    open: tuple[Result, ...]
    solver: str | None

    @property
    def failed(self) -> tuple[Result, ...]:
        """The promises that do not hold."""
        return tuple(one for one in self.results if one.status is Status.FAILED)

    @property
    def code(self) -> int:
        """The exit code."""
        return FAILED if self.failed else OPEN if self.open else PROVED

    @property
    def proved(self) -> Proved:
        """The bounds of what is proved, for the authority card."""
        found: dict[str, float | None] = {}
        for promise in dict.fromkeys(one.claim.promise for one in self.results):
            parts = [one for one in self.results if one.claim.promise == promise]
            sure = [one.claim for one in parts if one.status is Status.PROVED]
            found |= {f"{promise}: {claim.about}": claim.bound for claim in sure}
            if len(sure) == len(parts):
                bounds = [claim.bound for claim in sure if claim.bound is not None]
                whole = [claim.bound for claim in sure if not claim.about]
                found[promise] = whole[0] if whole else max(bounds, default=None)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the results as plain data, each with its witness as text."""
        return {
            "path": self.name,
            "policy": self.policy.name,
            "digest": self.policy.digest,
            "solver": self.solver,
            "promises": [_plain(one) for one in self.results],
            "summary": {status.value: _count(self.results, status) for status in Status},
        }


def proof_of(name: str, policy: Policy, *, solves: bool, seconds: float) -> Proof:
    """Prove a policy; without a solver its promises are tested."""
    solves = solves and solver.available()
    results = prove(policy, solver=solves, seconds=seconds)
    provable = {(one.claim.promise, one.claim.about) for one in promises(policy) if one.inductions or one.obligations}
    undecided = [one for one in results if one.status is Status.UNKNOWN or (_tested(one) and _key(one) in provable)]
    return Proof(name, policy, results, tuple(undecided), solver.version() if solves else None)


def _tested(result: Result) -> bool:
    return result.status is Status.TESTED


def _key(result: Result) -> tuple[str, str]:
    return result.claim.promise, result.claim.about


def _count(results: Sequence[Result], status: Status) -> int:
    return sum(one.status is status for one in results)


def _plain(result: Result) -> dict[str, Any]:
    witness = block(result.witness) if result.witness else None
    return {**result.as_dict(), "invariants": list(result.invariants), "witness": witness}


# What does not hold


def troubles(proof: Proof) -> Iterator[str]:
    """Yield a paragraph for each promise that failed, then for each that is unknown."""
    for one in proof.failed:
        yield "\n".join(_failure(proof, one))
    for one in proof.results:
        if one.status is Status.UNKNOWN:
            yield "\n".join([_titled(proof, "UNKNOWN", one), *_said(one), f"help: {_help(one)}"])


def _failure(proof: Proof, result: Result) -> Iterator[str]:
    yield _titled(proof, "FAILED", result)
    yield from _said(result)
    if result.witness:
        yield "  as a test of this policy, which fails:\n"
        yield textwrap.indent(block(result.witness).rstrip(), "    ") + "\n"
    yield f"help: {_help(result)}"


def _titled(proof: Proof, word: str, result: Result) -> str:
    about = f", {result.claim.about}" if result.claim.about else ""
    return f"{word} {proof.name}: {result.claim.promise}{about}"


def _said(result: Result) -> Iterator[str]:
    for text in (f"promised: {result.claim.sentence}", f"found: {result.how}"):
        yield textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


_HELP = {
    "no_conflict": "write `enter` and `leave` so that no readings meet both; leave a gap",
    "dwell_bounded": "write `stay at most N steps` in the level",
    "calm_returns": "write `leave when ...` or `stay at most N steps` in every level",
    "everything_can_fire": "see whether its condition can ever hold; else leave the rule out",
    "refines_parent": "tighten the limits to those of the policy that this one extends",
    "skip_cannot_livelock": "allow fewer skips in a row, and rollbacks `at least N steps apart`",
    "progress_guaranteed": "allow fewer skips and rollbacks, or a shorter way back",
}


def _help(result: Result) -> str:
    promise = result.claim.promise
    if result.status is Status.UNKNOWN and promise != "everything_can_fire":
        return "`--seconds` gives the solver longer; until then it counts as not kept"
    return _HELP.get(promise, "no policy should break this promise: please report the policy and the test")


# Tables


def table(proof: Proof, *, verbose: bool = False) -> Iterator[str]:
    """Yield the lines of a policy's promises, grouped by name."""
    yield f"promises of `{proof.policy.name}` ({proof.policy.digest[:12]}), {proof.solver or 'without a solver'}"
    wide = min(_ABOUT, max(len(_about(one)) for one in proof.results))
    reach = min(_BOUND, max(len(_bound(one)) for one in proof.results))
    last = ""
    for one in proof.results:
        if one.claim.promise != last:
            yield f"  {one.claim.promise}"
        last = one.claim.promise
        line = f"    {_about(one):<{wide}}  {_bound(one):<{reach}}  {one.status.value:<7}  {one.seconds:5.2f} s"
        yield line
        yield from _details(one) if verbose else ()


def _about(result: Result) -> str:
    return result.claim.about or "the policy"


def _bound(result: Result) -> str:
    claim = result.claim
    if claim.bound is None:
        return ""
    number = share(claim.bound) if claim.unit.startswith("of ") else _number(claim.bound)
    return f"{number} {claim.unit}".strip()


def _number(value: float) -> str:
    return f"{int(value):_}" if value == int(value) else f"{value:.6g}"


def _details(result: Result) -> Iterator[str]:
    invariants = (f"invariant: {one}" for one in dict.fromkeys(result.invariants))
    for text in (result.claim.sentence, result.how, *invariants):
        yield textwrap.fill(text, _WIDTH, initial_indent="      ", subsequent_indent="        ", break_on_hyphens=False)


def verdict(proof: Proof) -> str:
    """Return one line: how many promises are known how far, and in what time."""
    counts = Counter(one.status for one in proof.results)
    told = ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status])
    seconds = sum(one.seconds for one in proof.results)
    count = len(proof.results)
    return f"{proof.name}: {count} promise{'s' * (count != 1)}: {told}, in {seconds:.1f} s"


def unsolved() -> str:
    """Return what it means that there is no solver."""
    return f"z3 is not installed, so nothing is proved: promises are tested by hostile runs only\nhelp: {INSTALL}"
